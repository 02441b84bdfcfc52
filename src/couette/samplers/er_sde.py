"""Extended reverse-time SDEs: noise whose strength is a function of the noise level."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Annotated

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from couette.contracts import Cond, Denoise, Level, Noise, Step
from couette.registry import SAMPLERS
from couette.samplers.interpolation import weights
from couette.samplers.moves import need_normal
from couette.samplers.noisy import Split, multistep
from couette.schedules import ratio

_NODES, _WEIGHTS = (torch.from_numpy(each) for each in np.polynomial.legendre.leggauss(32))


@SAMPLERS.register("er-sde", noise=True, weak=2, known_as=("er_sde",))
def er_sde(
    denoise: Denoise,
    x: Tensor,
    times: Tensor,
    cond: Cond,
    noise: Noise,
    *,
    order: Annotated[int, Field(ge=1, le=3)] = 3,
) -> Iterator[Step]:
    """ER-SDE-Solver (Cui et al. 2023): little noise at low levels, much at high ones.

    With s = sigma/alpha and phi(s) = s·g(s) the share g(s_b)/g(s_a) of the noise is kept: g = 1 is
    the ODE, g = s Anderson's SDE, and here, as the paper prefers, g = e^(s^0.3) + 10. x0 is on the
    polynomial in s through the last `order` predictions; for order 3 the authors' code takes its
    slope from the last two alone, which is of second order. When to use it: with noise in 10 to 20
    steps, where the full SDE is still rough.

    Raises:
        InputError: a corruption whose noise is not normal.
    """
    need_normal(denoise, "er-sde")
    return multistep(denoise, x, times, cond, noise, order, _split, _weigh)


def _log_gain(s: Tensor) -> Tensor:
    """log g, which stays finite where g does not."""
    return torch.logaddexp(s.pow(0.3), torch.tensor(10.0, dtype=s.dtype).log())


def _split(a: Level, b: Level) -> Split:
    left = (_log_gain(ratio(b)) - _log_gain(ratio(a))).exp()
    return Split(b.sigma * left, b.sigma * (1 - left.square()).sqrt())


def _weigh(levels: Sequence[Level], a: Level, b: Level) -> Tensor:
    """The polynomial in s under the density d(1/phi), by quadrature in log s.

    d(1/phi) = (1 + d log g/d log s)/(s·g)·d(−log s).
    """
    ends = ratio(a), ratio(b)
    s = torch.lerp(ends[0].log(), ends[1].log(), (1 + _NODES) / 2).exp()
    growth = 0.3 * s.pow(0.3) / (1 + 10 * (-s.pow(0.3)).exp())
    density = _WEIGHTS * (1 + growth) / (s / ends[1]) * (_log_gain(ends[1]) - _log_gain(s)).exp()
    r, *nodes = ((each - ends[0]) / (ends[1] - ends[0]) for each in (s, *map(ratio, levels)))
    powers = torch.arange(len(levels), dtype=torch.float64)
    moments = (r ** powers[:, None] * density).sum(1) / density.sum()
    return weights(torch.stack(nodes), moments)
