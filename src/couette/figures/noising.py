"""Pictures on their way to noise."""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from couette.codecs import Symmetric, Unit
from couette.config import Spec
from couette.contracts import Corruption, Level
from couette.data import Dataset
from couette.errors import InputError
from couette.figures import forward
from couette.figures.registry import Columns, Picture, Rows, Seed, figure, still
from couette.figures.target import Target
from couette.render import grid, strip
from couette.render.pixels import factor_for
from couette.schedules import Flow, entries

At = Annotated[
    tuple[float, ...],
    Field(description="where to look: entries of a table from 0, or times from 0 to 1"),
]
_FINE = 200
"""Steps of a chain along a schedule that has no table."""

First = Annotated[int, Field(ge=0, description="the first picture's number in the data")]


@figure("noising", needs=("data", "pictures"))
def noising(
    target: Target,
    *,
    schedule: Annotated[
        Spec | None, Field(description="with normal noise; the run's or recipe's own, or linear")
    ] = None,
    columns: Columns = 8,
    at: At = (),
    rows: Rows = 3,
    first: First = 0,
    naive: Annotated[bool, Field(description="also two wrong ways, beside the right one")] = False,
    seed: Seed = 0,
) -> list[Picture]:
    """The forward process: pictures at rising noise, clipped and not, against chain and toy mix."""
    corruption = forward.corruption_of(target, schedule)
    times = forward.columns_of(corruption, columns, at)
    data = target.unseen
    own = schedule is None and target.kind != "data"
    codec = target.codec if own else Symmetric()
    index = forward.chosen(data, first, rows)
    x0 = forward.encoded(data, index, codec)
    moments = forward_moments(x0, index, corruption, times, seed)
    made = [_strip(target, [codec.decode(x) for x in moments], corruption, times)]
    made.append(_ranges(data, first, columns, corruption, at, seed))
    if corruption.noise == "normal":
        made.append(_chain(codec.decode(x0[:1]), index[:1], corruption, times, seed))
    if naive:
        made.append(_naive(data, index[:1], corruption, times, seed))
    return made


def forward_moments(
    x0: Tensor, index: Tensor, corruption: Corruption, times: Tensor, seed: int
) -> list[Tensor]:
    """x_t at each time in closed form, (B, C, H, W) each, fitted to be looked at."""
    eps = forward.noise_for(index, x0, seed, corruption.noise)
    levels = [corruption.schedule.level(t) for t in times]
    return [forward.fitted(forward.noised(x0, level, eps), level) for level in levels]


def _strip(target: Target, moments: list[Tensor], corruption: Corruption, times: Tensor) -> Picture:
    pictures = [x[i] for i in range(len(moments[0])) for x in moments]
    titles = [forward.words(corruption.schedule, t) for t in times]
    end = corruption.schedule.level(times.new_ones(()))
    notes = [f"x_t = α·x_0 + σ·ε with {corruption.noise} noise, the same ε along a row."]
    if forward.explodes(corruption.schedule):
        notes.append("σ outgrows the picture: x_t is shown divided by √(1 + σ²).")
    elif float(end.alpha) > 0.05:
        notes.append(
            f"This schedule ends at √ᾱ = {float(end.alpha):.2f}: some of the picture is left, so "
            "sampling, which begins at pure noise, begins a little off."
        )
    image = grid(
        pictures, columns=len(times), column_titles=titles, scale=scale_for(moments[0], len(times))
    )
    return still("noising", image, *notes)


def scale_for(like: Tensor, across: int) -> int:
    """The enlargement at which two words fit above each of `across` pictures."""
    return factor_for(like.shape[-2], like.shape[-1], least=112, across=across)


def _ranges(
    data: Dataset,
    first: int,
    columns: int,
    corruption: Corruption,
    at: tuple[float, ...],
    seed: int,
) -> Picture:
    """A different picture in each column: clean, noisy clipped and unclipped, and the toy mix."""
    mixes = corruption.noise == "uniform"
    shown = forward.corruption_of(Target("", "nothing")) if mixes else corruption
    times = forward.columns_of(shown, columns, () if mixes else at)
    index = forward.chosen(data, first, len(times))
    times = times[: len(index)]
    x0 = forward.encoded(data, index, Symmetric())
    level = shown.schedule.level(times)
    x = forward.noised(x0, level, forward.noise_for(index, x0, seed))
    amounts = torch.linspace(0, 1, len(index), dtype=torch.float64)
    rows = {
        "clean": x0,
        "noisy, clipped to [−1, 1]": x,
        "noisy, unclipped: black is the smallest value, white the largest": x,
        "toy mix (1 − a)·x + a·u": toy_mix(x0, index, amounts, seed),
    }
    titles = [
        f"{forward.words(shown.schedule, t)}\na = {float(a):.2f}"
        for t, a in zip(times, amounts, strict=True)
    ]
    image = strip(rows, columns=titles, stretch=[list(rows)[2]])
    return still(
        "clipped",
        image,
        "The toy mix of pictures in [0, 1] with uniform noise stays in [0, 1]; normal noise does "
        "not, and drowns the picture sooner.",
    )


