"""Time grids: where a sampler's steps lie, (N + 1,) times that fall to 0, the clean end.

Those of diffusers end there too: its last step goes to sigma = 0 (`final_sigmas_type="zero"`) or
to ᾱ = 1 (`set_alpha_to_one=True`). With its other settings it stops at a table's entry 0 instead,
a little noise before the end; that has no grid here.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import wraps
from typing import Annotated, Any, TypeVar, cast

import torch
from pydantic import Field
from torch import Tensor

from couette.contracts import Schedule
from couette.errors import InputError
from couette.registry import GRIDS
from couette.schedules.forward import entries, ratio

Positive = Annotated[float, Field(gt=0)]
Make = TypeVar("Make", bound=Callable[..., Tensor])


def grid(*names: str, **traits: Any) -> Callable[[Make], Make]:
    """Decorator: register a time grid, whose times are checked before anyone works with them.

    The grid then raises InputError for fewer than one step, and for times that do not fall from
    at most 1 to 0.
    """

    def enter(make: Make) -> Make:
        @wraps(make)
        def checked(schedule: Schedule, steps: int, **settings: Any) -> Tensor:
            if steps < 1:
                raise InputError(f"A grid needs one step or more, not {steps}.")
            times = make(schedule, steps, **settings)
            if times[0] > 1 or times[-1] != 0 or not bool((times.diff() < 0).all()):
                raise InputError(
                    f"The grid '{names[0]}' can't lay {steps} steps over this schedule: its times "
                    "must fall from at most 1 to 0, each below the one before; ask for fewer "
                    "steps, or for another grid."
                )
            return times

        for name in names:
            GRIDS.register(name, **traits)(checked)
        return cast(Make, checked)

    return enter


@grid("uniform")
def uniform(schedule: Schedule, steps: int, *, shift: Positive = 1.0) -> Tensor:
    """Even in t, from 1 to 0; the grid for `flow`, and for `edm`, where it is Karras' own.

    `shift` above 1 moves the times toward noise, t to shift·t/(1 + (shift − 1)·t), for a flow that
    was trained without it and draws larger pictures (Esser et al. 2024, eq. 23). With 3 it is what
    Stable Diffusion 3's pipeline does. When to use it: on `flow` and `edm`.
    """
    t = torch.linspace(1, 0, steps + 1, dtype=torch.float64)
    return shift * t / (1 + (shift - 1) * t)


@grid("given")
def given(schedule: Schedule, steps: int, *, times: tuple[float, ...]) -> Tensor:
    """The times written out, for a grid that was optimised for one model.

    Fewer steps than there are take some of them, evenly. When to use it: with times that were
    searched for one model, as in Align Your Steps (Sabour et al. 2024).

    Args:
        times: N + 1 falling numbers, the first at most 1 and the last 0.

    Raises:
        InputError: more than N steps.
    """
    most = len(times) - 1
    if steps > most:
        raise InputError(
            f"The times given to the grid 'given' make {max(most, 0)} steps, not {steps}; ask for "
            "at most that many, or give more times."
        )
    chosen = most - _spread(most, steps).round().long()
    return torch.tensor(times, dtype=torch.float64)[chosen]


# Grids of a table's entries. Entry k is at t = (k + 1)/T.


@grid("strided", "trailing", known_as=("trailing", "simple", "Simple"))
def strided(schedule: Schedule, steps: int) -> Tensor:
    """Even strides down from a table's last entry, each rounded to one: diffusers' "trailing".

    Entry k of T is at t = (k + 1)/T, so the times are round(T − i·T/N)/T. It begins where training
    ended, so it is the right one of the three spacings (Lin et al. 2024, tab. 2). When to use it:
    for networks that are told whole indices.

    Raises:
        InputError: a schedule without a table.
    """
    count = _table(schedule, "strided")
    return _spread(count, steps).round() / count


@grid(
    "linspace",
    known_as=("linspace",),
    variants={
        "whole=false": ("normal", "Normal"),
        "whole=false,entry_zero=false": ("sgm_uniform", "SGM Uniform"),
    },
)
def linspace(
    schedule: Schedule, steps: int, *, whole: bool = True, entry_zero: bool = True
) -> Tensor:
    """Even from a table's last entry to its entry 0, then clean: diffusers' "linspace".

    As its DDIM and DDPM mean it. One step begins at the last entry, where diffusers begins at entry
    0. When to use it: to repeat what diffusers drew.

    Args:
        whole: round to entries. Its Euler, Heun and LMS do not.
        entry_zero: step on entry 0. Its multistep solvers (DPM++, UniPC, DEIS, SA) leave it out
            and end a stride above.

    Raises:
        InputError: a schedule without a table.
    """
    count = _table(schedule, "linspace")
    gaps = max(steps - 1, 1) if entry_zero else steps
    entry = _spread(count - 1, gaps)[:steps]
    return _clean((entry.round() if whole else entry) + 1) / count


@grid("leading", known_as=("leading",), variants={"steps_offset=1": ("ddim_uniform",)})
def leading(
    schedule: Schedule,
    steps: int,
    *,
    steps_offset: Annotated[int, Field(ge=0)] = 0,
    entry_zero: bool = True,
) -> Tensor:
    """Whole strides up from a table's entry 0, then turned round: diffusers' "leading".

    It begins up to a stride and the remainder of T/N below the last entry, where pictures still
    have a trace of signal. When to use it: to repeat what Stable Diffusion's pipelines drew
    (`steps_offset=1`); otherwise take `strided`.

    Args:
        steps_offset: added to each entry.
        entry_zero: begin at entry 0. diffusers' multistep solvers (DPM++, UniPC, DEIS, SA) begin
            a stride above.

    Raises:
        InputError: a schedule without a table.
    """
    count = _table(schedule, "leading")
    skipped = 0 if entry_zero else 1
    stride = count // (steps + skipped)
    strides = torch.arange(steps - 1, -1, -1, dtype=torch.float64) + skipped
    return _clean(strides * stride + steps_offset + 1) / count


@grid("beta", known_as=("beta",))
def beta(schedule: Schedule, steps: int, *, alpha: Positive = 0.6, beta: Positive = 0.6) -> Tensor:
    """Times at the quantiles of Beta(alpha, beta): dense at both ends (Lee et al. 2024).

    Where the picture's large shapes and its fine detail are made. As in ComfyUI; diffusers takes
    the quantiles of sigma instead: see `beta-sigmas`. When to use it: where another grid leaves
    both shapes and fine detail rough.
    """
    return _beta_quantiles(torch.linspace(1, 0, steps + 1, dtype=torch.float64), alpha, beta)


# Grids of noise levels sigma/alpha. The range asked for is kept to the schedule's own: up to its
# end, and for a table down to its entry 0.


@grid("karras", known_as=("get_sigmas_karras", "karras", "Karras", "use_karras_sigmas"))
def karras(
    schedule: Schedule,
    steps: int,
    *,
    rho: Positive = 7.0,
    sigma_min: Positive = 0.002,
    sigma_max: Positive = 80.0,
) -> Tensor:
    """Even in (sigma/alpha)^(1/rho) between sigma_max and sigma_min, then 0.

    Karras et al. 2022, eq. 5. A larger rho puts more of the steps at low noise. When to use it:
    first, on any schedule, most so in few steps.

    Raises:
        InputError: sigma_min is not below sigma_max.
    """
    top, bottom = _range(schedule, "karras", sigma_min, sigma_max)
    ramp = torch.linspace(top ** (1 / rho), bottom ** (1 / rho), steps, dtype=torch.float64)
    return _at(schedule, rho * ramp.log())


@grid("polyexponential", known_as=("get_sigmas_polyexponential", "Polyexponential"))
def polyexponential(
    schedule: Schedule,
    steps: int,
    *,
    rho: Positive = 1.0,
    sigma_min: Positive = 0.002,
    sigma_max: Positive = 80.0,
) -> Tensor:
    """log(sigma/alpha) falls as a polynomial of degree rho (k-diffusion's polyexponential).

    With rho = 1 it is `exponential`; above 1 more of the steps lie at low noise.

    log S_i = log sigma_min + (1 − i/(N − 1))^rho·log(sigma_max/sigma_min). When to use it: to move
    exponential's steps toward low noise (rho above 1) or high (below).

    Raises:
        InputError: sigma_min is not below sigma_max.
    """
    top, bottom = _range(schedule, "polyexponential", sigma_min, sigma_max)
    ramp = torch.linspace(1, 0, steps, dtype=torch.float64).pow(rho)
    return _at(schedule, math.log(bottom) + ramp * math.log(top / bottom))


@grid(
    "exponential",
    "log-snr",
    known_as=(
        "get_sigmas_exponential",
        "exponential",
        "Exponential",
        "use_exponential_sigmas",
        "use_lu_lambdas",
    ),
)
def exponential(
    schedule: Schedule,
    steps: int,
    *,
    sigma_min: Positive = 0.002,
    sigma_max: Positive = 80.0,
) -> Tensor:
    """Even in log(sigma/alpha), which is even in log-SNR, then 0 (Lu et al. 2022, sec. 3).

    The grid on which multistep solvers take equal steps in their own variable; it spends most of
    them at low noise. When to use it: with multistep solvers (deis, dpmpp-2m, unipc).

    Raises:
        InputError: sigma_min is not below sigma_max.
    """
    top, bottom = _range(schedule, "exponential", sigma_min, sigma_max)
    ramp = torch.linspace(math.log(top), math.log(bottom), steps, dtype=torch.float64)
    return _at(schedule, ramp)


@grid("beta-sigmas", known_as=("use_beta_sigmas",))
def beta_sigmas(
    schedule: Schedule,
    steps: int,
    *,
    alpha: Positive = 0.6,
    beta: Positive = 0.6,
    sigma_min: Positive = 0.002,
    sigma_max: Positive = 80.0,
) -> Tensor:
    """sigma/alpha at the quantiles of Beta(alpha, beta), then 0: diffusers' `use_beta_sigmas`.

    When to use it: to repeat what diffusers drew; the paper's own grid is `beta`.

    Raises:
        InputError: sigma_min is not below sigma_max.
    """
    top, bottom = _range(schedule, "beta-sigmas", sigma_min, sigma_max)
    part = _beta_quantiles(torch.linspace(1, 0, steps, dtype=torch.float64), alpha, beta)
    return _at(schedule, (bottom + part * (top - bottom)).log())


def _table(schedule: Schedule, name: str) -> int:
    """How many entries the schedule's table has."""
    count = entries(schedule)
    if count is None:
        raise InputError(f"The grid '{name}' needs a table of betas; use 'uniform' or 'karras'.")
    return count


def _spread(top: int, gaps: int) -> Tensor:
    """gaps + 1 numbers evenly from top to 0, rounded as numpy's linspace, which diffusers uses."""
    return (torch.arange(gaps, -1, -1, dtype=torch.float64) * (top / gaps)).clamp(max=top)


def _clean(times: Tensor) -> Tensor:
    """The times with the clean end after them."""
    return torch.cat((times, times.new_zeros(1)))


def _range(
    schedule: Schedule, name: str, sigma_min: float, sigma_max: float
) -> tuple[float, float]:
    """sigma_max and sigma_min, kept to what the schedule has."""
    count = entries(schedule)
    ends = torch.tensor([0 if count is None else 1 / count, 1], dtype=torch.float64)
    low, high = ratio(schedule.level(ends)).tolist()
    top, bottom = min(sigma_max, high), max(sigma_min, low)
    if bottom >= top:
        raise InputError(
            f"The grid '{name}' needs 0 < sigma_min < sigma_max; got {bottom:.4g} and {top:.4g}."
        )
    return top, bottom


def _at(schedule: Schedule, log_sigma: Tensor) -> Tensor:
    """The times where log(sigma/alpha) has these values, and the clean end."""
    return _clean(schedule.time(-2 * log_sigma))


def _beta_quantiles(u: Tensor, alpha: float, beta: float) -> Tensor:
    """The inverse distribution function of Beta(alpha, beta)."""
    from scipy.special import betaincinv

    return torch.from_numpy(betaincinv(alpha, beta, u.numpy()))
