"""A number as a vector of waves: how a network is told of the time. Knows nothing of schedules.

Shapes: B batch, D width of the embedding.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from couette.errors import ConfigError


def sinusoidal(
    told: Tensor,
    width: int,
    *,
    cosine_first: bool = False,
    shift: float = 0.0,
    longest: float = 10000.0,
) -> Tensor:
    """The transformer's position code, for `told` that counts steps (0 to about 1000).

    Angular frequencies fall geometrically from 1 towards 1/longest. Source: Vaswani et al. 2017
    (arXiv 1706.03762), section 3.5; the flags are those of diffusers' `Timesteps`.

    Args:
        told: (B,) any real dtype.
        width: D, at least 2; an odd width ends in a zero.
        cosine_first: cosines before sines (diffusers' `flip_sin_to_cos`).
        shift: the last frequency is longest^-((D/2 − 1)/(D/2 − shift)): 1 makes it 1/longest
            exactly (diffusers' `freq_shift`, the paper's and DDPM's choice), 0 stops just short.
        longest: the longest wavelength, in units of 2π.

    Returns:
        (B, D) float32.

    Raises:
        ConfigError: no frequency can be computed from this width and shift.
    """
    count = width // 2
    if count < 1 or count <= shift:
        raise ConfigError(
            f"A sinusoidal embedding of width {width} with shift {shift} has no frequencies; "
            f"give a width of at least {2 * math.floor(shift) + 2}."
        )
    steps = torch.arange(count, dtype=torch.float32, device=told.device)
    # In this order of operations: at 1000 steps an ulp of the exponent is 1e-5 of the wave.
    frequencies = torch.exp(-math.log(longest) * steps / (count - shift))
    angles = told.float()[:, None] * frequencies
    parts = [angles.cos(), angles.sin()] if cosine_first else [angles.sin(), angles.cos()]
    if width % 2:
        parts.append(torch.zeros_like(angles[:, :1]))
    return torch.cat(parts, dim=1)


def log_spaced(count: int, lowest: float = 1e-3, highest: float = 8.0) -> Tensor:
    """Frequencies in cycles per unit, evenly spaced in their logarithm, (count,) float32.

    The defaults resolve both a `told` of order 1 (ln(sigma)/4, normalized t) and one of order
    1000 (a table's index).
    """
    ratio = highest / lowest
    return torch.tensor([lowest * ratio ** (i / max(1, count - 1)) for i in range(count)])


def random_normal(count: int, bandwidth: float = 16.0) -> Tensor:
    """Frequencies in cycles per unit, normal with deviation `bandwidth`, (count,) float32.

    Drawn from torch's global generator. Source: Tancik et al. 2020 (arXiv 2006.10739); 16 is
    what score-SDE and EDM use for `told` = ln(sigma)/4 and the like.
    """
    return nn.init.normal_(torch.empty(count), std=bandwidth)


class FourierFeatures(nn.Module):
    """cos and sin of 2π·f·told for fixed frequencies f, which are saved with the weights.

    Args:
        frequencies: (D/2,) in cycles per unit of `told`; see `log_spaced` and `random_normal`.
    """

    frequencies: Tensor

    def __init__(self, frequencies: Tensor) -> None:
        super().__init__()
        self.register_buffer("frequencies", frequencies)

    @property
    def width(self) -> int:
        """D, the length of an embedding."""
        return 2 * len(self.frequencies)

    def forward(self, told: Tensor) -> Tensor:
        """(B,) to (B, D) float32, cosines first."""
        angles = told.float()[:, None] * (2 * math.pi * self.frequencies.float())
        return torch.cat((angles.cos(), angles.sin()), dim=1)
