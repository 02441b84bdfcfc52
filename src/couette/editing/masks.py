"""Masks: where a picture is to be made anew. White is new, black is kept, gray is between."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from couette.data.decode import Look
from couette.data.decode import color as color_of
from couette.data.single import read_picture
from couette.editing.filters import gaussian
from couette.errors import InputError, ShapeError

LUMA = (0.299, 0.587, 0.114)
"""How bright red, green and blue are in a picture that was made gray."""


def from_file(path: str, height: int, width: int) -> Tensor:
    """A mask from a picture, (1, 1, H, W) in [0, 1], cut and scaled as pictures are.

    Raises:
        DataError: no picture.
    """
    return (read_picture(Path(path), Look(height, width, 1)) + 1) / 2


def from_box(box: tuple[int, int, int, int], height: int, width: int) -> Tensor:
    """A box (left, top, right, bottom) in pixels, right and bottom outside it.

    Raises:
        InputError: a box without inside, or beyond the picture.
    """
    left, top, right, bottom = box
    if not (0 <= left < right <= width and 0 <= top < bottom <= height):
        raise InputError(
            f"The box {left} {top} {right} {bottom} (left, top, right, bottom) does not lie within "
            f"pictures of {width} × {height} pixels."
        )
    mask = torch.zeros(1, 1, height, width)
    mask[..., top:bottom, left:right] = 1
    return mask


def from_color(picture: Tensor, name: str, near: float = 0.1) -> Tensor:
    """Where a picture (1, C, H, W) has a colour, to within `near` of black to white.

    Raises:
        ConfigError: a colour that does not exist.
    """
    wanted = torch.tensor(color_of(name), dtype=torch.float32) / 127.5 - 1
    if picture.shape[1] == 1:
        wanted = (wanted * torch.tensor(LUMA)).sum(0, keepdim=True)
    gap = (picture - wanted[:, None, None]).abs().amax(1, keepdim=True) / 2
    return (gap <= near).float()


def checked(mask: Tensor) -> Tensor:
    """The mask, which leaves something and makes something new.

    Raises:
        InputError: it does not.
    """
    if not bool((mask > 0).any()):
        raise InputError("The mask is black everywhere, so nothing would be new; white is new.")
    if not bool((mask < 1).any()):
        raise InputError(
            "The mask is white everywhere, so nothing would be kept; draw with couette sample."
        )
    return mask


def softened(mask: Tensor, sigma: float) -> Tensor:
    """A mask whose edge is blurred outward: what was new stays wholly new."""
    return torch.maximum(mask, gaussian(mask, sigma)) if sigma else mask


def shrunk(mask: Tensor, shape: tuple[int, int, int]) -> Tensor:
    """A mask on latents: new wherever any of their pixels is.

    Raises:
        ShapeError: sides that are no multiple of the latents'.
    """
    height, width = mask.shape[-2:]
    if (height, width) == shape[1:]:
        return mask
    if height % shape[1] or width % shape[2]:
        raise ShapeError(f"A mask of {height}×{width} does not fit latents of {shape[1:]}.")
    return F.max_pool2d(mask, (height // shape[1], width // shape[2]))
