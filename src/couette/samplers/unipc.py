"""Predictor and corrector that share their evaluations: dy/ds = x0, the polynomial in λ."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor

from couette.contracts import Cond, Denoise, Level, Noise, Prediction, Step
from couette.registry import SAMPLERS
from couette.samplers.interpolation import exponential_adams, two_point
from couette.samplers.moves import (
    blend,
    half_log_snr,
    is_clean,
    is_noise,
    move,
    need_normal,
    stretches,
)

Variant = Literal["bh1", "bh2"]


@SAMPLERS.register(
    "unipc",
    order=3,
    known_as=("UniPCMultistepScheduler",),
    variants={"order=3,variant=bh1": ("UniPC", "uni_pc"), "order=3": ("uni_pc_bh2",)},
)
def unipc(
    denoise: Denoise,
    x: Tensor,
    times: Tensor,
    cond: Cond,
    noise: Noise,
    *,
    order: Annotated[int, Field(ge=1, le=3)] = 2,
    variant: Variant = "bh2",
) -> Iterator[Step]:
    """UniPC: each step is taken again, once more is known, with the prediction at its own end.

    Zhao et al. 2023, algs. 1 and 2, in their form for x0: the predictor moves along the polynomial
    in λ through the last `order` predictions, the corrector along that through one more, the next
    step's first evaluation. So it is of an order above its predictor's; with 3 as with 2 the first
    step, by the trapezoid, keeps it at the third. Either moves x_u = r·x_t + (alpha_u −
    alpha_t·r)·D with r = sigma_u/sigma_t, D the polynomial's mean under e^λ over the step. When to
    use it: in very few steps (5 to 10).

    Args:
        denoise, x, times, cond, noise: as every sampler's.
        order: the predictor's.
        variant: B(h), which counts where only two predictions are blended: e^h − 1 or h.

    Raises:
        InputError: a corruption whose noise is not normal.
    """
    need_normal(denoise, "unipc")
    past: deque[tuple[Tensor, Prediction]] = deque(maxlen=order)
    last: tuple[Tensor, Level] | None = None
    for i, n, t, u, a, b in stretches(denoise, times):
        p = denoise(x, t, cond)
        here = half_log_snr(a)
        if last is not None:
            x = move(last[0], _blend([(here, p), *past], past[0][0], here, variant), last[1], a)
        if is_noise(a) or is_clean(b):
            x = move(x, p, a, b)
        else:
            past.appendleft((here, p))
            last = x, a
            x = move(x, _blend(past, here, half_log_snr(b), variant), a, b)
        yield Step(i, n, u, x, p.x0)


def _blend(
    seen: Iterable[tuple[Tensor, Prediction]], start: Tensor, end: Tensor, variant: Variant
) -> Prediction:
    """The x0 to move along from λ = start to λ = end, from predictions and the λ of each."""
    lams, predictions = zip(*seen, strict=True)
    h = end - start
    if len(lams) != 2:
        weights = exponential_adams(lams, start, end)
    elif variant == "bh2":
        weights = two_point(lams, start, end, mean=1 / 2)
    else:
        weights = two_point(lams, start, end, mean=-h / torch.expm1(-h) / 2)
    blended: Prediction = blend(weights, predictions)
    return blended
