"""Stochastic Adams: a predictor and a corrector of any order, and noise where it helps."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from functools import partial
from itertools import islice
from typing import Annotated, NamedTuple

from pydantic import Field
from torch import Tensor

from couette.contracts import Cond, Denoise, Level, Noise, Prediction, Step
from couette.registry import SAMPLERS
from couette.samplers.moves import Stretch, is_noise, move, need_normal, need_rising, stretches
from couette.samplers.noisy import Past, Strength, diffused, drawn, exponential, over
from couette.schedules import ratio

Order = Annotated[int, Field(ge=1, le=4)]
OrderOrNone = Annotated[int, Field(ge=0, le=4)]


class _Leg(NamedTuple):
    """A step as begun: everything but what stands for x0."""

    x: Tensor
    s: Stretch
    eta: float
    path: Tensor

    def along(self, past: Past) -> Tensor:
        p = over(self.s, past, partial(exponential, eta=self.eta))
        kept = diffused(self.s.a, self.s.b, self.eta).kept
        return move(self.x, p, self.s.a, Level(self.s.b.alpha, kept)) + self.path


@SAMPLERS.register(
    "sa-solver",
    noise=True,
    strength="tau",
    weak=2,
    known_as=("SASolverScheduler",),
    variants={"predictor=3,corrector=4": ("sa_solver",)},
)
def sa_solver(
    denoise: Denoise,
    x: Tensor,
    times: Tensor,
    cond: Cond,
    noise: Noise,
    *,
    predictor: Order = 2,
    corrector: OrderOrNone = 2,
    tau: Strength = 1.0,
    low: Strength = 0.05,
    high: Strength = 50.0,
) -> Iterator[Step]:
    """SA-Solver (Xue et al. 2023, alg. 1): Adams' predictor and corrector for the reverse SDE.

    A step is taken along the polynomial through the last `predictor` predictions. Once the next one
    is made, the step is taken again, with the same noise, along the one through that and the
    `corrector` − 1 before it; the prediction is kept (PEC). corrector = 0 leaves that out. The SDE
    has strength tau² in steps that start with sigma/alpha between low and high; elsewhere, and with
    tau = 0, it is the ODE. One evaluation a step. Higher orders (the paper's 3 and 4) want short
    steps: in 20 on a coarse grid they overshoot. When to use it: in 20 steps or more, where the
    strength of the noise is to be tuned.

    Raises:
        InputError: a corruption whose noise is not normal, or `low` not below `high`.
    """
    need_normal(denoise, "sa-solver")
    need_rising(low, high, "sa-solver's low and high")
    past: deque[tuple[Level, Prediction]] = deque(maxlen=max(predictor, corrector))
    leg: _Leg | None = None
    for s in stretches(denoise, times):
        p = denoise(x, s.t, cond)
        past.appendleft((s.a, p))
        if leg is not None and corrector and not is_noise(leg.s.a):
            x = leg.along(list(islice(past, corrector)))
        eta = tau**2 if low <= ratio(s.a) <= high else 0.0
        leg = _Leg(x, s, eta, drawn(diffused(s.a, s.b, eta), noise, s.t, s.u))
        x = leg.along(list(islice(past, predictor)))
        yield Step(s.index, s.count, s.u, x, p.x0)
