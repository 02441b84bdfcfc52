"""Their autoencoder as a codec: pictures to latents of about unit power, and back."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from couette.contracts import Sizes
from couette.errors import ShapeError
from couette.networks.common import require_multiple
from couette.runtime import Runtime
from couette.tensors import Stream, normal, sent

AT_ONCE = 1 << 20
"""Pixels that are encoded or decoded at once: the maps in between take much more memory."""


class Autoencoder:
    """AutoencoderKL of diffusers. Differentiable both ways.

    (z − shift)·scale (Rombach et al. 2022, app. G; the shift is Stable Diffusion 3's). Latents have
    no range.

    Args:
        network: the autoencoder, on the runtime's device, frozen and in evaluation mode.
        fields: its config.
        runtime: where it runs.
    """

    def __init__(self, network: nn.Module, fields: dict[str, Any], runtime: Runtime) -> None:
        self.network, self.runtime = network, runtime
        self.channels, self.latent = fields["in_channels"], fields["latent_channels"]
        self.factor = factor_of(fields)
        self.scale = float(fields.get("scaling_factor") or 1.0)
        self.shift = float(fields.get("shift_factor") or 0.0)

    def shape(self, channels: int, height: int, width: int) -> tuple[int, int, int]:
        """(D, H/f, W/f) of the latents of a picture of this shape.

        Raises:
            ShapeError: a picture that the autoencoder can't take.
        """
        if channels != self.channels:
            raise ShapeError(
                f"This autoencoder takes pictures of {self.channels} channels, not {channels}."
            )
        require_multiple(Sizes(channels, height, width), self.factor, "AutoencoderKL")
        return self.latent, height // self.factor, width // self.factor

    def encode(self, pictures: Tensor, keys: Tensor | None = None, seed: int = 0) -> Tensor:
        """Pictures (B, C, H, W) in [-1, 1] to latents (B, D, H/f, W/f), float32.

        Args:
            pictures: on any device.
            keys: (B, 2) int64, with the seed they fix the sample; None gives the mean.
            seed: of the sample.

        Raises:
            ShapeError: pictures that the autoencoder can't take.
        """
        self.shape(*pictures.shape[-3:])
        pictures = sent(pictures, self.runtime.device)
        found = [self._run("encode", part).latent_dist for part in self._parts(pictures, 1)]
        z = torch.cat([each.mean for each in found]).float()
        if keys is not None:
            drawn = normal(seed, sent(keys, z.device), Stream.POSTERIOR, z.shape[1:])
            z = z + torch.cat([each.std for each in found]).float() * drawn
        return (z - self.shift) * self.scale

    def decode(self, latents: Tensor) -> Tensor:
        """Latents (B, D, H/f, W/f) to pictures (B, C, H, W), float32, not clamped to [-1, 1]."""
        parts = self._parts(latents / self.scale + self.shift, self.factor)
        return torch.cat([self._run("decode", part).sample for part in parts]).float()

    def _parts(self, x: Tensor, factor: int) -> tuple[Tensor, ...]:
        """Some rows at a time; `factor` pixels to a position of x."""
        pixels = x.shape[-2] * x.shape[-1] * factor**2
        return torch.split(x, max(1, AT_ONCE // pixels))

    def _run(self, method: str, x: Tensor) -> Any:
        x = x.to(next(self.network.parameters()).dtype)
        with torch.autocast(x.device.type, enabled=False):
            return getattr(self.network, method)(
                x.contiguous(memory_format=self.runtime.memory_format)
            )


def factor_of(fields: dict[str, Any]) -> int:
    """Pixels to a latent position, by the autoencoder's config."""
    return int(2 ** (len(fields["block_out_channels"]) - 1))
