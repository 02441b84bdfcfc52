"""How many bits a model needs to tell data, by the variational bound of its own chain."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from couette.contracts import Cond, Denoise, Level, Noise
from couette.discrete.kinds import Kind, drawn, step_bound
from couette.discrete.sampling import kind_of
from couette.samplers import stretches
from couette.tensors import mean_flat


@torch.no_grad()
def bits(denoise: Denoise, x0: Tensor, times: Tensor, cond: Cond, noise: Noise) -> Tensor:
    """An upper bound on −log2 p(x_0) per position, one draw of x_t for each step.

    The bound of the sampler `categorical` on these times (Austin et al. 2021, eq. 1; Ho et al.
    2020, eq. 5), unbiased: its mean over draws is the bound. It is infinite where an absorbing
    schedule does not end at alpha = 0, because sampling begins with masks alone.

    Args:
        denoise: a denoiser of states.
        x0: one-hot, (B, K, ...).
        times: (N + 1,) float64, falling from 1 to 0.
        cond: as for `denoise`.
        noise: uniforms of x0's shape.

    Returns:
        (B,) float64.

    Raises:
        InputError: a denoiser without states, or times that do not fall.
    """
    kind = kind_of(denoise, "This bound")
    x0 = x0.double()
    total = mean_flat(_start_bound(kind, x0, denoise.corruption.schedule.level(times[0])))
    for _, _, t, u, a, b in stretches(denoise, times):
        x = drawn(kind.after(x0, a), noise(t, u))
        log_p = denoise(x.float(), t, cond).x0.double().log_softmax(1)
        total = total + mean_flat(step_bound(kind, x, x0, log_p, a, b))
    return total / math.log(2)


def _start_bound(kind: Kind, x0: Tensor, level: Level) -> Tensor:
    """KL(q(x_T | x_0) ‖ π) in nats, (B, 1, ...)."""
    true = torch.cat(kind.after(x0, level), 1)
    end = kind.end(x0.shape[1]).to(x0).reshape(-1, *[1] * (x0.ndim - 2))
    return torch.where(true > 0, true * (true / end).log(), 0).sum(1, keepdim=True)
