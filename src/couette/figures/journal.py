"""What training left behind: its losses and its sheets."""

from __future__ import annotations

from typing import Annotated, Any, NamedTuple

import numpy as np
from PIL import Image
from pydantic import Field

from couette.errors import InputError
from couette.figures.registry import Picture, Runs, figure, still
from couette.figures.reverse import named, others
from couette.figures.target import Target
from couette.render import beside as side_by_side
from couette.render import loss_curve
from couette.runs import RunFolder

Line = tuple[list[float], list[float]]


class Losses(NamedTuple):
    """A run's log as lines of (step, loss): as logged, per epoch, and by noise level."""

    logged: Line
    epochs: Line
    levels: dict[str, Line]


@figure("loss", needs=("log",))
def loss(
    target: Target,
    *,
    beside: Runs = (),
    top: Annotated[
        float | None, Field(gt=0, description="the highest loss shown; chosen when not given")
    ] = None,
    log: Annotated[bool, Field(description="a logarithmic axis")] = False,
) -> list[Picture]:
    """The loss over training, its averages by epoch, and the loss at each noise level."""
    runs = named([target, *others(target, beside, "loss", alike=False)])
    found = {name: losses_of(each.run) for name, each in runs.items()}
    alone = len(found) == 1
    only = next(iter(found.values()))
    image = loss_curve(
        {"" if alone else name: each.logged for name, each in found.items()},
        bins=only.levels if alone else None,
        epochs={
            "" if alone else name: each.epochs for name, each in found.items() if each.epochs[0]
        },
        ylim=None if top is None else (0, top),
        log=log,
        title=target.name if alone else "",
    )
    return [still("loss", image, *_averages(found))]


def losses_of(run: RunFolder) -> Losses:
    """A run's log, noise levels from low noise to high.

    Raises:
        InputError: nothing was logged yet.
    """
    logged: Line = ([], [])
    epochs: Line = ([], [])
    levels: dict[str, Line] = {}
    for row in run.metrics():
        if "epoch_loss" in row:
            _add(epochs, row["step"], row["epoch_loss"])
        if "loss" in row:
            _add(logged, row["step"], row["loss"])
        for name, value in row.get("levels", {}).items():
            _add(levels.setdefault(name, ([], [])), row["step"], value)
    if not logged[0]:
        raise InputError(
            f"The run in {run.path} has logged no loss yet; train it further with --resume."
        )
    quiet_first = sorted(levels, key=_lower_edge, reverse=True)
    return Losses(logged, epochs, {f"log-SNR {name}": levels[name] for name in quiet_first})


def _averages(found: dict[str, Losses]) -> list[str]:
    notes = []
    for name, losses in found.items():
        values = ", ".join(f"{value:.6f}" for value in losses.epochs[1])
        if values:
            notes.append(f"{name}: average loss of each epoch: {values}.")
    return notes


@figure("progress", needs=("log",))
def progress(
    target: Target,
    *,
    epochs: Annotated[
        tuple[Annotated[float, Field(gt=0)], ...],
        Field(description="after which epochs; the first and the last sheet when not given"),
    ] = (),
) -> list[Picture]:
    """The sheets that a run drew as it went, side by side."""
    drawn = sheets_of(target.run)
    if epochs:
        chosen = [_nearest(target.run, drawn, epoch) for epoch in epochs]
    else:
        chosen = list(dict.fromkeys((min(drawn), max(drawn))))
    sheets = {}
    for step in chosen:
        with Image.open(drawn[step], formats=["PNG"]) as sheet:
            sheets[_words(target.run, step)] = sheet.convert("RGB")
    return [still("progress", side_by_side(sheets))]


def sheets_of(run: RunFolder) -> dict[int, Any]:
    """The files of a run's sheets by their step.

    Raises:
        InputError: there are none.
    """
    found = {}
    for path in sorted(run.samples.glob("step_*.png")):
        number = path.stem.removeprefix("step_")
        if number.isdecimal():
            found[int(number)] = path
    if not found:
        raise InputError(f"The run in {run.path} has drawn no sheets yet; train it further.")
    return found


def _nearest(run: RunFolder, drawn: dict[int, Any], epoch: float) -> int:
    """The sheet drawn at an epoch, half an epoch off at most.

    Raises:
        InputError: there is none; those that are there are named.
    """
    per = _steps_per_epoch(run)
    step = min(drawn, key=lambda each: abs(each - epoch * per))
    if abs(step - epoch * per) > per / 2:
        there = ", ".join(f"{each / per:.3g}" for each in drawn)
        raise InputError(f"{run.path} has no sheet of epoch {epoch:g}; it has those of: {there}.")
    return step


def _words(run: RunFolder, step: int) -> str:
    epoch = step / _steps_per_epoch(run)
    near = round(epoch)
    exact = near and abs(epoch - near) * _steps_per_epoch(run) <= 1
    return f"epoch {near if exact else f'{epoch:.2f}'} (step {step:,})"


def _steps_per_epoch(run: RunFolder) -> float:
    return float(run.facts()["pictures"]) / run.config().training.batch


def _lower_edge(name: str) -> float:
    """The lower edge of a bin of log-SNR: "<-8", "-8…-6", ">8"."""
    if name.startswith("<"):
        return float(-np.inf)
    return float(name.removeprefix(">").partition("…")[0]) + 0.5 * name.startswith(">")


def _add(line: Line, step: float, value: float) -> None:
    line[0].append(step)
    line[1].append(value)
