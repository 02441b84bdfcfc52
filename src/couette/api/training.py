"""Runs: `train` and what it is made of."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from couette.config import RunConfig, Spec
from couette.data import POINTS, is_gone
from couette.errors import DataError, InputError
from couette.recipes import RECIPES, Began, Event, Session, Staged
from couette.recipes.stages import needed, staged
from couette.runs import RunFolder

Given = Mapping[str, Any]


@dataclass(frozen=True)
class Run:
    """A finished training run."""

    path: Path
    config: RunConfig
    step: int


def train(
    data: str | Path | Given | None = None,
    *,
    out: str | Path | None = None,
    recipe: str | None = None,
    steps: int | None = None,
    epochs: float | None = None,
    minutes: float | None = None,
    seed: int | None = None,
    resume: bool = False,
    watch: Callable[[Event | Began], None] | None = None,
    **settings: Given | Spec | str,
) -> Run:
    """Train a model.

    Args:
        data: a data set's name or a folder, or the settings of a `DataConfig`, as
            {"source": "pictures", "resolution": 32}; the recipe's own when not given.
        out: the run's folder; a new one under `runs/` when not given.
        recipe: a recipe's name; chosen by the data when not given.
        steps, epochs, minutes: the length, one of them; the recipe's when not given.
        seed: of weights, order, noise.
        resume: go on with the run in `out`.
        watch: called with every event: progress, grids, checkpoints, notes.
        settings: groups of a `RunConfig`, as `training={"lr": 3e-4}` or `network="unet:width=64"`.

    Raises:
        CouetteError: what was asked can't be done, or the run could not be finished.
    """
    session = begin(
        data,
        out=out,
        recipe=recipe,
        length={"steps": steps, "epochs": epochs, "minutes": minutes},
        seed=seed,
        resume=resume,
        settings=settings,
    )
    for event in session.run():
        if watch is not None:
            watch(event)
    return Run(session.folder.path, session.config, session.trainer.step)


def begin(
    data: str | Path | Given | None = None,
    *,
    out: str | Path | None = None,
    recipe: str | None = None,
    length: Given | None = None,
    seed: int | None = None,
    resume: bool = False,
    settings: Mapping[str, Given | Spec | str] | None = None,
    tell: Callable[[str], None] = lambda text: None,
) -> Session | Staged:
    """Prepare a run without starting it, or the runs that it needs first; arguments as for `train`.

    Raises:
        CouetteError: what was asked can't be done; nothing was written.
    """
    source, given = (data, {}) if not isinstance(data, Mapping) else (data.get("source"), data)
    stored = None
    if resume:
        if out is None:
            raise InputError("To resume, say which run: --out RUN --resume.")
        config = RunFolder(Path(out)).config()
        stored = config.data.source
        if recipe is not None and recipe != config.recipe:
            raise InputError(
                f"{out} was begun with the recipe '{config.recipe}', not '{recipe}'; leave "
                "--recipe out to go on with it."
            )
    else:
        config = recipe_config(recipe, None if source is None else str(source))
    if settings:
        config = config.replace(**settings)
    if given:
        config = config.replace(data=given)
    if source is not None:
        config = config.replace(data={"source": str(source)})
    if seed is not None:
        config = config.replace(training={"seed": seed})
    config = with_length(config, length or {})
    if stored is not None and config.data.source == stored and is_gone(stored):
        raise DataError(
            f"The pictures of this run were at {stored}, which is not there; give their new place: "
            f"couette train NEWPATH --resume --out {out}."
        )
    folder = Path(out) if out else new_folder(config)
    whole = resume and RunFolder(folder).begun()
    if not whole and (staged(config, folder) if resume else needed(config)):
        return Staged(config, folder, resume=resume, tell=tell)
    return Session(config, folder, resume=resume, tell=tell)


def recipe_config(recipe: str | None, data: str | None) -> RunConfig:
    """The settings of a recipe; without a name, the one that the data suggest.

    Raises:
        UnknownName: no such recipe; the nearest is named.
    """
    if recipe is None:
        recipe = "points" if data in POINTS else "default"
        recipe = data if data is not None and data in RECIPES else recipe
    config: RunConfig = RECIPES[recipe]()
    return config if data is None else config.replace(data={"source": data})


def with_length(config: RunConfig, length: Given) -> RunConfig:
    """The settings with the length asked for in place of the recipe's.

    Raises:
        InputError: more than one length was asked for.
    """
    given = {name: value for name, value in length.items() if value is not None}
    if len(given) > 1:
        words = " and ".join(f"--{name}" for name in given)
        raise InputError(f"{words} contradict each other; give one of them.")
    if not given:
        return config
    return config.replace(training={"steps": None, "epochs": None, "minutes": None, **given})


def new_folder(config: RunConfig) -> Path:
    """The first folder under `runs/` that is free, named after the data and the recipe."""
    name = Path(config.data.source).name or "run"
    if config.recipe not in ("default", name):
        name = f"{name}-{config.recipe}"
    path, number = Path("runs") / name, 1
    while path.exists():
        number += 1
        path = Path("runs") / f"{name}-{number}"
    return path
