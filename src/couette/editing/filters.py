"""Filters of pictures that are linear: Gaussian and motion blur.

Shapes: B batch, C channels, H height, W width.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F


def gaussian_kernel(sigma: float) -> Tensor:
    """A normalized Gaussian of odd length that reaches three deviations, float64."""
    reach = max(1, math.ceil(3 * sigma))
    at = torch.arange(-reach, reach + 1, dtype=torch.float64)
    weights = torch.exp(-0.5 * (at / sigma).square())
    return weights / weights.sum()


def gaussian(x: Tensor, sigma: float) -> Tensor:
    """x (B, C, H, W) blurred with a Gaussian of deviation `sigma` pixels; edges are mirrored.

    A constant picture stays as it is. The deviation 0 does nothing.
    """
    if sigma == 0:
        return x
    for axis in (-2, -1):
        x = _along(x, gaussian_kernel(sigma), axis)
    return x


def _along(x: Tensor, kernel: Tensor, axis: int) -> Tensor:
    """x convolved along an axis, mirrored at its ends as often as the kernel reaches beyond."""
    size, reach = x.shape[axis], len(kernel) // 2
    at = torch.arange(-reach, size + reach).remainder(2 * size)
    at = torch.where(at < size, at, 2 * size - 1 - at)
    padded = x.index_select(axis, at.to(x.device)).movedim(axis, -1)
    rows = F.conv1d(padded.reshape(-1, 1, padded.shape[-1]), kernel.to(x)[None, None])
    return rows.reshape(*padded.shape[:-1], size).movedim(-1, axis)


def motion_kernel(length: float, degrees: float) -> Tensor:
    """A line of `length` pixels through the centre, antialiased: (K, K) float64 of sum 1."""
    reach = max(1, math.ceil(length / 2))
    at = torch.arange(-reach, reach + 1, dtype=torch.float64)
    y, x = torch.meshgrid(at, at, indexing="ij")
    angle = math.radians(degrees)
    along = x * math.cos(angle) - y * math.sin(angle)
    across = x * math.sin(angle) + y * math.cos(angle)
    line = (length / 2 + 0.5 - along.abs()).clamp(0, 1) * (1 - across.abs()).clamp(0, 1)
    return line / line.sum()


def convolved(x: Tensor, kernel: Tensor) -> Tensor:
    """x (B, C, H, W) under a kernel (K, K), K odd, every channel alike; edges wrap around."""
    found: Tensor = torch.fft.irfft2(torch.fft.rfft2(x) * spectrum(kernel, x), s=x.shape[-2:])
    return found


def spectrum(kernel: Tensor, x: Tensor) -> Tensor:
    """The kernel's Fourier transform on the grid of x (…, H, W), its centre at the origin."""
    height, width = x.shape[-2:]
    whole = torch.zeros(height, width, dtype=kernel.dtype)
    rows, columns = (torch.arange(size) - size // 2 for size in kernel.shape)
    at = (
        rows.remainder(height)[:, None].expand_as(kernel),
        columns.remainder(width).expand_as(kernel),
    )
    whole.index_put_(at, kernel, accumulate=True)
    found: Tensor = torch.fft.rfft2(whole).to(
        device=x.device, dtype=torch.promote_types(x.dtype, torch.complex64)
    )
    return found
