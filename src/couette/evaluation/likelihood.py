"""How likely data are under a model: the variational bound, and the exact likelihood by the ODE.

Both are of densities or probabilities of x0 in the units that the denoiser works in, in nats, with
nothing known of pictures; `bits.py` makes bits per dimension of them. Normal noise only.
"""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from couette.contracts import Cond, Denoise, Level, Noise, Prediction
from couette.denoiser.variational import discretized_nll, normal_kl
from couette.errors import InputError
from couette.samplers import move, posterior, stretches
from couette.schedules import mixed, ratio
from couette.tensors import Stream, bits

Variance = Literal["beta", "posterior"]

_LARGEST = 200.0
"""The sigma/alpha that the ODE is followed to where a schedule goes further: there x0 is a two
hundredth of the noise, and its share of the likelihood is below 1e-4 nats a dimension."""


class Bound(NamedTuple):
    """The parts of the bound on −log p(x0), in nats, (B,) float64 each: L_T, ΣL_t, and L_0."""

    prior: Tensor
    diffusion: Tensor
    decoder: Tensor

    @property
    def total(self) -> Tensor:
        return self.prior + self.diffusion + self.decoder


@torch.no_grad()
def variational_bound(
    denoise: Denoise,
    x0: Tensor,
    times: Tensor,
    cond: Cond,
    noise: Noise,
    *,
    variance: Variance = "beta",
    range_of: tuple[float, float] | None = None,
) -> Bound:
    """The variational bound of the ancestral chain along a grid (Ho et al. 2020, eq. 5).

    −log p(x0) ≤ KL(q(x_T | x0) ‖ p(x_T)) + Σ KL(q(x_u | x_t, x0) ‖ p(x_u | x_t)) − log p(x0 | x_1),
    each term estimated from one draw of x_t; p(x_T) is what sampling starts from, N(0, α² + σ²).
    The last step, to sigma = 0, where β̃ is 0, takes β̃ of the step before it, as in Ho's code; so
    "posterior" is for grids whose last steps are alike. A learned variance, `Prediction.mix`, goes
    before `variance`.

    Args:
        denoise: with normal noise.
        x0: (B, C, H, W).
        times: (N + 1,) falling to 0, as for a sampler; all of a table's entries for DDPM's bound.
        cond: what the denoiser is told, B rows.
        noise: unit normal noise for each step.
        variance: of p(x_u | x_t) where it is not learned: β or β̃.
        range_of: where x0 is of 256 grey levels, the darkest and the lightest, for their
            probability (Ho et al. 2020, eq. 13); when not given, the density of x0.

    Raises:
        InputError: uniform noise, or times that do not fall to 0.
    """
    _need_normal(denoise)
    if times[-1] != 0:
        raise InputError(f"The bound needs times that fall to 0; these end at {float(times[-1])}.")
    prior = _prior(denoise.corruption.schedule.level(times[0]), x0)
    diffusion = torch.zeros_like(prior)
    lent: Tensor | None = None
    for _, _, t, u, a, b in stretches(denoise, times):
        x = mixed(x0, a, noise(t, u))
        p = denoise(x, t, cond)
        back = posterior(a, b)
        mean = move(x, p, a, back.mean).double()
        if b.sigma > 0:
            lent = back.variance
            apart = move(x, Prediction(x0), a, back.mean).double() - mean
            model = _log_variance(back.beta, lent, p, variance)
            diffusion += _summed(normal_kl(apart, lent.log(), model))
        else:
            model = _log_variance(back.beta, back.beta if lent is None else lent, p, variance)
            decoder = _summed(_decoder(x0.double(), mean, model, range_of))
    return Bound(prior, diffusion, decoder)


def log_likelihood(
    denoise: Denoise,
    x: Tensor,
    cond: Cond,
    probes: Tensor,
    *,
    sigma: float = 2e-3,
    steps: int = 64,
) -> Tensor:
    """log p(x) by the probability-flow ODE (Song et al. 2021, eq. 39), in nats, (B,) float64.

    It is the density, at x, of x0 + sigma·eps: of data with a little noise, divided by alpha, so
    that it is one number whatever the schedule. With φ = atan(sigma/alpha) and z = cos φ·x, where
    noise and picture always have the power 1, the ODE in λ = log(sigma/alpha) is the same for all
    schedules, dz/dλ = cos φ·(cos φ·z − x0-hat(z)), and ends in N(0, 1), or what is taken for it:
    a schedule that ends at a sigma/alpha of 10 costs about 1 %, one that ends higher less. It is
    solved by the classic Runge-Kutta method of order 4 in even steps of λ.

    Args:
        denoise: with normal noise; differentiable in x.
        x: (B, C, H, W).
        cond: what the denoiser is told, B rows.
        probes: (P, B, C, H, W) to estimate the trace of ∂x0-hat/∂z with, as the mean of v·Jv
            (Hutchinson's): `signs`, or `axes` for the trace itself.
        sigma: above 0, the least sigma/alpha that the denoiser knows.
        steps: of the solver, each with four evaluations.

    Raises:
        InputError: uniform noise, or a sigma outside the schedule's range.
    """
    _need_normal(denoise)
    start = math.log(sigma) if sigma > 0 else -math.inf
    top = float(ratio(denoise.corruption.schedule.level(torch.ones((), dtype=torch.float64))))
    end = math.log(min(top, _LARGEST))
    if not -math.inf < start < end:
        raise InputError(
            f"The likelihood needs a sigma above 0 and below the schedule's {top:.4g}, not {sigma}."
        )
    flow = _Flow(denoise, cond, probes)
    step, size = (end - start) / steps, x[0].numel()
    first = -0.5 * math.log1p(sigma**2)  # log cos φ
    z, gained = x * math.exp(first), torch.full((len(x),), size * first, dtype=torch.float64)
    for i in range(steps):
        at = start + i * step
        k1, d1 = flow(at, z)
        k2, d2 = flow(at + step / 2, z + step / 2 * k1)
        k3, d3 = flow(at + step / 2, z + step / 2 * k2)
        k4, d4 = flow(at + step, z + step * k3)
        z = z + step / 6 * (k1 + 2 * k2 + 2 * k3 + k4)
        gained = gained + step / 6 * (d1 + 2 * d2 + 2 * d3 + d4)
    return gained - 0.5 * _summed(z.double().square() + math.log(2 * math.pi))


