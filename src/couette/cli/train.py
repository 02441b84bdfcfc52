"""couette train: from pictures to a model."""

from __future__ import annotations

import inspect
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
from couette.config import RunConfig
from couette.errors import InputError
from couette.recipes import RECIPES, Session, Staged
from couette.recipes.fitting import AUTO
from couette.recipes.stages import model_share, needed, sharing
from couette.recipes.using import commands
from couette.runs import RunFolder, step_of

HELP = """couette train [DATA] [--recipe NAME] [--out RUN] [--steps N | --epochs E | --minutes M] …

DATA is a data set's name (`couette list data`) or a folder of pictures. Without --recipe the data
choose one. Every setting of the recipe is a flag, listed below with its value in this recipe.
Parts are chosen by name, and their own settings follow: --network unet --network.width 64; so are
--schedule, --parameterization, --weighting, --sampler, --threshold, --codec and --diffusion.told
and .times; --guider takes one or more, as interval:low=0.2 apg (`couette list` shows the names).

`couette export --format diffusers` takes runs of --recipe ddpm, and others with --network unet2d
and a schedule that diffusers has (docs/exports.md); none that reads captions. ONNX takes any.
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
    base = _base(flags, resume, recipe, data)
    if "-h" in flags or "--help" in flags:
        print(f"{HELP}\n{told(ALIASES)}\n\n{_about(base, flags)}\n")
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


def _about(base: RunConfig, flags: list[str]) -> str:
    """What the help says of the recipe beside its flags."""
    lines = [f"The recipe {base.recipe}:\n{inspect.getdoc(RECIPES[base.recipe])}"]
    if stages := needed(base):
        lines.append(sharing(stages))
    if base.network.name == AUTO and "--network" not in flags:
        lines.append(
            "Its network is sized from the data; the run says how when it begins. The flags of one "
            f"by name:\ncouette train --recipe {base.recipe} --network unet --help"
        )
    return "\n\n".join(lines)


def _closing(session: Session | Staged, as_json: bool) -> None:
    """Where the pictures are, and what to type next."""
    if isinstance(session, Staged):
        session = session.session
    step = session.trainer.step
    if as_json:
        path = str(session.folder.path)
        print(json.dumps({"event": "done", "path": path, "step": step}), flush=True)
        return
    if few := _few(session):
        print(f"\n{few}")
    print(f"\nTrained {_steps(step)}. Pictures: {session.folder.samples}")
    print("Next:  " + "\n       ".join(commands(session)))


def _few(session: Session) -> str | None:
    """What to say of few steps, of the run or of those in its folder that it needed first.

    The model holds what those made as it was when it began, whatever becomes of their folders.
    """
    folder, config = session.folder, session.config
    steps = {name: step_of(kept) for name, run in folder.stages().items() if (kept := run.newest())}
    stages = list(steps)
    steps["model"] = session.trainer.step
    if min(steps.values()) >= _FEW:
        return None
    minutes = max(2, round(4 * session.trainer.plan.seconds / 60 / model_share(stages)))
    if not stages:
        return (
            f"Only {_steps(session.trainer.step)}: expect noise. Go on up to {minutes} minutes in "
            f"all with\n       couette train --out {shlex.quote(str(folder.path))} --resume "
            f"--minutes {minutes}\nor begin anew with a smaller --resolution or --batch."
        )
    again = ["couette", "train", config.data.source, "--recipe", config.recipe]
    again += ["--out", f"{folder.path}-longer", "--minutes", str(minutes)]
    counts = ", ".join(f"{name} {count:,}" for name, count in steps.items())
    return (
        f"Few steps ({counts}): expect noise. The model keeps its {' and '.join(stages)}\n"
        "as they are, whatever is trained in their folders; --resume trains the model alone. To\n"
        "train all of them longer, begin anew, with what other flags this run had:\n"
        f"       {shlex.join(again)}"
    )


def _steps(count: int) -> str:
    return "1 step" if count == 1 else f"{count:,} steps"
