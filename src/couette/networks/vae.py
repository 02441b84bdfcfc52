"""The network between pictures and latents, and the critic that judges what it makes.

It knows nothing of diffusion. There is no attention and no norm over positions, so a latent depends
on the pixels around it alone, a pixel on the latents around it: see `VAE.reach`.

Shapes: B batch, C channels of pictures, H height, W width, D channels of latents, f factor; latents
are (B, D, H/f, W/f). Feature maps are channels_last in memory.
"""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Annotated, Literal, NamedTuple

import torch
import torch.nn.functional as F
from pydantic import BeforeValidator, Field
from torch import Tensor, nn

from couette.contracts import Cond, Sizes
from couette.errors import ConfigError, ShapeError
from couette.networks.common import refuse_unknown, require_multiple
from couette.networks.layers import ChannelNorm
from couette.networks.unet import unfold, zeroed
from couette.registry import NETWORKS
from couette.runtime import Repeated
from couette.validation import from_text

LOG_VARIANCE = -30.0, 20.0
"""What log variances are clamped to, as Rombach et al. 2022 do in their code."""

MULTIPLES = {2: (1, 2), 4: (1, 2, 4), 8: (1, 2, 4, 4)}
"""Channels of each level, outermost first, by factor, as Rombach et al. 2022 have them."""


class Moments(NamedTuple):
    """What an encoder says of the latents: normal, each value by itself.

    mean: (B, D, H/f, W/f). log_variance: as the mean; None where the encoder is sure of them.
    """

    mean: Tensor
    log_variance: Tensor | None

    def to(self, dtype: torch.dtype) -> Moments:
        """The same in another dtype."""
        if self.log_variance is None:
            return Moments(self.mean.to(dtype), None)
        return Moments(self.mean.to(dtype), self.log_variance.to(dtype))

    def sample(self, noise: Tensor) -> Tensor:
        """mean + deviation·noise, for unit noise like the mean; without a variance the mean."""
        if self.log_variance is None:
            return self.mean
        return torch.addcmul(self.mean, (self.log_variance / 2).exp(), noise)

    def divergence(self) -> Tensor | None:
        """The sum over the latents of KL(N(mean, variance) ‖ N(0, 1)), in nats, (B,).

        (mean² + variance − 1 − log variance)/2 (Kingma & Welling 2014, app. B). None without a
        variance, where it would be infinite.
        """
        if self.log_variance is None:
            return None
        each = self.mean.square() + self.log_variance.expm1() - self.log_variance
        return each.flatten(1).sum(1) / 2


@NETWORKS.register("vae", gives="latents")
class VAE(nn.Module):
    """For latent diffusion: pictures to latents of a fraction of the side, and back.

    Rombach et al. 2022, sec. 3.1 and app. G, without attention. When to use it: for pictures of
    which a diffusion model at full size would be too slow; train it with the objective
    `autoencoder`, then diffusion on what it makes of pictures.

    Args:
        sizes: channels, height and width of the pictures; any other multiples of the factor work,
            too.
        factor: how many times shorter the sides of the latents are.
        latent: channels of the latents.
        width: channels of the first level.
        multiples: channels of each level, outermost first, as multiples of the width; each level
            after the first halves the resolution. Chosen by the factor when not given.
        blocks: residual blocks of each level, on either way.
        variational: whether the encoder gives a variance beside the mean; without one it is a plain
            autoencoder.

    Raises:
        ConfigError: multiples that are not one more than the halvings.
        ShapeError: pictures whose sides are not multiples of the factor.
    """

    def __init__(
        self,
        sizes: Sizes,
        *,
        factor: Annotated[Literal[2, 4, 8], BeforeValidator(from_text)] = 4,
        latent: Annotated[int, Field(ge=1, le=256)] = 4,
        width: Annotated[int, Field(ge=8, le=4096)] = 32,
        multiples: tuple[Annotated[int, Field(ge=1, le=64)], ...] | None = None,
        blocks: Annotated[int, Field(ge=1, le=32)] = 1,
        variational: bool = True,
    ) -> None:
        super().__init__()
        require_multiple(sizes, factor, "vae")
        multiples = MULTIPLES[factor] if multiples is None else multiples
        if len(multiples) != factor.bit_length():
            raise ConfigError(
                f"multiples = {multiples} has {len(multiples)} levels, and a factor of {factor} "
                f"needs {factor.bit_length()}; give so many, or leave it out."
            )
        widths = [width * each for each in multiples]
        self.wants: frozenset[str] = frozenset()
        self.channels, self.latent = sizes.channels, latent
        self.factor, self.blocks, self.variational = factor, blocks, variational
        self.encoder = _encoder(sizes.channels, widths, blocks, latent * (2 if variational else 1))
        self.decoder = _decoder(latent, widths[::-1], blocks, sizes.channels)

    @property
    def reach(self) -> int:
        """How far a latent sees in the picture, and a pixel in the latents, in latent positions.

        What lies farther away changes nothing. Each convolution of 3×3 sees one position of its
        level farther, and positions of outer levels are so much smaller.
        """
        finest = 1 / self.factor
        return math.ceil(1 + 2 * self.blocks * (2 - finest) + finest)

    def encode(self, x: Tensor) -> Moments:
        """Pictures in [-1, 1], (B, C, H, W), to the moments of their latents, (B, D, H/f, W/f).

        The log variance is clamped to [-30, 20].

        Raises:
            ShapeError: another number of channels, or sides that are not multiples of the factor.
        """
        require_channels(x, self.channels, "pictures")
        require_multiple(Sizes(*x.shape[1:]), self.factor, "vae")
        found = self.encoder(x)
        if not self.variational:
            return Moments(found, None)
        mean, log_variance = found.chunk(2, dim=1)
        return Moments(mean, log_variance.clamp(*LOG_VARIANCE))

    def decode(self, z: Tensor) -> Tensor:
        """Latents (B, D, H/f, W/f) to pictures (B, C, H, W), which may leave [-1, 1] a little.

        Raises:
            ShapeError: another number of channels, or sides of 0.
        """
        require_channels(z, self.latent, "latents")
        x: Tensor = self.decoder(z)
        return x

    def forward(self, x: Tensor, told: Tensor, cond: Cond) -> Tensor:
        """(B, C, H, W) to the reconstruction from the mean, (B, C, H, W). `told` is not looked at.

        Raises:
            ConfigError: a key in `cond`.
            ShapeError: as `encode`.
        """
        refuse_unknown(cond, self.wants)
        return self.decode(self.encode(x).mean)


