"""What the lab found, as pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from couette.laboratory.results import Results
from couette.laboratory.trials import Outcome
from couette.render import curves, grid, save


def write(results: Results, folder: Path, floor: float | None = None) -> list[Path]:
    """Draw the figures into a folder.

    `error.png` and `frechet.png`: against evaluations, a line for each sampler on a grid;
    `guidance.png`: accuracy and coverage against the scale of guidance, where there are several;
    `pictures.png`: the first picture of every trial, a row for each sampler and grid, a column for
    each number of steps.

    Args:
        results: all outcomes.
        folder: where to.
        floor: the Fréchet distance of real pictures, where that was measured.

    Raises:
        StorageError: the disk refuses.
    """
    done = [each for each in results if each.refused is None]
    figures = {}
    for name, axis in (("error", "error (RMS, of [−1, 1])"), ("frechet", "Fréchet distance")):
        series = _series(done, name)
        if name == "frechet" and floor is not None and series:
            ends = [min(x[0] for x, _ in series.values()), max(x[-1] for x, _ in series.values())]
            series["real pictures (floor)"] = (ends, [floor, floor])
        if series:
            figures[name] = curves(
                series,
                x="evaluations of the network",
                y=axis,
                log_x=True,
                log_y=True,
                marks=True,
            )
    scales = _by_scale(done)
    if scales:
        figures["guidance"] = curves(scales, x="guidance scale", y="share", marks=True)
    rows = _rows(done, results.pictures)
    if rows is not None:
        figures["pictures"] = rows
    paths = []
    for name, image in figures.items():
        paths.append(folder / f"{name}.png")
        save(image, paths[-1])
    return paths


def _series(done: Sequence[Outcome], field: str) -> dict[str, tuple[list[float], list[float]]]:
    """A line for each sampler on each grid, of evaluations and a figure."""
    names = _names(done)
    found: dict[str, list[tuple[float, float]]] = {}
    for each in done:
        value = getattr(each, field)
        if value is not None and each.evaluations:
            found.setdefault(names[each.trial], []).append((each.evaluations, value))
    return {
        name: ([x for x, _ in sorted(points)], [y for _, y in sorted(points)])
        for name, points in found.items()
    }


def _by_scale(done: Sequence[Outcome]) -> dict[str, tuple[list[float], list[float]]]:
    """Lines of accuracy and coverage against the scale, for each way to draw that has several."""
    found: dict[str, dict[float, float]] = {}
    ways = {(each.sampler, each.grid, each.steps) for each in done}
    for each in sorted(done, key=lambda outcome: outcome.guidance):
        way = "" if len(ways) == 1 else f"{each.sampler}, {_grid(each)}, {each.steps} steps: "
        for name, value in (
            ("classified as asked", each.accuracy),
            ("coverage of real pictures", each.coverage),
        ):
            if value is not None:
                found.setdefault(way + name, {})[each.guidance] = value
    return {
        name: (list(points), list(points.values()))
        for name, points in found.items()
        if len(points) > 1
    }


def _names(done: Sequence[Outcome]) -> dict[str, str]:
    """What each trial's line is called: no longer than tells it from the others."""
    samplers = {each.sampler for each in done}
    grids = {_grid(each) for each in done}
    scales = {each.guidance for each in done}
    names = {}
    for each in done:
        short = each.sampler.partition(":")[0]
        alike = [name for name in samplers if name.partition(":")[0] == short]
        sampler = short if len(alike) == 1 else each.sampler
        parts = [sampler, *([_grid(each)] if len(grids) > 1 else [])]
        parts += [f"guidance {each.guidance:g}"] if len(scales) > 1 else []
        names[each.trial] = ", ".join(parts)
    return names


def _grid(each: Outcome) -> str:
    name = each.grid.partition(":")[0]
    return "found grid" if name == "given" else name


def _rows(done: Sequence[Outcome], drawn: Mapping[str, Tensor]) -> Image.Image | None:
    shown = [each for each in done if each.trial in drawn]
    if not shown:
        return None
    steps = sorted({each.steps for each in shown})
    called = _names(done)
    names = list(dict.fromkeys(called[each.trial] for each in shown))
    first = next(iter(drawn.values()))
    if first.shape[0] not in (1, 3):
        return None
    blank = torch.ones_like(first)
    placed = {(called[each.trial], each.steps): drawn[each.trial] for each in shown}
    cells = torch.stack([placed.get((name, count), blank) for name in names for count in steps])
    return grid(
        np.asarray(cells),
        columns=len(steps),
        column_titles=[f"{count} steps" for count in steps],
        row_titles=names,
    )