def toy_mix(x0: Tensor, index: Tensor, amounts: Tensor, seed: int) -> Tensor:
    """(1 − a)·x + a·u on pictures in [0, 1], for pictures (B, C, H, W) in [-1, 1], and back."""
    unit, level = Unit(), Flow().level(amounts)
    u = forward.noise_for(index, x0, seed, "uniform")
    return unit.decode(forward.noised(unit.encode(x0), level, u))


def _chain(
    picture: Tensor, index: Tensor, corruption: Corruption, times: Tensor, seed: int
) -> Picture:
    """The closed form above the chain, one small step after another."""
    size = entries(corruption.schedule)
    if size is None:
        even = forward.even_times(corruption.schedule, _FINE).tolist()
        fine = torch.tensor(sorted({*even, *times.tolist()}), dtype=torch.float64)
    else:
        fine = torch.arange(1, size + 1, dtype=torch.float64) / size
    fine = fine[fine > 0]
    walked = dict(
        zip(
            fine.tolist(),
            forward.chain(picture, fine, corruption, index, seed),
            strict=True,
        )
    )
    steps = [0.0, *fine.tolist()]
    stepped, direct, titles = [], [], []
    eps = forward.noise_for(index, picture, seed)
    for t in times:
        level = corruption.schedule.level(t)
        here = walked[float(t)] if t > 0 else picture
        stepped.append(forward.fitted(here, level)[0])
        direct.append(forward.fitted(forward.noised(picture, level, eps), level)[0])
        number = steps.index(float(t))
        titles.append(
            f"{forward.words(corruption.schedule, t)}\n{number} step{'s' * (number != 1)}"
        )
    image = strip(
        {"closed form\nq(x_t | x_0)": direct, "step by step\nq(x_t | x_t−1)": stepped},
        columns=titles,
    )
    return still(
        "chain",
        image,
        "Both rows are draws from one distribution: only their noise differs.",
    )


def _naive(
    data: Dataset, index: Tensor, corruption: Corruption, times: Tensor, seed: int
) -> Picture:
    """Noise added and clipped again and again; noise compounded; and the closed form."""
    if corruption.noise != "normal":
        raise InputError("The naive series adds normal noise; give --schedule linear to see it.")
    x0 = forward.encoded(data, index, Symmetric())
    levels = [corruption.schedule.level(t) for t in times]
    eps = forward.noise_for(index, x0, seed)
    added = added_and_clipped(x0, index, len(levels), seed)
    compound, kept = compounded(x0, index, levels, seed)
    right = [forward.fitted(forward.noised(x0, level, eps), level) for level in levels]
    rows = {
        "x ← clip(x + 0.5·ε), again and again": added,
        "wrong: x_t from the noisy picture before it": compound,
        "right: x_t from x_0": right,
    }
    titles = [forward.words(corruption.schedule, t) for t in times]
    image = strip({name: [x[0] for x in row] for name, row in rows.items()}, columns=titles)
    return still(
        "naive",
        image,
        "Only the last row is q(x_t | x_0). The first clips at each step, so its noise is not "
        "normal and its picture keeps its full weight; the second noises what is noisy already, "
        "so that the product of all ᾱ so far is left of the picture: at the end "
        f"{kept[-1]:.2g}, not {float(levels[-1].alpha) ** 2:.2g}.",
    )


def added_and_clipped(x0: Tensor, index: Tensor, count: int, seed: int) -> list[Tensor]:
    """x ← clip(x + 0.5·ε) on pictures in [0, 1], from the clean one on; given and returned in
    [-1, 1]."""
    unit = Unit()
    x = unit.encode(x0)
    series = [x]
    for number in range(1, count):
        x = (x + 0.5 * forward.noise_for(index, x, seed, draw=number)).clamp(0, 1)
        series.append(x)
    return [unit.decode(x) for x in series]


def compounded(
    x0: Tensor, index: Tensor, levels: list[Level], seed: int
) -> tuple[list[Tensor], list[float]]:
    """The slip: each level's closed form applied to the result of the one before.

    Returns:
        The pictures, and what is left of the clean one in each, as ᾱ.
    """
    x, kept, series, left = x0, 1.0, [], []
    for number, level in enumerate(levels):
        x = forward.noised(x, level, forward.noise_for(index, x, seed, draw=number))
        kept *= float(level.alpha) ** 2
        series.append(x)
        left.append(kept)
    return series, left
