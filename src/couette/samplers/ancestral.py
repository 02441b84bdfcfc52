"""Sampling the reverse chain itself: each step draws from the posterior that the chain has."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from torch import Tensor

from couette.contracts import Cond, Denoise, Level, Noise, Prediction, Step
from couette.errors import InputError
from couette.registry import SAMPLERS
from couette.samplers.dpm import halfway
from couette.samplers.first_order import ddim
from couette.samplers.moves import (
    Posterior,
    is_clean,
    is_noise,
    move,
    need_normal,
    posterior,
    slope,
    stretches,
    transfer,
)
from couette.samplers.noisy import Share, Split, ancestral, drawn, renew

Variance = Literal["beta", "posterior", "learned"]


@SAMPLERS.register(
    "ddpm",
    noise=True,
    weak=1,
    known_as=("DDPMScheduler", "DDPMParallelScheduler", "DDPMWuerstchenScheduler", "ddpm"),
    variants={
        "variance=beta": ("DDPMScheduler(variance_type='fixed_large')",),
        "variance=learned": (
            "DDPMScheduler(variance_type='learned_range')",
            "UnCLIPScheduler(variance_type='learned_range')",
        ),
    },
)
def ddpm(
    denoise: Denoise,
    x: Tensor,
    times: Tensor,
    cond: Cond,
    noise: Noise,
    *,
    variance: Variance = "posterior",
) -> Iterator[Step]:
    """Ancestral sampling (Ho et al. 2020, alg. 2), its variance fixed at either end or learned.

    x_u is drawn from N(mean of q(x_u | x_t, x0), variance). "beta" is β, right for normal data of
    variance 1 on a variance-preserving schedule (elsewhere, in few steps, it draws far too much);
    "posterior" is β̃ = (1 − ᾱ_u)/(1 − ᾱ_t)·β, best for a single point; "learned" is where between
    the two the model says (Nichol & Dhariwal 2021, eq. 15). On a strided grid β is 1 − ᾱ_t/ᾱ_u. The
    last step, to sigma = 0, adds no noise. When to use it: in hundreds of steps, as DDPM was meant;
    in fewer, the samplers of higher order.

    Raises:
        InputError: a corruption whose noise is not normal, or "learned" of a model that predicts
            no variance.
    """
    need_normal(denoise, "ddpm")
    for s in stretches(denoise, times):
        p = denoise(x, s.t, cond)
        back = posterior(s.a, s.b)
        x = renew(x, p, s, Split(back.mean.sigma, _spread(back, p, variance)), noise)
        yield Step(s.index, s.count, s.u, x, p.x0)


def _spread(back: Posterior, p: Prediction, variance: Variance) -> Tensor:
    if variance == "learned" and p.mix is None:
        raise InputError(
            "ddpm with variance=learned needs a model that predicts its variance, and this one "
            "doesn't; use variance=posterior or variance=beta."
        )
    if variance == "posterior" or back.variance == 0:
        return back.variance.sqrt()
    if p.mix is None or variance == "beta":
        return back.beta.sqrt()
    return ((p.mix * back.beta.log() + (1 - p.mix) * back.variance.log()) / 2).exp()


@SAMPLERS.register(
    "euler-ancestral",
    noise=True,
    strength="eta",
    weak=1,
    known_as=(
        "EulerAncestralDiscreteScheduler",
        "sample_euler_ancestral",
        "Euler a",
        "euler_ancestral",
    ),
)
def euler_ancestral(
    denoise: Denoise, x: Tensor, times: Tensor, cond: Cond, noise: Noise, *, eta: Share = 1.0
) -> Iterator[Step]:
    """Euler's method to a lower noise level, then noise back up: ddim with eta = 1 by its own name.

    k-diffusion's sample_euler_ancestral, which is written in (x/alpha, sigma/alpha). At eta = 1 it
    is ddpm with the posterior variance as well. Of sigma_u the part eta·sigma_u·sqrt(1 − q²) is
    drawn anew, q = (sigma_u/alpha_u)/(sigma_t/alpha_t). When to use it: where new noise shall mend
    what earlier steps got wrong; the picture then depends on their number.

    Raises:
        InputError: a corruption whose noise is not normal.
    """
    need_normal(denoise, "euler-ancestral")
    return ddim(denoise, x, times, cond, noise, eta=eta)


@SAMPLERS.register(
    "dpm2-ancestral",
    noise=True,
    strength="eta",
    weak=2,
    evaluations=2,
    known_as=(
        "KDPM2AncestralDiscreteScheduler",
        "sample_dpm_2_ancestral",
        "DPM2 a",
        "dpm_2_ancestral",
    ),
)
def dpm2_ancestral(
    denoise: Denoise, x: Tensor, times: Tensor, cond: Cond, noise: Noise, *, eta: Share = 1.0
) -> Iterator[Step]:
    """dpm2 down to a lower noise level, then noise back up (k-diffusion, sample_dpm_2_ancestral).

    DPM-Solver-2 (Lu et al. 2022, alg. 1 with r₁ = 1/2) moves along the eps seen at the geometric
    mean of sigma/alpha. Two evaluations a step, one where sigma ends or alpha starts at 0. When to
    use it: as euler-ancestral, where two evaluations a step are worth its smaller error.

    Raises:
        InputError: a corruption whose noise is not normal.
    """
    need_normal(denoise, "dpm2-ancestral")
    for s in stretches(denoise, times):
        first = denoise(x, s.t, cond)
        split = ancestral(s.a, s.b, eta)
        down = Level(s.b.alpha, split.kept)
        if is_noise(s.a) or is_clean(down):
            x = move(x, first, s.a, down)
        else:
            there, middle, second = halfway(denoise, x, cond, first, s.a, down)
            x = transfer(x, slope(there, second, middle), s.a, down)
        x = x + drawn(split, noise, s.t, s.u)
        yield Step(s.index, s.count, s.u, x, first.x0)


@SAMPLERS.register(
    "dpmpp-2s-ancestral",
    noise=True,
    strength="eta",
    weak=2,
    evaluations=2,
    known_as=("sample_dpmpp_2s_ancestral", "DPM++ 2S a", "dpmpp_2s_ancestral"),
)
def dpmpp_2s_ancestral(
    denoise: Denoise, x: Tensor, times: Tensor, cond: Cond, noise: Noise, *, eta: Share = 1.0
) -> Iterator[Step]:
    """dpmpp-2s to a lower noise level, then noise back up (k-diffusion, sample_dpmpp_2s_ancestral).

    DPM-Solver++(2S) (Lu et al. 2023, alg. 1 with r = 1/2) moves along the x0 seen at the geometric
    mean of sigma/alpha. Two evaluations a step, one where sigma ends or alpha starts at 0. When to
    use it: as dpm2-ancestral; x0 bears strong guidance better than eps.

    Raises:
        InputError: a corruption whose noise is not normal.
    """
    need_normal(denoise, "dpmpp-2s-ancestral")
    for s in stretches(denoise, times):
        first = along = denoise(x, s.t, cond)
        split = ancestral(s.a, s.b, eta)
        down = Level(s.b.alpha, split.kept)
        if not (is_noise(s.a) or is_clean(down)):
            _, _, along = halfway(denoise, x, cond, first, s.a, down)
        x = renew(x, along, s, split, noise)
        yield Step(s.index, s.count, s.u, x, first.x0)
