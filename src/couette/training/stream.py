"""The endless stream of batches: which samples come when, as a function of integers.

Each epoch is one seeded order of the data. A batch takes the next samples of the stream and may
span the end of an epoch, so every sample is seen once an epoch and all batches are of one size.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import torch
from torch import Tensor

from couette.config import DataConfig
from couette.contracts import Batch, Codec, Cond
from couette.data import Dataset, augment, to_float
from couette.errors import ConfigError
from couette.tensors import permutation, sent


class Stream:
    """Batches of a data set.

    Args:
        dataset: the pictures.
        codec: encodes them.
        config: flips and crops.
        batch: samples per batch, over all ranks.
        seed: the run's seed.
        device: where batches are wanted.
        labelled: whether to hand over the labels.
        captions: the captions of the pictures at (B,) indices, or None to hand over none.
        latents: of the samples with these keys (B, 2), where they are at hand: then no picture is
            read or encoded.
        rank, world: this process's part of each batch is its rank-th of `world` slices.

    Raises:
        ConfigError: a batch that `world` does not divide.
    """

    def __init__(
        self,
        dataset: Dataset,
        codec: Codec,
        config: DataConfig,
        *,
        batch: int,
        seed: int,
        device: str = "cpu",
        labelled: bool = False,
        captions: Callable[[Tensor], Cond] | None = None,
        latents: Callable[[Tensor], Tensor] | None = None,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        if batch % world:
            raise ConfigError(
                f"A batch of {batch} can't be parted evenly among {world} processes; give --batch "
                f"a multiple of {world}."
            )
        self.dataset, self.codec, self.config = resident(dataset, device), codec, config
        self.batch, self.seed, self.device = batch, seed, device
        self.labelled = labelled and dataset.labels is not None
        self.captions, self.latents = captions, latents
        self.rank, self.world = rank, world
        self._order = lru_cache(maxsize=2)(self._order_of)

    def places(self, step: int) -> Tensor:
        """(B,) int64 places in the run's order of this rank's part of the batch of a step."""
        part = self.batch // self.world
        first = step * self.batch + self.rank * part
        return torch.arange(first, first + part, dtype=torch.int64)

    def keys(self, step: int) -> Tensor:
        """(B, 2) int64 (sample index, epoch) of this rank's part of the batch of a step."""
        places = self.places(step)
        epoch = places // len(self.dataset)
        within = places % len(self.dataset)
        index = torch.empty_like(places)
        for number in sorted(set(epoch.tolist())):
            here = epoch == number
            index[here] = self._order(number)[within[here]]
        return torch.stack((index, epoch), 1)

    def __call__(self, step: int) -> Batch:
        """The batch of a step, counted from 0."""
        return self.take(self.keys(step))._replace(places=self.places(step))

    def take(self, keys: Tensor) -> Batch:
        """The batch of these (index, epoch) pairs."""
        cond = {}
        if self.labelled and self.dataset.labels is not None:
            cond["label"] = sent(self.dataset.labels[keys[:, 0]], self.device)
        if self.captions is not None:
            told = self.captions(keys[:, 0])
            cond |= {key: sent(value, self.device) for key, value in told.items()}
        return Batch((self.latents or self._encoded)(keys), cond, keys)

    def _encoded(self, keys: Tensor) -> Tensor:
        """The samples of these keys, flipped and shifted, as the denoiser works on them."""
        raw = sent(self.dataset.pictures(keys[:, 0]), self.device)
        raw = augment(
            raw,
            flip=self.config.flip,
            crop=self.config.crop,
            seed=self.seed,
            keys=sent(keys, self.device),
        )
        data = to_float(raw) if raw.dtype == torch.uint8 else raw
        return self.codec.encode(data, keys)

    def _order_of(self, epoch: int) -> Tensor:
        return permutation(self.seed, epoch, len(self.dataset))


def resident(data: Dataset, device: str) -> Dataset:
    """The data on a card, where its pictures as uint8 leave three quarters of its memory free."""
    if device != "cuda":
        return data
    free, _ = torch.cuda.mem_get_info()
    return data.on(device) if 4 * data.values.nbytes <= free else data
