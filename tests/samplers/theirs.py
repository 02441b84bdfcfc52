"""Diffusers' schedulers as they come and in double, and what they are compared by.

The network is a smooth function of x of unit power and of log(sigma/alpha); our grid is the
one that their scheduler chose, read off its sigmas. Differences are measured in the noise level
reached, both in x/alpha; after the last step, to sigma = 0, in the last level above 0.

Theirs is run twice. In double, its float32 tables widened and its casts to float32 left out, only
a different method could differ from ours, so that the two agree to 1e-8 of sigma. As it comes, it
agrees to 1e-4 of sigma and what rounding does beside that: at sigma = 0.01, 1e-4 of it are
four units in the last place of a float32 pixel. Where their result is not the method's, the test
says why and holds ours to what it should be.
"""

from __future__ import annotations

import copy
import inspect
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from types import ModuleType
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor

from couette.contracts import Cond, Corruption, Noise, Prediction, Schedule
from couette.schedules import ratio
from worlds import draw, run, schedule, silent

diffusers = pytest.importorskip("diffusers")

pytestmark = pytest.mark.filterwarnings("ignore:__array_:DeprecationWarning")  # theirs, of numpy

EXACT, SINGLE, DOUBLE = 1e-8, 1e-4, 1e-6
"""Of sigma: theirs in double; as it comes, computed in float32; as it comes, in the dtype of x."""
ROUNDINGS = 32
"""How many units in the last place a run of theirs may lose, of the largest x/alpha in a step."""
X = draw(2, 3, 4, 4, seed=77)


def seeded(i: int) -> torch.Generator:
    """Their generator for their step i."""
    return torch.Generator().manual_seed(500 + i)


def drawn(i: int) -> Tensor:
    return torch.randn(X.shape, generator=seeded(i), dtype=X.dtype)


def seeds() -> Noise:
    """The same draws, one after another."""
    steps = count()
    return lambda t, u: drawn(next(steps))


def network(x: Tensor, noise: Tensor) -> Tensor:
    """Its output for x of unit power where sigma/alpha is `noise`."""
    return 0.6 * torch.tanh(1.3 * x + 0.2 * noise.double().log()) + 0.6 * x


class Predicts:
    """That network as a denoiser, by what its output means.

    eps: the noise. velocity: eps − x0, of x as it is. edm: F of Karras et al. 2022, sigma_data 0.5.
    """

    def __init__(self, kind: str, on: str | Schedule) -> None:
        self.kind = kind
        self.corruption = Corruption(schedule(on) if isinstance(on, str) else on)

    def __call__(self, x: Tensor, t: Tensor, cond: Cond) -> Prediction:
        level = self.corruption.schedule.level(t)
        if self.kind == "velocity":
            return Prediction(x - level.sigma * network(x, level.sigma))
        if self.kind == "edm":
            return Prediction(edm(x, level.sigma))
        eps = network(x / torch.hypot(*level), ratio(level))
        return Prediction((x - level.sigma * eps) / level.alpha)

    def times(self, noise: Tensor) -> Tensor:
        """Where sigma/alpha is `noise`."""
        return self.corruption.schedule.time(-2 * noise.double().log())


def edm(x: Tensor, sigma: Tensor) -> Tensor:
    power = (sigma.square() + 0.25).sqrt()
    return 0.25 / power.square() * x + 0.5 * sigma / power * network(x / power, sigma)


def ours(
    denoise: Predicts, name: str, noise: Tensor, draws: Noise = silent, **given: Any
) -> list[Tensor]:
    """x/alpha after each step of ours on a grid of sigma/alpha, begun at X of x_t's power."""
    s, times = denoise.corruption.schedule, denoise.times(noise)
    out = run(name, denoise, X * torch.hypot(*s.level(times[0])), times, draws, **given)
    return [step.x / s.level(u).alpha for u, step in zip(times[1:], out, strict=True)]


class Both(NamedTuple):
    """A run of theirs as it comes, and in double."""

    plain: list[Tensor]
    wide: list[Tensor]

    def then(self, change: Callable[[list[Tensor]], list[Tensor]]) -> Both:
        return Both(change(self.plain), change(self.wide))


def theirs(
    scheduler: Any,
    x: Tensor,
    output: Callable[[Tensor, int], Tensor],
    last: int | None = None,
    given: Callable[[Tensor, int], dict[str, Any]] = lambda x, i: {},
    change: Callable[[Any], object] = lambda scheduler: None,
) -> Both:
    """x after each of their evaluations up to `last`, for the network's output at x in the i-th.

    Args:
        given: further arguments of their i-th step, from x.
        change: made to the scheduler before either run.
    """
    wide = widened(copy.deepcopy(scheduler))
    for each in (scheduler, wide):
        change(each)
    plain = stepped(scheduler, x, output, last, given)
    with in_double(wide):
        return Both(plain, stepped(wide, x, output, last, given))


