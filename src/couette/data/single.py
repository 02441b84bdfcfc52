"""One picture that a user names, as a tensor."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor

from couette.data.dataset import to_float
from couette.data.decode import BadPicture, Header, Look, decode, probe, strict_pillow
from couette.errors import DataError


def header_of(path: Path) -> Header:
    """What a picture says of itself.

    Raises:
        DataError: it can't be read; with its path.
    """
    with _named(path):
        return probe(path)


def read_picture(path: Path, look: Look) -> Tensor:
    """A picture brought to a look: (1, C, H, W) float32 in [-1, 1].

    Raises:
        DataError: it can't be read; with its path.
    """
    with _named(path):
        pixels = decode(path, look)
    # Torch wants memory that it may write to.
    return to_float(torch.from_numpy(pixels.copy()).permute(2, 0, 1)[None])


@contextmanager
def _named(path: Path) -> Iterator[None]:
    with strict_pillow():
        try:
            yield
        except BadPicture as error:
            raise DataError(f"{path} {error}; give a picture.") from None