def signs(seed: int, keys: Tensor, like: Tensor, count: int = 1) -> Tensor:
    """Probes of random signs, (count, B, C, H, W): the least noisy for a trace (Hutchinson 1990).

    Args:
        seed: of all draws.
        keys: (B, 2) int64, which fix each row's.
        like: (B, C, H, W).
    """
    size = like[0].numel()
    drawn = bits(seed, keys.to(like.device), Stream.PROBE, count * size) & 1
    rows: Tensor = (2 * drawn - 1).to(like.dtype).reshape(len(like), count, *like.shape[1:])
    return rows.transpose(0, 1)


def axes(like: Tensor) -> Tensor:
    """Probes that give the trace itself, (D, B, C, H, W): √D along each axis. For small inputs."""
    size = like[0].numel()
    each: Tensor = math.sqrt(size) * torch.eye(size, dtype=like.dtype, device=like.device)
    return each.reshape(size, 1, *like.shape[1:]).expand(-1, *like.shape)


class _Flow:
    """The ODE's right side: (λ, z) to dz/dλ, of z's shape, and its divergence, (B,) float64."""

    def __init__(self, denoise: Denoise, cond: Cond, probes: Tensor) -> None:
        self.denoise, self.cond, self.probes = denoise, cond, probes

    def __call__(self, log_ratio: float, z: Tensor) -> tuple[Tensor, Tensor]:
        schedule = self.denoise.corruption.schedule
        t = schedule.time(torch.tensor(-2 * log_ratio, dtype=torch.float64))
        level = schedule.level(t)
        power = torch.hypot(level.alpha, level.sigma)
        cos = float(level.alpha / power)
        with torch.enable_grad():
            z = z.detach().requires_grad_()
            x0 = self.denoise(z * power.to(z), t, self.cond).x0
            trace = torch.stack([self._probed(x0, z, probe) for probe in self.probes]).mean(0)
        slope = cos * (cos * z - x0).detach()
        return slope, cos * (cos * z[0].numel() - trace)

    def _probed(self, x0: Tensor, z: Tensor, probe: Tensor) -> Tensor:
        (pulled,) = torch.autograd.grad(x0, z, probe, retain_graph=True)
        return _summed((pulled * probe).double())


def _need_normal(denoise: Denoise) -> None:
    if denoise.corruption.noise != "normal":
        raise InputError(
            "A likelihood needs normal noise; this model was trained on uniform noise."
        )


def _prior(level: Level, x0: Tensor) -> Tensor:
    """KL(N(alpha·x0, sigma²) ‖ N(0, alpha² + sigma²)), (B,)."""
    start = torch.hypot(level.alpha, level.sigma)
    return _summed(normal_kl(level.alpha * x0.double(), 2 * level.sigma.log(), 2 * start.log()))


def _log_variance(beta: Tensor, narrow: Tensor, p: Prediction, variance: Variance) -> Tensor:
    """Of p(x_u | x_t): log β or log β̃, or as far between them as was learned."""
    if p.mix is None:
        return (beta if variance == "beta" else narrow).log()
    return narrow.log() + p.mix.double() * (beta / narrow).log()


def _decoder(
    x0: Tensor, mean: Tensor, log_variance: Tensor, range_of: tuple[float, float] | None
) -> Tensor:
    """−log p(x0 | x_1) of each number."""
    if range_of is None:
        distance = (x0 - mean).square() * (-log_variance).exp()
        return 0.5 * (distance + log_variance + math.log(2 * math.pi))
    middle, reach = (range_of[0] + range_of[1]) / 2, (range_of[1] - range_of[0]) / 2
    x0, mean = (x0 - middle) / reach, (mean - middle) / reach
    return discretized_nll(x0, mean, log_variance - 2 * math.log(reach))


def _summed(per_pixel: Tensor) -> Tensor:
    return per_pixel.flatten(1).sum(1).cpu()
