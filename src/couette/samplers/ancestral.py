"""Sampling the reverse chain itself, step by step, with fresh noise."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from torch import Tensor

from couette.contracts import Cond, Denoise, Noise, Step
from couette.registry import SAMPLERS
from couette.samplers.moves import move, need_normal, posterior, stretches


@SAMPLERS.register("ddpm", noise=True)
def ddpm(
    denoise: Denoise,
    x: Tensor,
    times: Tensor,
    cond: Cond,
    noise: Noise,
    *,
    variance: Literal["beta", "posterior"] = "posterior",
) -> Iterator[Step]:
    """Ancestral sampling (Ho et al. 2020, alg. 2), with either of its fixed variances.

    "beta" is β, best for normal data; "posterior" is β̃ = (1 − ᾱ_u)/(1 − ᾱ_t)·β, best for a single
    point. On a strided grid β is 1 − ᾱ_t/ᾱ_u. The last step, to sigma = 0, adds no noise.

    Raises:
        InputError: a corruption whose noise is not normal.
    """
    need_normal(denoise, "ddpm")
    for i, n, t, u, a, b in stretches(denoise, times):
        p = denoise(x, t, cond)
        back = posterior(a, b)
        x = move(x, p, a, back.mean)
        if b.sigma > 0:
            spread = back.beta if variance == "beta" else back.variance
            x = x + spread.sqrt() * noise(t, u)
        yield Step(i, n, u, x, p.x0)
