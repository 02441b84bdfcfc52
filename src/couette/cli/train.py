"""couette train: from pictures to a model."""

from __future__ import annotations

import json
import shlex
import sys
from pathlib import Path
from typing import Annotated, Any

import tyro
from pydantic import Field

from couette import api
from couette.cli.display import Display
from couette.cli.options import ALIASES, normal_flags, parse_config, take_flag, told
from couette.errors import InputError
from couette.recipes import Session, Staged
from couette.runs import RunFolder

HELP = """couette train [DATA] [--recipe NAME] [--out RUN] [--steps N | --epochs E | --minutes M] …

DATA is a data set's name (`couette list data`) or a folder of pictures. Without --recipe the data
choose one. Every setting of the recipe is a flag, listed below with its value in this recipe.
Parts are chosen by name, and their own settings follow: --network unet --network.width 64; so are
--schedule, --parameterization, --weighting, --sampler, --threshold, --codec and --diffusion.told
and .times; --guider takes one or more, as interval:low=0.2 apg (`couette list` shows the names).
"""

_FEW = 150
"""Steps below which nothing has been learned that could be recognised."""

_LENGTHS = ("steps", "epochs", "minutes")
_EXTRA: dict[str, tuple[Any, Any]] = {
    "out": (
        Annotated[Path | None, Field(description="the run's folder; new under runs/ if not given")],
        None,
    ),
    "steps": (Annotated[int | None, Field(description="train this many steps")], None),
    "epochs": (Annotated[float | None, Field(description="or passes over the data")], None),
    "minutes": (Annotated[float | None, Field(description="or minutes")], None),
    "seed": (Annotated[int | None, Field(description="of weights, order and noise")], None),
    "resume": (Annotated[bool, Field(description="go on with the run in --out")], False),
    "as_json": (
        Annotated[bool, tyro.conf.arg(name="json", help="events as JSON lines on stdout")],
        False,
    ),
}


def run(arguments: list[str]) -> int:
    """Parse, prepare, then train with a live display."""
    session, as_json = prepare(arguments)
    display = Display(as_json)
    display.notes(session.notes(), session.folder.path)
    with display:
        for event in session.run():
            display.show(event)
    _closing(session, as_json)
    return 0


def prepare(arguments: list[str]) -> tuple[Session | Staged, bool]:
    """The session that the arguments ask for, and whether JSON is wanted.

    Raises:
        CouetteError: what was asked can't be done; nothing was written.
    """
    data, flags = _data(normal_flags(arguments))
    recipe, flags = take_flag(flags, "recipe")
    resume = "--resume" in flags
    if "-h" in flags or "--help" in flags:
        print(f"{HELP}\n{told(ALIASES)}\n")
    base = _base(flags, resume, recipe, data)
    config, found = parse_config(base, "train", flags, _EXTRA)
    # Parts come back with all their settings: what no flag changes must not look changed.
    before = parse_config(base, "train", [], _EXTRA)[0] if resume else base
    changed = {
        name: getattr(config, name)
        for name in type(config).model_fields
        if getattr(config, name) != getattr(before, name)
    }
    session = api.begin(
        data,
        out=found["out"],
        recipe=recipe,
        length={name: found[name] for name in _LENGTHS},
        seed=found["seed"],
        resume=resume,
        settings={
            name: value.model_dump() if name not in ("network", "codec") else value
            for name, value in changed.items()
        },
        tell=lambda text: print(text, file=sys.stderr, flush=True),
    )
    return session, found["as_json"]


_USES = {
    "autoencoder": "couette eval {run}\n       couette train DATA --codec latent:run={run}",
    "contrastive": 'couette search {run} "a red circle"\n       couette eval {run}\n'
    "       couette train DATA --recipe text-to-image --text.encoder clip --text.run {run}",
    "classifier": "couette sample MODEL --guider classifier:run={run} --label 0 --guidance 2\n"
    "       couette show MODEL gradients --classifier {run}",
}
"""What to type with models that draw nothing by themselves."""


def _base(flags: list[str], resume: bool, recipe: str | None, data: str | None) -> Any:
    """The settings that flags are laid over: the run's own when it goes on, else the recipe's."""
    out, _ = take_flag(flags, "out")
    if resume:
        if out is None:
            raise InputError("To resume, say which run: couette train --out RUN --resume.")
        return RunFolder(Path(out)).config()
    return api.recipe_config(recipe, data)


def _data(arguments: list[str]) -> tuple[str | None, list[str]]:
    """The first argument, where it is not a flag."""
    if arguments and not arguments[0].startswith("-"):
        return arguments[0], arguments[1:]
    source, rest = take_flag(arguments, "data.source")
    return source, rest


def _closing(session: Session | Staged, as_json: bool) -> None:
    """Where the pictures are, and what to type next."""
    path, step = session.folder.path, session.trainer.step
    if as_json:
        print(json.dumps({"event": "done", "path": str(path), "step": step}), flush=True)
        return
    steps = "1 step" if step == 1 else f"{step:,} steps"
    run = shlex.quote(str(path))
    if step < _FEW:
        more = max(2, round(4 * session.trainer.plan.seconds / 60))
        print(
            f"\nOnly {steps}: expect noise. Go on up to {more} minutes in all with\n"
            f"       couette train --out {run} --resume --minutes {more}\n"
            "or begin anew with a smaller --resolution or --batch."
        )
    kind = session.config.objective.name
    if kind in _USES:
        print(f"\nTrained {steps}. Pictures: {session.folder.samples}")
        print("Next:  " + _USES[kind].format(run=run))
        return
    label = "40 --label each" if session.model_config.classes else "16"
    print(
        f"\nTrained {steps}. Pictures: {session.folder.samples}\n"
        f"Next:  couette sample {run} --count {label}\n"
        f"       couette show {run}\n"
        f"       couette eval {run}",
        file=sys.stdout,
    )
