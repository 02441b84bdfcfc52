"""Mirrorings and shifts, drawn per sample from integers: the same in any batch, on any device."""

from __future__ import annotations

import torch
from torch import Tensor

from couette.tensors import Stream, bits


def augment(pictures: Tensor, *, flip: bool, crop: int, seed: int, keys: Tensor) -> Tensor:
    """Mirror half of the pictures (`flip`) and shift each by up to `crop` pixels either way.

    A shift is a crop after padding with the edge's pixels. What happens to a row depends on
    (seed, its key) alone.

    Args:
        pictures: (B, C, H, W), uint8 or float, on any device.
        flip: mirror left and right with probability one half.
        crop: the largest shift, in pixels; 0 for none.
        seed: the run's seed.
        keys: (B, 2) int64 on the same device, (sample index, epoch).

    Returns:
        (B, C, H, W) of the same dtype, in channels_last strides; `pictures` itself where nothing
        is asked.
    """
    if not (flip or crop):
        return pictures
    batch, _, height, width = pictures.shape
    device = pictures.device
    rows = torch.arange(height, device=device).expand(batch, height)
    columns = torch.arange(width, device=device).expand(batch, width)
    if crop:
        reach = 2 * crop + 1
        shifts = bits(seed, keys, Stream.CROP, 2) % reach - crop
        rows = (rows + shifts[:, :1]).clamp_(0, height - 1)
        columns = (columns + shifts[:, 1:]).clamp_(0, width - 1)
    if flip:
        columns = torch.where(mirrored(seed, keys)[:, None], columns.flip(1), columns)
    sample = torch.arange(batch, device=device)[:, None, None]
    last = pictures.permute(0, 2, 3, 1)[sample, rows[:, :, None], columns[:, None, :]]
    return last.permute(0, 3, 1, 2)


def mirrored(seed: int, keys: Tensor) -> Tensor:
    """Which rows are mirrored, (B,) bool, by their keys (B, 2)."""
    return (bits(seed, keys, Stream.FLIP, 1)[:, 0] & 1).bool()
