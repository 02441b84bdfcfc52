"""Between pictures and the latents of an autoencoder: the codec of latent diffusion.

Shapes: B batch, C channels of pictures, H height, W width, D channels of latents, f the
autoencoder's factor.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import torch
from torch import Tensor

from couette.contracts import Codec, Sizes
from couette.data import Dataset, to_float
from couette.errors import ConfigError, DataError, NotFinite, ShapeError
from couette.networks.common import require_multiple
from couette.networks.vae import VAE, Moments, require_channels
from couette.registry import CODECS
from couette.runtime import Runtime, evaluating
from couette.tensors import Stream, normal, permutation, sent

SMALLEST = 4
"""Tiles are at least so many latent positions wide."""

MEASURED_ON = 2_048
"""Pictures whose latents are looked at for their mean and scale."""

_BATCH = 64
_CONSTANT = 1e-6
"""A channel that deviates by less than this share of its size is taken for constant."""


@CODECS.register("latent", latents=True)
def latent(*, run: str | None = None) -> Codec:
    """The latents of an autoencoder, at a fraction of the pictures' side (Rombach et al. 2022).

    run is that of the autoencoder, which becomes part of the model. When to use it: for pictures of
    which a diffusion model at full size would be too slow.

    Raises:
        ConfigError: always, where it is built by its name alone: it needs the autoencoder.
    """
    raise ConfigError("The codec 'latent' needs an autoencoder; give --codec latent:run=RUN.")


class Latents:
    """Pictures in [-1, 1] to latents of about unit power, and back. Differentiable both ways.

    (z − mean)/scale, both per channel (Rombach et al. 2022, app. G, "rescaling"). Latents have no
    range.

    With `tile`, larger latents are made and decoded in overlapping tiles, weighed linearly against
    each other in the middle of the overlaps. The network sees `reach` positions far and no farther,
    so that tiles of at least 4·reach + 4 give what the whole would, to rounding (1e-5). Smaller
    ones come near it.

    Args:
        network: the autoencoder, on the runtime's device. Its parameters are frozen and it is set
            to evaluation.
        mean, scale: (D,), of the latents; see `measure_latents`.
        runtime: where and in what arithmetic it runs.
        tile: side of the tiles in latent positions; None for no tiles.

    Raises:
        ConfigError: a mean or scale of another shape, not finite or not positive; tiles of less
            than 4 positions.
    """

    def __init__(
        self, network: VAE, mean: Tensor, scale: Tensor, runtime: Runtime, tile: int | None = None
    ) -> None:
        for name, value in (("mean", mean), ("scale", scale)):
            if value.shape != (network.latent,) or not bool(value.isfinite().all()):
                raise ConfigError(
                    f"The {name} of the latents must be {network.latent} finite numbers, one a "
                    f"channel, and is {value.tolist()}; measure_latents gives them."
                )
        if bool((scale <= 0).any()):
            raise ConfigError(
                f"The scale of the latents is {scale.tolist()} and must be above 0; "
                "measure_latents gives it."
            )
        if tile is not None and tile < SMALLEST:
            raise ConfigError(
                f"Tiles of {tile} latent positions are too small; give at least {SMALLEST}, best "
                f"{4 * network.reach + 4} or more."
            )
        self.network, self.runtime, self.tile = network.requires_grad_(False).eval(), runtime, tile
        self.mean, self.scale = (
            value.detach().to(runtime.device, torch.float32)[:, None, None]
            for value in (mean, scale)
        )

    def shape(self, channels: int, height: int, width: int) -> tuple[int, int, int]:
        """(D, H/f, W/f) of the latents of a picture of this shape.

        Raises:
            ShapeError: a picture that the autoencoder can't take.
        """
        if channels != self.network.channels:
            raise ShapeError(
                f"This autoencoder takes pictures of {self.network.channels} channels, not "
                f"{channels}; give --data.color, or another autoencoder."
            )
        factor = self.network.factor
        require_multiple(Sizes(channels, height, width), factor, "vae")
        return self.network.latent, height // factor, width // factor

    def moments(self, pictures: Tensor) -> Moments:
        """The moments of the latents before mean and scale, float32, (B, D, H/f, W/f).

        Raises:
            ShapeError: pictures that the autoencoder can't take.
        """
        self.shape(*pictures.shape[-3:])
        found = self._tiled(self._encoded, pictures.float(), into=self.network.factor, out=1)
        mean, *log_variance = torch.split(found, self.network.latent, dim=1)
        return Moments(mean, log_variance[0] if log_variance else None)

    def encode(self, pictures: Tensor, keys: Tensor | None = None, seed: int = 0) -> Tensor:
        """Pictures (B, C, H, W) to latents (B, D, H/f, W/f), float32.

        Args:
            pictures: in [-1, 1].
            keys: (B, 2) int64, with the seed they fix the sample; None gives the mean.
            seed: of the sample.

        Raises:
            ShapeError: pictures that the autoencoder can't take.
        """
        moments = self.moments(pictures)
        z = moments.mean
        if keys is not None:
            keys = sent(keys, z.device)
            z = moments.sample(normal(seed, keys, Stream.POSTERIOR, z.shape[1:]))
        return self.scaled(z)

    def scaled(self, z: Tensor) -> Tensor:
        """The autoencoder's own latents, (B, D, H/f, W/f), as the denoiser works on them."""
        return (z - self.mean) / self.scale

    def decode(self, latents: Tensor) -> Tensor:
        """Latents (B, D, H/f, W/f) to pictures (B, C, H, W), float32, not clamped to [-1, 1].

        Raises:
            ShapeError: another number of channels, or sides of 0.
        """
        require_channels(latents, self.network.latent, "latents")
        z = torch.addcmul(self.mean, latents.float(), self.scale)
        return self._tiled(self._decoded, z, into=1, out=self.network.factor)

    def _encoded(self, x: Tensor) -> Tensor:
        """The moments as one tensor, (B, D or 2·D, H/f, W/f)."""
        with self.runtime.autocast():
            mean, log_variance = self.network.encode(self._laid_out(x))
        return (mean if log_variance is None else torch.cat((mean, log_variance), 1)).float()

    def _decoded(self, z: Tensor) -> Tensor:
        with self.runtime.autocast():
            return self.network.decode(self._laid_out(z)).float()

    def _laid_out(self, x: Tensor) -> Tensor:
        return x.contiguous(memory_format=self.runtime.memory_format)

    def _tiled(self, run: Callable[[Tensor], Tensor], x: Tensor, *, into: int, out: int) -> Tensor:
        """run(x), tile by tile; a latent position is `into` positions of x and `out` of run(x)."""
        height, width = (side // into for side in x.shape[-2:])
        tile = self.tile
        if tile is None or max(height, width) <= tile:
            return run(x)
        whole: Tensor | None = None
        for top, down in cut(height, tile, self.network.reach, out):
            for left, across in cut(width, tile, self.network.reach, out):
                part = x[..., into * top : into * (top + tile), into * left : into * (left + tile)]
                given = run(part) * (down[:, None] * across).to(x.device)
                if whole is None:
                    whole = given.new_zeros(*given.shape[:2], out * height, out * width)
                rows = slice(out * top, out * top + len(down))
                whole[..., rows, out * left : out * left + len(across)] += given
        assert whole is not None
        return whole


def cut(size: int, tile: int, reach: int, fine: int) -> list[tuple[int, Tensor]]:
    """An axis in tiles of one length that overlap: where each starts, and its weights.

    At every position the weights of all tiles sum to 1. Where tiles overlap by 2·reach + 2, the
    `reach` positions next to a tile's edge, which miss what lies beyond it, weigh nothing.

    Args:
        size, tile, reach: in latent positions.
        fine: weights to a latent position.

    Returns:
        The starts, in latent positions, with weights (fine·min(size, tile),) float32.
    """
    if size <= tile:
        return [(0, torch.ones(fine * size))]
    overlap = min(tile // 2, 2 * reach + 2)
    margin = (overlap - 1) // 2
    starts = [*range(0, size - tile, tile - overlap), size - tile]
    inside = (torch.arange(fine * tile) + 0.5) / fine
    ramp = ((inside - margin) / (overlap - 2 * margin)).clamp(0, 1)
    weights, total = [], torch.zeros(fine * size)
    for start in starts:
        weight = torch.ones_like(ramp)
        weight = weight if start == 0 else weight * ramp
        weight = weight if start + tile == size else weight * ramp.flip(0)
        total[fine * start : fine * (start + tile)] += weight
        weights.append(weight)
    return [
        (start, weight / total[fine * start : fine * (start + tile)])
        for start, weight in zip(starts, weights, strict=True)
    ]


def some_of(data: Dataset, most: int = MEASURED_ON) -> Iterator[Tensor]:
    """Pictures chosen from a data set, in [-1, 1], batch by batch: what latents are measured on."""
    for part in torch.split(permutation(0, 0, len(data))[:most], _BATCH):
        yield to_float(data.pictures(part))


@torch.no_grad()
def measure_latents(
    network: VAE, pictures_batches: Iterable[Tensor], runtime: Runtime
) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of the latents, per channel: what `Latents` divides out.

    They are those of sampled latents, without sampling: the variance is that of the means plus the
    mean of the variances. Batches are merged in float64 (Chan et al. 1983, the pairwise formulas).
    A channel that is constant gets a deviation of 1.

    Args:
        network: the autoencoder, on the runtime's device; its mode is left as it is.
        pictures_batches: pictures in [-1, 1], each (B, C, H, W); some thousand are plenty.
        runtime: where and in what arithmetic it runs.

    Returns:
        (D,) and (D,) float32 on the CPU; the second is above 0.

    Raises:
        DataError: no pictures.
        NotFinite: latents that are not finite.
        ShapeError: pictures that the network can't take.
    """
    count = 0
    mean = torch.zeros(network.latent, dtype=torch.float64)
    spread = torch.zeros_like(mean)
    with evaluating(network):
        for pictures in pictures_batches:
            values, variances = _by_channel(network, pictures, runtime)
            more = values.shape[1]
            if not more:
                continue
            here = values.mean(1)
            shift, count = here - mean, count + more
            mean = mean + shift * (more / count)
            spread = spread + (values - here[:, None]).square().sum(1) + variances.sum(1)
            spread = spread + shift.square() * (more * (count - more) / count)
    if not count:
        raise DataError("The scale of latents is measured on pictures, and none were given.")
    deviation = (spread / count).sqrt()
    if not bool((mean.isfinite() & deviation.isfinite()).all()):
        raise NotFinite(
            "The autoencoder gave latents that are not finite; train it anew with a lower "
            "--training.lr, or use --runtime.dtype float32."
        )
    constant = deviation <= _CONSTANT * (1 + mean.abs())
    return mean.float(), deviation.masked_fill(constant, 1).float()


def _by_channel(network: VAE, pictures: Tensor, runtime: Runtime) -> tuple[Tensor, Tensor]:
    """Means and variances of a batch's latents, (D, B·H/f·W/f) float64 each."""
    x = sent(pictures.float(), runtime.device).contiguous(memory_format=runtime.memory_format)
    with runtime.autocast():
        found = network.encode(x).to(torch.float32)
    rows = [part.cpu().double().transpose(0, 1).flatten(1) for part in found if part is not None]
    return rows[0], rows[1].exp() if len(rows) > 1 else torch.zeros_like(rows[0])