def stepped(
    scheduler: Any,
    x: Tensor,
    output: Callable[[Tensor, int], Tensor],
    last: int | None,
    given: Callable[[Tensor, int], dict[str, Any]],
) -> list[Tensor]:
    scheduler.set_begin_index(0) if hasattr(scheduler, "set_begin_index") else None
    scheduler.is_scale_input_called = True
    xs = []
    for i, t in enumerate(scheduler.timesteps[:last]):
        x = scheduler.step(output(x, i), t, x, **given(x, i)).prev_sample
        xs.append(x)
    return xs


def widened(scheduler: Any) -> Any:
    """With the same numbers in its tables, as float64."""
    for name, value in vars(scheduler).items():
        if isinstance(value, torch.Tensor) and value.dtype == torch.float32:
            setattr(scheduler, name, value.double())
    return scheduler


@contextmanager
def in_double(scheduler: Any) -> Iterator[None]:
    """Where its code says torch.float32, it gets float64."""
    wide = ModuleType("torch")
    vars(wide).update(vars(torch), float32=torch.float64)
    with pytest.MonkeyPatch.context() as patch:
        for each in type(scheduler).__mro__:
            if ".scheduling_" in each.__module__:
                patch.setattr(sys.modules[each.__module__], "torch", wide)
        yield


def agree(
    mine: list[Tensor],
    other: Both,
    noise: Tensor,
    within: float = SINGLE,
    roundings: float = ROUNDINGS,
    exact: float = EXACT,
) -> None:
    """Step by step, for x/alpha where sigma/alpha is `noise`."""
    assert len(mine) == len(other.plain) == len(other.wide) == len(noise)
    before = float(mine[0].abs().max())
    for a, plain, wide, S in zip(mine, *other, reached(noise), strict=True):
        here = float(a.abs().max())
        rounded = roundings * torch.finfo(torch.float32).eps * max(before, here)
        assert float((a - wide).abs().max()) <= exact * S
        assert float((a - plain).abs().max()) <= within * S + rounded
        before = here


def reached(noise: Tensor) -> list[float]:
    """The noise levels, the last above 0 in place of 0."""
    levels: list[float] = noise.double().clamp(min=noise[noise > 0].min()).tolist()
    return levels


def scaled(noise: Tensor) -> Callable[[list[Tensor]], list[Tensor]]:
    """x/alpha of a variance-preserving x."""
    powers = (1 + noise.double().square()).sqrt()
    return lambda xs: [x * power for x, power in zip(xs, powers, strict=True)]


def made(name: str, steps: int, **given: Any) -> Any:
    scheduler = getattr(diffusers, name)(**given)
    scheduler.set_timesteps(steps)
    return scheduler


def offered(name: str) -> set[str]:
    """The settings of a scheduler that choose its grid."""
    settings = inspect.signature(getattr(diffusers, name).__init__).parameters
    grids = {"timestep_spacing", *(key for each in (*BY_SIGMA, LU) for key in each)}
    return grids & set(settings)


STEPS = 12
LINSPACE, LEADING, TRAILING = BY_ENTRY = tuple(
    {"timestep_spacing": each} for each in ("linspace", "leading", "trailing")
)
KARRAS, EXPONENTIAL, BETA = BY_SIGMA = tuple(
    {f"use_{each}_sigmas": True} for each in ("karras", "exponential", "beta")
)
LU = {"use_lu_lambdas": True}
IDS = ["linspace", "leading", "trailing", "karras", "exponential", "beta"]
SPACINGS = pytest.mark.parametrize("spacing", [*BY_ENTRY, *BY_SIGMA], ids=IDS)


def slowly(*case: Any) -> Any:
    return pytest.param(*case, marks=pytest.mark.slow)


def between(sigmas: Tensor) -> Tensor:
    """The geometric means of the 1st and 2nd, the 3rd and 4th, …"""
    ends = sigmas[1::2]
    return (sigmas[::2][: len(ends)] * ends).sqrt()


class Whole:
    """Theirs adds the parabola's second term, (r² − …)·D2, with half its weight, which leaves a
    method of second order; this adds the other half."""

    def multistep_dpm_solver_third_order_update(self: Any, outputs, *args, sample, **given):  # type: ignore[no-untyped-def]
        half = super().multistep_dpm_solver_third_order_update(outputs, sample=sample, **given)  # type: ignore[misc]
        sigmas = [self.sigmas[self.step_index + k].double() for k in (1, 0, -1, -2)]
        end, *lams = (-each.log() for each in sigmas)
        h, r0, r1 = end - lams[0], lams[0] - lams[1], lams[1] - lams[2]
        m0, m1, m2 = reversed(outputs)
        D2 = ((m0 - m1) / r0 - (m1 - m2) / r1) * h.square() / (r0 + r1)
        alpha, _ = self._sigma_to_alpha_sigma_t(sigmas[0])
        return half - alpha * (((-h).exp() - 1 + h) / h.square() - 0.5) * D2


class WholeMultistep(Whole, diffusers.DPMSolverMultistepScheduler):
    pass


def extrapolated(order: int, spacing: dict[str, Any]) -> float:
    """Units of float32 that multistep methods may lose. Between quantiles of the beta distribution
    λ falls in steps so uneven that the polynomial magnifies what it is made of, a parabola by the
    square of that. Their λ are float32."""
    return {1: 100, 2: 1000, 3: 10_000}[order] if spacing == BETA else 10 * ROUNDINGS