class Path(nn.Sequential):
    """Parts that run one after another."""

    nested = True
    """A plan of the network looks inside."""


class Block(Repeated):
    """h + conv(silu(norm(conv(silu(norm(h)))))), (B, C, H, W)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm1 = ChannelNorm(channels)
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.norm2 = ChannelNorm(channels)
        self.conv2 = zeroed(nn.Conv2d(channels, channels, 3, padding=1))

    def forward(self, h: Tensor) -> Tensor:
        y = self.conv1(F.silu(self.norm1(h)))
        result: Tensor = h + self.conv2(F.silu(self.norm2(y)))
        return result


class Up(nn.Module):
    """(B, inner, H, W) to (B, outer, 2H, 2W): one position becomes 2×2, learned."""

    def __init__(self, inner: int, outer: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inner, 4 * outer, 1)

    def forward(self, h: Tensor) -> Tensor:
        return unfold(self.conv(h))


class Leave(nn.Module):
    """conv(silu(norm(h))), (B, inner, H, W) to (B, outer, H, W)."""

    def __init__(self, inner: int, outer: int) -> None:
        super().__init__()
        self.norm = ChannelNorm(inner)
        self.conv = nn.Conv2d(inner, outer, 3, padding=1)

    def forward(self, h: Tensor) -> Tensor:
        result: Tensor = self.conv(F.silu(self.norm(h)))
        return result


def _encoder(channels: int, widths: list[int], blocks: int, out: int) -> Path:
    parts: list[nn.Module] = [nn.Conv2d(channels, widths[0], 3, padding=1)]
    parts += [Block(widths[0]) for _ in range(blocks)]
    for outer, inner in pairwise(widths):
        parts.append(nn.Conv2d(outer, inner, 2, stride=2))
        parts += [Block(inner) for _ in range(blocks)]
    return Path(*parts, Leave(widths[-1], out))


def _decoder(latent: int, widths: list[int], blocks: int, out: int) -> Path:
    """`widths` of the innermost level first."""
    parts: list[nn.Module] = [nn.Conv2d(latent, widths[0], 3, padding=1)]
    parts += [Block(widths[0]) for _ in range(blocks)]
    for inner, outer in pairwise(widths):
        parts.append(Up(inner, outer))
        parts += [Block(outer) for _ in range(blocks)]
    return Path(*parts, Leave(widths[-1], out))


def require_channels(given: Tensor, channels: int, what: str) -> None:
    """Refuse what an autoencoder was not built for.

    Raises:
        ShapeError: not (B, channels, height, width), or a side of 0.
    """
    if given.ndim == 4 and given.shape[1] == channels and min(given.shape[2:]) > 0:
        return
    raise ShapeError(
        f"This autoencoder takes {what} of (B, {channels}, height, width) and was given "
        f"{tuple(given.shape)}; give those it was built for."
    )


class PatchCritic(nn.Module):
    """Says of each patch of a picture how real it looks: logits, above 0 for real.

    A fully convolutional discriminator (Isola et al. 2017, sec. 3.2, "PatchGAN"), small: each logit
    sees 26×26 pixels. It norms over the channels of each position instead of the batch, so that
    samples do not see each other.

    Args:
        channels: C, of the pictures.
        width: channels of its first level.

    Attributes:
        step: 0-d int64, updates of the run so far; kept here to be saved with the weights.
    """

    step: Tensor

    def __init__(self, channels: int, width: int = 32) -> None:
        super().__init__()
        self.enter = nn.Conv2d(channels, width, 4, stride=2, padding=1)
        self.down = nn.Conv2d(width, 2 * width, 4, stride=2, padding=1)
        self.norm1 = ChannelNorm(2 * width)
        self.hidden = nn.Conv2d(2 * width, 4 * width, 3, padding=1)
        self.norm2 = ChannelNorm(4 * width)
        self.decide = nn.Conv2d(4 * width, 1, 3, padding=1)
        self.register_buffer("step", torch.zeros((), dtype=torch.int64))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to logits (B, 1, ⌈H/4⌉, ⌈W/4⌉)."""
        height, width = x.shape[-2:]
        h = self.enter(F.pad(x, (0, -width % 4, 0, -height % 4)))
        h = self.norm1(self.down(F.leaky_relu(h, 0.2)))
        h = self.norm2(self.hidden(F.leaky_relu(h, 0.2)))
        logits: Tensor = self.decide(F.leaky_relu(h, 0.2))
        return logits
