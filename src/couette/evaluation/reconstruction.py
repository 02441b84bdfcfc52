"""How well pictures come back from a codec, and how much it keeps of them."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from couette.codecs.latents import Latents
from couette.contracts import Codec
from couette.data import Dataset, to_float
from couette.errors import DataError, ShapeError

WINDOW, SIGMA = 11, 1.5
"""The Gaussian window of the structural similarity, in pixels."""

_STABILISERS = 0.01**2, 0.03**2


@dataclass(frozen=True)
class Reconstruction:
    """Means over pictures, which are clamped to their range and compared on a scale of [0, 1].

    Attributes:
        count: how many pictures.
        psnr: peak signal-to-noise ratio in dB; infinite where a picture comes back exactly.
        ssim: structural similarity, at most 1.
        error: absolute error per pixel and channel.
        rate: bits per pixel that the latents carry, their divergence from the unit normal; None
            where the codec isn't variational.
    """

    count: int
    psnr: float
    ssim: float
    error: float
    rate: float | None


def reconstruction(codec: Codec, data: Dataset, index: Tensor, batch: int = 64) -> Reconstruction:
    """Encode pictures to the mean of their latents, decode these, and compare; as `there_and_back`,
    which hands over the pictures as well."""
    return there_and_back(codec, data, index, batch)[0]


def there_and_back(
    codec: Codec, data: Dataset, index: Tensor, batch: int = 64
) -> tuple[Reconstruction, Tensor]:
    """Pictures through the mean of their latents, compared with what comes back.

    Args:
        codec: any.
        data: pictures that it takes.
        index: (N,) int64, which of them.
        batch: pictures at once.

    Returns:
        The comparison, and what comes back: (N, C, H, W) float32 in [-1, 1], on the processor.

    Raises:
        DataError: points instead of pictures, or none.
        ShapeError: pictures that the codec can't take.
    """
    if data.points or not len(index):
        what = "points" if data.points else "no pictures"
        raise DataError(f"Reconstruction is measured on pictures, and these are {what}.")
    psnr, ssim, error, nats, back = (
        torch.cat(parts) for parts in zip(*_figures(codec, data, index, batch), strict=True)
    )
    rate = float(nats.mean()) / (math.log(2) * data.height * data.width)
    found = Reconstruction(
        count=len(index),
        psnr=float(psnr.mean()),
        ssim=float(ssim.mean()),
        error=float(error.mean()),
        rate=None if math.isnan(rate) else rate,
    )
    return found, back


@torch.no_grad()
def _figures(
    codec: Codec, data: Dataset, index: Tensor, batch: int
) -> Iterator[tuple[Tensor, ...]]:
    """PSNR, SSIM, error and KL in nats of each picture, (B,) float64 each, and what comes back of
    it, (B, C, H, W), batch by batch."""
    device = codec.runtime.device if isinstance(codec, Latents) else "cpu"
    for part in torch.split(index, batch):
        x = to_float(data.pictures(part).to(device))
        latents, nats = _encoded(codec, x)
        back = codec.decode(latents).cpu().clamp(-1, 1)
        a, b = ((each.double() + 1) / 2 for each in (x.cpu(), back))
        yield peak_ratio(a, b), similarity(a, b), (a - b).abs().flatten(1).mean(1), nats, back


def _encoded(codec: Codec, x: Tensor) -> tuple[Tensor, Tensor]:
    """The latents' mean, and their KL in nats, (B,) float64; NaN where there is none."""
    unknown = torch.full((len(x),), torch.nan, dtype=torch.float64)
    if not isinstance(codec, Latents):
        return codec.encode(x), unknown
    moments = codec.moments(x)
    nats = moments.divergence()
    return codec.scaled(moments.mean), unknown if nats is None else nats.cpu().double()


def peak_ratio(a: Tensor, b: Tensor) -> Tensor:
    """−10·log10 of the mean squared error of pictures in [0, 1], (B, C, H, W): dB, (B,)."""
    return -10 * (a - b).square().flatten(1).mean(1).log10()


def similarity(a: Tensor, b: Tensor) -> Tensor:
    """The mean structural similarity of pictures in [0, 1], (B, C, H, W): (B,), at most 1.

    Wang et al. 2004, eq. 13, in each channel: a Gaussian window of 11×11 pixels and deviation 1.5,
    K = (0.01, 0.03), only where the window lies within the picture. Pictures smaller than that have
    a window of the largest odd side that they hold.

    Raises:
        ShapeError: pictures of different shapes.
    """
    if a.shape != b.shape:
        raise ShapeError(
            f"Pictures of {tuple(a.shape)} and {tuple(b.shape)} can't be compared; give two of one "
            "shape."
        )
    a, b = a.double(), b.double()
    mean_a, mean_b = _windowed(a), _windowed(b)
    variance_a = _windowed(a.square()) - mean_a.square()
    variance_b = _windowed(b.square()) - mean_b.square()
    covariance = _windowed(a * b) - mean_a * mean_b
    c1, c2 = _STABILISERS
    each = (2 * mean_a * mean_b + c1) * (2 * covariance + c2)
    each = each / (mean_a.square() + mean_b.square() + c1) / (variance_a + variance_b + c2)
    return each.flatten(1).mean(1)


def _windowed(x: Tensor) -> Tensor:
    """The mean of (B, C, H, W) under the window at each position where it fits, by channel."""
    side = min(WINDOW, *x.shape[-2:])
    side -= 1 - side % 2
    offset = torch.arange(side, dtype=x.dtype) - side // 2
    window = torch.softmax(-(offset.square()) / (2 * SIGMA**2), 0)
    rows = x.reshape(-1, 1, *x.shape[-2:])
    rows = F.conv2d(F.conv2d(rows, window.reshape(1, 1, -1, 1)), window.reshape(1, 1, 1, -1))
    return rows.reshape(*x.shape[:2], *rows.shape[-2:])
