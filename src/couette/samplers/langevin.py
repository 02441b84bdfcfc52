"""Predictor and corrector: down by ancestral sampling, then still by Langevin's dynamics."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

from pydantic import Field
from torch import Tensor

from couette.contracts import Cond, Denoise, Noise, Step
from couette.registry import SAMPLERS
from couette.samplers.moves import Stretch, need_normal, stretches
from couette.samplers.noisy import Split, ancestral, renew


@SAMPLERS.register("langevin", noise=True, evaluations=2)
def langevin(
    denoise: Denoise,
    x: Tensor,
    times: Tensor,
    cond: Cond,
    noise: Noise,
    *,
    snr: Annotated[float, Field(gt=0, le=0.7)] = 0.16,
    corrections: Annotated[int, Field(ge=0)] = 1,
) -> Iterator[Step]:
    """Predictor-corrector sampling (Song et al. 2021, algs. 2 to 5), ancestral and Langevin.

    After each ancestral step come `corrections` steps x ← x + ε·score + sqrt(2ε)·z at the level
    reached. The paper's ε = 2·(snr·‖z‖/‖score‖)², over a batch's mean norms, is taken at what the
    norms are for noise alone, √d and √d/sigma: ε = 2·snr²·sigma², so that pictures of a batch don't
    sway each other. None at sigma = 0; 1 + corrections evaluations a step. When to use it: on score
    models (the schedules `ve` and `vp`), in many steps.

    Raises:
        InputError: a corruption whose noise is not normal.
    """
    need_normal(denoise, "langevin")
    part = 2 * snr**2
    for s in stretches(denoise, times):
        first = denoise(x, s.t, cond)
        x = renew(x, first, s, ancestral(s.a, s.b, 1.0), noise)
        still = Stretch(s.index, s.count, s.u, s.u, s.b, s.b)
        stirred = Split(s.b.sigma * (1 - part), s.b.sigma * (2 * part) ** 0.5)
        for _ in range(corrections if s.b.sigma > 0 else 0):
            x = renew(x, denoise(x, s.u, cond), still, stirred, noise)
        yield Step(s.index, s.count, s.u, x, first.x0)
