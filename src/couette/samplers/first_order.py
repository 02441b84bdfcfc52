"""The deterministic first-order family, and DDIM's noise: names for one move."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from couette.contracts import Cond, Denoise, Noise, Step
from couette.errors import InputError
from couette.registry import SAMPLERS
from couette.samplers.moves import move, need_normal, slope, stretches, transfer
from couette.samplers.noisy import Share, ancestral, renew

Rounds = Annotated[int, Field(ge=1)]


@SAMPLERS.register(
    "ddim",
    order=1,
    strength="eta",
    mix=True,
    known_as=("DDIMScheduler", "DDIMParallelScheduler", "CogVideoXDDIMScheduler", "DDIM", "ddim"),
)
def ddim(
    denoise: Denoise,
    x: Tensor,
    times: Tensor,
    cond: Cond,
    noise: Noise,
    *,
    eta: Share = 0.0,
) -> Iterator[Step]:
    """Song et al. 2021 (DDIM), eq. 12: eta = 0 is deterministic, eta = 1 is ancestral sampling.

    x_u = alpha_u·x0 + sqrt(sigma_u² − s²)·eps + s·z, with s² = η²·(posterior variance). When to use
    it: on any corruption, uniform noise included; eta = 0 where the way is to be retraced.

    Raises:
        InputError: eta outside [0, 1], or noise asked of a corruption that is not normal.
    """
    if not 0 <= eta <= 1:
        raise InputError(f"ddim's eta lies between 0 and 1, not at {eta}.")
    if eta:
        need_normal(denoise, f"ddim with eta={eta}")
    for s in stretches(denoise, times):
        p = denoise(x, s.t, cond)
        x = renew(x, p, s, ancestral(s.a, s.b, eta), noise) if eta else move(x, p, s.a, s.b)
        yield Step(s.index, s.count, s.u, x, p.x0)


@SAMPLERS.register(
    "euler",
    order=1,
    mix=True,
    known_as=(
        "EulerDiscreteScheduler",
        "EDMEulerScheduler",
        "FlowMatchEulerDiscreteScheduler",
        "MiniMaxH3Scheduler",
        "sample_euler",
        "Euler",
        "euler",
    ),
)
def euler(denoise: Denoise, x: Tensor, times: Tensor, cond: Cond, noise: Noise) -> Iterator[Step]:
    """Euler's method on the probability-flow ODE, in (x/alpha, sigma/alpha); equally, on the flow.

    Karras et al. 2022, alg. 1 without the correction. The same numbers as ddim with eta = 0. With X
    = x/alpha and S = sigma/alpha a step is X_u = X_t + (S_u − S_t)·eps. When to use it: as the
    plain method to measure others by, and on flows, whose paths are nearly straight.
    """
    return ddim(denoise, x, times, cond, noise)


@SAMPLERS.register("mix", order=1, mix=True)
def mix(denoise: Denoise, x: Tensor, times: Tensor, cond: Cond, noise: Noise) -> Iterator[Step]:
    """The course's toy sampler: move 1/(n − i) of the way to the prediction.

    On the flow schedule with an even grid t = 1 − i/n: x ← x·(1 − m) + x0·m with m = 1/(n − i).
    Source: the Hugging Face diffusion course, unit 1. When to use it: with the course's recipes; on
    any other grid or schedule it is euler.
    """
    return ddim(denoise, x, times, cond, noise)


@SAMPLERS.register("ddim-inverse", order=1, inverse=True, known_as=("DDIMInverseScheduler",))
def ddim_inverse(
    denoise: Denoise,
    x: Tensor,
    times: Tensor,
    cond: Cond,
    noise: Noise,
    *,
    rounds: Rounds = 1,
) -> Iterator[Step]:
    """DDIM's steps climbed the other way, from a picture to the noise it comes from.

    Song et al. 2021, sec. 4.3; Dhariwal & Nichol 2021, app. F. With X = x/alpha and S = sigma/alpha
    a step is X_t = X_u + (S_t − S_u)·eps(x_u, t): it asks at its upper end, as ddim does on its way
    down, but of the x it has: where that changes little, ddim retraces it. Further rounds ask again
    of the x_t that was found, until it is what ddim would have come from (Pan et al. 2023, AIDI:
    fixed points, found with Anderson's acceleration). When to use it: to find the noise that a
    given picture comes from.

    Args:
        denoise, x, cond, noise: as every sampler's; x is the picture, at the first time.
        times: (N + 1,) float64, RISING.

    Raises:
        InputError: times that do not rise, or a corruption whose noise is not normal.
    """
    need_normal(denoise, "ddim-inverse")
    if times.numel() < 2 or not bool((times[1:] > times[:-1]).all()):
        raise InputError(
            "The sampler 'ddim-inverse' climbs from a picture to noise and needs two or more "
            f"times, each above the one before; got {times.tolist()}."
        )
    for i, down in enumerate(reversed(list(stretches(denoise, times.flip(0))))):
        found, before = x, None
        for _ in range(rounds):
            p = denoise(found, down.t, cond)
            rest = transfer(x, slope(found, p, down.a), down.b, down.a) - found
            found, before = accelerated(found, rest, before), (found, rest)
        x = found
        yield Step(i, down.count, down.t, x, p.x0)


def accelerated(x: Tensor, rest: Tensor, before: tuple[Tensor, Tensor] | None) -> Tensor:
    """The next guess of a fixed point f(x) = x, each picture by itself.

    Plain iteration takes f(x), and diverges where f is steep. From two guesses and what was wrong
    with them the secant tells more (Anderson 1965, with one step of memory).

    Args:
        x: (B, C, H, W), the last guess.
        rest: f(x) − x.
        before: the same of the guess before it; None at first.
    """
    if before is None:
        return x + rest
    change = rest - before[1]
    size = change.square().flatten(1).sum(1)
    share = (change * rest).flatten(1).sum(1) / size.clamp(min=1e-30)
    share = torch.where(size > 0, share, 0).reshape(-1, *[1] * (x.ndim - 1))
    return x + rest - share * (x - before[0] + change)
