"""Between pictures in [-1, 1] and what the denoiser works on. Differentiable both ways."""

from __future__ import annotations

from torch import Tensor

from couette.registry import CODECS


class _PixelCodec:
    def shape(self, channels: int, height: int, width: int) -> tuple[int, int, int]:
        return channels, height, width


@CODECS.register("symmetric")
class Symmetric(_PixelCodec):
    """Pictures as they are, in [-1, 1]."""

    low, high = -1.0, 1.0

    def encode(self, pictures: Tensor, keys: Tensor | None = None) -> Tensor:
        return pictures

    def decode(self, latents: Tensor) -> Tensor:
        return latents


@CODECS.register("unit")
class Unit(_PixelCodec):
    """Pictures in [0, 1], as the course's and Berkeley's denoisers want them."""

    low, high = 0.0, 1.0

    def encode(self, pictures: Tensor, keys: Tensor | None = None) -> Tensor:
        return (pictures + 1) / 2

    def decode(self, latents: Tensor) -> Tensor:
        return latents * 2 - 1
