"""From tensors to the 8-bit colours that a picture file holds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from couette.errors import ShapeError
from couette.render.style import NOT_A_NUMBER

Pixels = NDArray[np.uint8]
"""(B, H, W, 3), or one picture (H, W, 3)."""

Pictures = Tensor | NDArray[Any] | Sequence[Tensor] | Sequence[NDArray[Any]]
"""(B, C, H, W), or a sequence of (C, H, W) that may differ in C: floats in [-1, 1], or uint8."""

Range = Literal["clip", "stretch"]
"""How floats outside [-1, 1] are shown: clipped to it, or with the whole batch's smallest and
largest value stretched to black and white, as a plot of an image does."""


def to_rgb(pictures: Pictures, show: Range = "clip") -> Pixels:
    """Pictures as 8-bit colour, (B, H, W, 3).

    One channel is gray, three or more show the first three as red, green and blue, two show as
    red and green. Values that are NaN or infinite show as magenta.

    Raises:
        ShapeError: no pictures, no pixels, or pictures of different sizes.
    """
    batch = [_three(picture) for picture in _each(pictures)]
    if not batch or any(picture.size == 0 for picture in batch):
        raise ShapeError("There are no pictures to show; give at least one.")
    sizes = {picture.shape for picture in batch}
    if len(sizes) > 1:
        given = ", ".join(f"{height}×{width}" for _, height, width in sorted(sizes))
        raise ShapeError(f"Pictures of {given} can't stand in one row; give pictures of one size.")
    if all(picture.dtype == np.uint8 for picture in batch):
        return np.stack(batch).transpose(0, 2, 3, 1)
    values = np.stack([_unit(picture) for picture in batch])
    return _colours(values, *((-1.0, 1.0) if show == "clip" else _ends(values)))


def enlarged(picture: Pixels, factor: int) -> Pixels:
    """(H, W, 3) with every pixel a square of `factor` by `factor`: sharp, nothing blended."""
    return picture.repeat(factor, axis=0).repeat(factor, axis=1)


def factor_for(height: int, width: int, *, least: int, across: int = 1, room: int = 1800) -> int:
    """The whole factor that makes a picture's long side at least `least` pixels.

    Smaller where `across` pictures side by side would be wider than `room` pixels; at least 1.
    """
    wanted = -(-least // max(height, width))
    return max(1, min(wanted, room // max(1, across * width)))


def _each(pictures: Pictures) -> list[NDArray[Any]]:
    if isinstance(pictures, Tensor | np.ndarray) and pictures.ndim != 4:
        shape = tuple(pictures.shape)
        raise ShapeError(f"Pictures of shape {shape} can't be shown; give (B, C, H, W).")
    arrays = [_array(picture) for picture in pictures]
    for array in arrays:
        if array.ndim != 3:
            raise ShapeError(f"A picture of shape {array.shape} can't be shown; give (C, H, W).")
    return arrays


def _array(picture: Tensor | NDArray[Any]) -> NDArray[Any]:
    if not isinstance(picture, Tensor):
        return np.asarray(picture)
    picture = picture.detach().cpu()
    return (picture.float() if picture.dtype == torch.bfloat16 else picture).numpy()


def _three(picture: NDArray[Any]) -> NDArray[Any]:
    """(C, H, W) with three channels."""
    channels = picture.shape[0]
    if channels == 1:
        return picture.repeat(3, axis=0)
    if channels == 2:
        blank = np.full_like(picture[:1], 0 if picture.dtype == np.uint8 else -1)
        return np.concatenate((picture, blank))
    return picture[:3]


def _unit(picture: NDArray[Any]) -> NDArray[np.float64]:
    values = picture.astype(np.float64)
    return values / 127.5 - 1.0 if picture.dtype == np.uint8 else values


def _ends(values: NDArray[np.float64]) -> tuple[float, float]:
    finite = values[np.isfinite(values)]
    return (float(finite.min()), float(finite.max())) if finite.size else (-1.0, 1.0)


def _colours(values: NDArray[np.float64], low: float, high: float) -> Pixels:
    finite = np.isfinite(values)
    shown = (np.where(finite, values, low) - low) / (high - low if high > low else 1.0)
    pixels = (shown.clip(0, 1) * 255).round().astype(np.uint8).transpose(0, 2, 3, 1)
    pixels[~finite.all(axis=1)] = NOT_A_NUMBER
    return pixels
