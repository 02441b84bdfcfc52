"""From arrays of pictures to data sets: limit, size, colour, split. For sources that are arrays."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from couette.config import DataConfig
from couette.data.dataset import Dataset, Splits, counted, extent, lone_classes, splits
from couette.data.decode import fit
from couette.data.sizing import asked_size
from couette.data.splitting import Rows, hold_out, limited
from couette.errors import DataError

Pixels = NDArray[np.uint8]


class Arrays(NamedTuple):
    """Pictures, uint8 (N, H, W, C), and their labels, (N,), where there are any."""

    pixels: Pixels
    labels: NDArray[Any] | None = None

    def take(self, rows: Rows) -> Arrays:
        if len(rows) == len(self.pixels):
            return self
        return Arrays(self.pixels[rows], None if self.labels is None else self.labels[rows])


def load_arrays(
    name: str,
    train: Arrays,
    test: Arrays | None,
    classes: Sequence[str],
    config: DataConfig,
    notes: Sequence[str] = (),
) -> Splits:
    """Bring arrays to the size and colour asked for, and split off what is kept for evaluation.

    Raises:
        DataError: fewer than two pictures to train on.
        ConfigError: a resolution out of range.
    """
    said = list(notes)
    if config.limit and config.limit < len(train.pixels):
        said.append(f"{config.limit:,} of {counted(len(train.pixels), 'picture')} are used.")
    train = train.take(limited(len(train.pixels), config.limit))
    if test is None:
        kept, held = hold_out(len(train.pixels), train.labels, config.holdout)
        test = train.take(held) if len(held) else None
        train = train.take(kept)
    else:
        test = test.take(limited(len(test.pixels), config.limit))
    if len(train.pixels) < 2:
        raise DataError(f"'{name}' has {counted(len(train.pixels), 'picture')}; two are needed.")
    height, width = train.pixels.shape[1:3]
    size = asked_size(config) or (height, width)
    if size != (height, width):
        said.append(f"Pictures of {extent(height, width)} were scaled to {extent(*size)}.")
    if train.labels is not None:
        said += lone_classes(torch.from_numpy(train.labels.astype(np.int64)), classes)
    made = _dataset(name, train, classes, config, size)
    return splits(made, test and _dataset(name, test, classes, config, size), said)


def resized(pixels: Pixels, height: int, width: int) -> Pixels:
    """Every picture scaled on its short side and centre-cropped: uint8 (N, height, width, C)."""
    if pixels.shape[1:3] == (height, width):
        return pixels
    out = np.empty((len(pixels), height, width, pixels.shape[3]), np.uint8)
    for row, picture in enumerate(pixels):
        image = Image.fromarray(picture.squeeze(2) if picture.shape[2] == 1 else picture)
        out[row] = np.asarray(fit(image, height, width)).reshape(out.shape[1:])
    return out


def recolored(pixels: Pixels, channels: int) -> Pixels:
    """The same pictures in gray (ITU-R BT.601 luma) or in RGB: uint8 (N, H, W, channels)."""
    if pixels.shape[3] == channels:
        return pixels
    if channels == 3:
        return np.repeat(pixels, 3, axis=3)
    out = np.empty((*pixels.shape[:3], 1), np.uint8)
    for row, picture in enumerate(pixels):
        out[row, :, :, 0] = np.asarray(Image.fromarray(picture).convert("L"))
    return out


def _dataset(
    name: str, arrays: Arrays, classes: Sequence[str], config: DataConfig, size: tuple[int, int]
) -> Dataset:
    channels = {"gray": 1, "rgb": 3, "auto": arrays.pixels.shape[3]}[config.color]
    pixels = np.ascontiguousarray(recolored(resized(arrays.pixels, *size), channels))
    labels = None
    if arrays.labels is not None:
        labels = torch.from_numpy(arrays.labels.astype(np.int64))
    return Dataset(
        name,
        torch.from_numpy(pixels if pixels.flags.writeable else pixels.copy()),
        labels=labels,
        classes=tuple(classes) if labels is not None else (),
    )
