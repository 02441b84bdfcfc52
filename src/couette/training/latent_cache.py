"""The latents of a data set, encoded once and read from disk: a step then costs no encoding.

Shapes: N pictures, B batch, D channels of latents, h and w their sides.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable

import torch
from torch import Tensor

from couette.codecs import Latents
from couette.data import Dataset, to_float
from couette.data.augment import mirrored
from couette.data.store import (
    as_tensor,
    created,
    mapped,
    new_store,
    read_record,
    stored,
    write_record,
)
from couette.networks.vae import Moments
from couette.tensors import Stream, normal, sent

_FILE = "moments"
_WHAT = "latents"
Progress = Callable[[str, int, int], None]


class LatentCache:
    """The moments of all pictures, and of their mirror images where those are wanted, in float16.

    Latents are sampled from them anew at every visit, as `Latents.encode` does, to the rounding of
    float16 (a thousandth of a value). What is stored is used by every run on the same data and the
    same autoencoder, and can be deleted at any time.

    Args:
        codec: the autoencoder, with its mean and scale.
        data: the pictures.
        digest: of the autoencoder's weights.
        flip: whether half of the pictures are mirrored.
        seed: of the mirroring.
        batch: pictures encoded at once.
        progress: called as they are encoded.

    Raises:
        StorageError: the disk has no room for them.
    """

    def __init__(
        self,
        codec: Latents,
        data: Dataset,
        *,
        digest: str,
        flip: bool,
        seed: int,
        batch: int = 64,
        progress: Progress | None = None,
    ) -> None:
        self.codec, self.flip, self.seed = codec, flip, seed
        depth, height, width = codec.shape(data.channels, data.height, data.width)
        self._sure = not codec.network.variational
        parts = 1 if self._sure else 2
        self._shape = (len(data), 2 if flip else 1, parts * depth, height, width)
        about = f"{data.fingerprint} {digest} {self._shape} 1"
        key = f"latents-{hashlib.sha256(about.encode()).hexdigest()[:40]}"
        if read_record(stored(key)) is None:
            self._write(key, data, batch, progress)
        path = stored(key) / _FILE
        bytes_ = as_tensor(mapped(path, (*self._shape[:-1], 2 * width)))
        self._moments = bytes_.view(torch.float16)

    def __call__(self, keys: Tensor) -> Tensor:
        """Latents of pictures by their keys (B, 2), as the denoiser works on them: (B, D, h, w)."""
        view = mirrored(self.seed, keys).long() if self.flip else torch.zeros(len(keys)).long()
        found = sent(self._moments[keys[:, 0], view], self.codec.runtime.device).float()
        mean, *log_variance = torch.split(found, found.shape[1] // (1 if self._sure else 2), dim=1)
        moments = Moments(mean, log_variance[0] if log_variance else None)
        noise = normal(0, sent(keys, mean.device), Stream.POSTERIOR, mean.shape[1:])
        z = self.codec.scaled(moments.sample(noise))
        return z.contiguous(memory_format=torch.channels_last)

    @torch.no_grad()
    def _write(self, key: str, data: Dataset, batch: int, progress: Progress | None) -> None:
        size = 2 * math.prod(self._shape)
        with new_store(key, size, _WHAT) as folder:
            rows = created(folder / _FILE, (*self._shape[:-1], 2 * self._shape[-1]))
            out = torch.from_numpy(rows).view(torch.float16)
            for start in range(0, len(data), batch):
                index = torch.arange(start, min(start + batch, len(data)))
                pictures = sent(to_float(data.pictures(index)), self.codec.runtime.device)
                for view, shown in enumerate((pictures, pictures.flip(-1))[: self._shape[1]]):
                    mean, log_variance = self.codec.moments(shown)
                    parts = [mean] if log_variance is None else [mean, log_variance]
                    out[index, view] = torch.cat(parts, 1).to("cpu", torch.float16)
                if progress:
                    progress("encoding", int(index[-1]) + 1, len(data))
            rows.flush()
            write_record(folder, {"shape": list(self._shape)})
