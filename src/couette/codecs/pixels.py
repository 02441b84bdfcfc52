"""Pictures as the denoiser works on them: as they are, in another range, or as states."""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from couette.errors import ShapeError
from couette.registry import CODECS


class _PixelCodec:
    def shape(self, channels: int, height: int, width: int) -> tuple[int, int, int]:
        return channels, height, width


@CODECS.register("symmetric")
class Symmetric(_PixelCodec):
    """Pictures as they are, in [-1, 1].

    When to use it: first.
    """

    low, high = -1.0, 1.0

    def encode(self, pictures: Tensor, keys: Tensor | None = None) -> Tensor:
        return pictures

    def decode(self, latents: Tensor) -> Tensor:
        return latents


@CODECS.register("unit")
class Unit(_PixelCodec):
    """Pictures in [0, 1], as the course's and Berkeley's denoisers want them.

    (x + 1)/2. When to use it: for denoisers whose pictures are in [0, 1], as the course's and
    Berkeley's.
    """

    low, high = 0.0, 1.0

    def encode(self, pictures: Tensor, keys: Tensor | None = None) -> Tensor:
        return (pictures + 1) / 2

    def decode(self, latents: Tensor) -> Tensor:
        return latents * 2 - 1


@CODECS.register("levels", states=True)
class Levels:
    """Gray pictures as states, one-hot along the channels: each pixel the nearest of even levels.

    What is between levels is lost in encoding, which has no gradient. Decoding is the mean level:
    of probabilities the expected picture, of a masked position mid-gray. When to use it: with noise
    that is absorbing or multinomial.
    """

    low, high = 0.0, 1.0

    def __init__(self, *, count: Annotated[int, Field(ge=2, le=256)] = 8) -> None:
        self.count = count

    def shape(self, channels: int, height: int, width: int) -> tuple[int, int, int]:
        if channels != 1:
            raise ShapeError(
                f"The codec 'levels' takes gray pictures, not {channels} channels; give "
                "--data.color gray."
            )
        return self.count, height, width

    def encode(self, pictures: Tensor, keys: Tensor | None = None) -> Tensor:
        index = ((pictures.clamp(-1, 1) + 1) / 2 * (self.count - 1)).round().long()
        states = torch.zeros_like(pictures).repeat_interleave(self.count, -3)
        return states.scatter_(-3, index, 1)

    def decode(self, latents: Tensor) -> Tensor:
        levels = torch.linspace(-1, 1, self.count, device=latents.device, dtype=latents.dtype)
        return (latents * levels[:, None, None]).sum(-3, keepdim=True)
