"""Pictures whose pixels are states, on their way out; and the chain they follow, as matrices."""

from __future__ import annotations

from itertools import pairwise
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from couette.codecs import Levels
from couette.config import STATES, Spec, spec
from couette.discrete import KINDS, Kind, between, drawn, transitions
from couette.figures import forward
from couette.figures.registry import Columns, Picture, Seed, figure, still
from couette.figures.target import Target
from couette.registry import SCHEDULES
from couette.render import curves, strip
from couette.schedules import Mixture

_FINE = 100
"""Steps of the chain."""

_MASK = torch.tensor((-0.35, 0.05, 0.55))
"""The colour of [MASK], in [-1, 1]: no gray level."""


@figure("states", needs=("data", "pictures"))
def states(
    target: Target,
    *,
    schedule: Annotated[
        Spec | None, Field(description="flow or a variance-preserving one; flow if not given")
    ] = None,
    count: Annotated[int, Field(ge=2, le=64, description="gray levels")] = 8,
    columns: Columns = 8,
    first: Annotated[int, Field(ge=0, description="the picture's number in the data")] = 0,
    seed: Seed = 0,
) -> list[Picture]:
    """Pixels of a few levels lost to [MASK] or to chance; the chain's matrices and its rates."""
    chosen = schedule or (target.diffusion.schedule if replaces(target) else spec("flow"))
    mixture = Mixture(SCHEDULES.build(chosen))
    times = torch.linspace(0, 1, columns, dtype=torch.float64)
    return [
        _corrupted(target, mixture, times, count, first, seed),
        _matrices(mixture, times, count),
        _rates(mixture),
    ]


def replaces(target: Target) -> bool:
    """Whether the target is of states, which are replaced, not added to."""
    return target.kind in ("run", "model", "recipe") and target.diffusion.noise in STATES


def chain(kind: Kind, x0: Tensor, index: Tensor, mixture: Mixture, seed: int) -> list[Tensor]:
    """x_t at `_FINE` + 1 even times, each drawn from the one before: q(x_t | x_s)."""
    levels = [mixture.level(t) for t in torch.linspace(0, 1, _FINE + 1, dtype=torch.float64)]
    walk = [x0]
    for number, (s, t) in enumerate(pairwise(levels), start=1):
        u = forward.noise_for(index, x0, seed, "uniform", draw=number)
        walk.append(drawn(kind.after(walk[-1], between(s, t)), u))
    return walk


def _corrupted(
    target: Target, mixture: Mixture, times: Tensor, count: int, first: int, seed: int
) -> Picture:
    """Both kinds, by the closed form and step by step."""
    data, codec = target.unseen, Levels(count=count)
    codec.shape(data.channels, data.height, data.width)
    index = forward.chosen(data, first, 1)
    x0 = forward.encoded(data, index, codec)
    u = forward.noise_for(index, x0, seed, "uniform")
    rows = {}
    for name, kind in KINDS.items():
        walk = chain(kind, x0, index, mixture, seed)
        direct = [drawn(kind.after(x0, mixture.level(t)), u) for t in times]
        stepped = [walk[round(float(t) * _FINE)] for t in times]
        rows[f"{name}\nclosed form q(x_t | x_0)"] = [_shown(x, codec) for x in direct]
        rows[f"{name}\nstep by step q(x_t | x_s)"] = [_shown(x, codec) for x in stepped]
    return still(
        "states",
        strip(rows, columns=_titles(mixture, times)),
        f"Each pixel is one of {count} levels. It is kept with probability α; else it becomes "
        "[MASK], shown in blue, or one of the levels by chance.",
        "A pair of rows are draws from one distribution: only their noise differs.",
    )


def _shown(x: Tensor, codec: Levels) -> Tensor:
    """One picture of states in colour, (3, H, W)."""
    masked = x[0].sum(0) == 0
    return torch.where(masked, _MASK[:, None, None], codec.decode(x[0]))


def _matrices(mixture: Mixture, times: Tensor, count: int) -> Picture:
    rows = {
        name: [_drawn_matrix(transitions(kind, count, mixture.level(t))) for t in times]
        for name, kind in KINDS.items()
    }
    return still(
        "transitions",
        strip(rows, columns=_titles(mixture, times)),
        "Q(t), from the state of a row to that of a column; the last is [MASK]. The lighter "
        "the likelier, by the square root, so that small odds show. Rows add up to 1.",
    )


def _drawn_matrix(matrix: Tensor) -> Tensor:
    return (1.7 * matrix.sqrt() - 1).float()[None]


def _rates(mixture: Mixture) -> Picture:
    t = torch.linspace(0.01, 0.99, 197, dtype=torch.float64)
    level, fall = mixture.level(t), mixture.fall(t)
    lines = {
        "out: a state is lost, −α'/α": (t, fall / level.alpha),
        "back: a mask is lifted, −α'/(1 − α)": (t, fall / level.sigma),
    }
    return still(
        "rates",
        curves(lines, x="t", y="per unit of time", log_y=True, title="Rates of the chain"),
        "On the way back a mask becomes the state y at the second rate times p(x_0 = y | x_t): "
        "this is what a network for absorbing states learns.",
    )


def _titles(mixture: Mixture, times: Tensor) -> list[str]:
    return [f"t = {float(t):.2f}\nα = {float(mixture.level(t).alpha):.2f}" for t in times]
