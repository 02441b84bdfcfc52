"""What a data set is once it is open: tensors, names for the classes, and what was noticed.

Knows nothing of files. Pictures are kept as uint8 with channels last, (N, H, W, C), and stay uint8
until a batch is on the device; 2-D points are float32 (N, 2, 1, 1).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from couette.contracts import Sizes
from couette.errors import DataError
from couette.tensors import sent

Progress = Callable[[str, int, int], None]
"""(what is being done, how much is done, of how much): called now and then during long work."""


@dataclass(frozen=True, eq=False, repr=False)
class Dataset:
    """Pictures or points, with what is known of each. All fields are read-only.

    Attributes:
        name: what it is called in reports.
        values: uint8 (N, H, W, C) pictures, possibly backed by a read-only memory map, or
            float32 (N, 2, 1, 1) points.
        labels: (N,) int64 indices into `classes`, or None.
        classes: the names of the classes, empty without labels.
        texts: one caption per picture, or None.
        names: the file each picture came from, or None.
        notes: what was detected, guessed and left out, in plain sentences.
        fingerprint: SHA-256 of the content, in hexadecimal; computed when not given.

    Raises:
        DataError: the parts do not fit together.
    """

    name: str
    values: Tensor
    labels: Tensor | None = None
    classes: tuple[str, ...] = ()
    texts: tuple[str, ...] | None = None
    names: tuple[str, ...] | None = None
    notes: tuple[str, ...] = ()
    fingerprint: str = ""

    def __post_init__(self) -> None:
        pictures = self.values.dtype == torch.uint8 and self.values.ndim == 4
        points = self.values.dtype == torch.float32 and self.values.shape[1:] == (2, 1, 1)
        if not (pictures or points):
            raise DataError(
                f"The values of '{self.name}' are {self.values.dtype} {tuple(self.values.shape)}; "
                "give uint8 (N, H, W, C) pictures or float32 (N, 2, 1, 1) points."
            )
        for what in ("labels", "texts", "names"):
            part = getattr(self, what)
            if part is not None and len(part) != len(self):
                raise DataError(f"'{self.name}' has {len(self)} pictures but {len(part)} {what}.")
        if self.labels is not None and len(self):
            low, high = int(self.labels.min()), int(self.labels.max())
            if low < 0 or high >= len(self.classes):
                raise DataError(
                    f"The labels of '{self.name}' go from {low} to {high}; "
                    f"with {len(self.classes)} classes they must lie in 0..{len(self.classes) - 1}."
                )
        if not self.fingerprint:
            object.__setattr__(self, "fingerprint", _fingerprint(self))

    def __repr__(self) -> str:
        return f"Dataset({self.name!r}: {headline(self)})"

    def __len__(self) -> int:
        return self.values.shape[0]

    @property
    def points(self) -> bool:
        """True for 2-D points, False for pictures."""
        return self.values.dtype != torch.uint8

    @property
    def channels(self) -> int:
        return self.values.shape[1 if self.points else 3]

    @property
    def height(self) -> int:
        return self.values.shape[2 if self.points else 1]

    @property
    def width(self) -> int:
        return self.values.shape[3 if self.points else 2]

    @property
    def sizes(self) -> Sizes:
        """What the data decide about a network."""
        return Sizes(self.channels, self.height, self.width, len(self.classes))

    def pictures(self, indices: Tensor) -> Tensor:
        """The pictures at `indices` (B,) int64: uint8 (B, C, H, W) with channels_last strides.

        Points come as float32 (B, 2, 1, 1).
        """
        rows = self.values.index_select(0, sent(indices, self.values.device))
        return rows if self.points else rows.permute(0, 3, 1, 2)

    def on(self, device: str) -> Dataset:
        """The same data with their pictures on a device, where `pictures` then gives them."""
        return replace(self, values=self.values.to(device))

    def describe(self) -> str:
        """All notes, one per line, the headline first."""
        return "\n".join(self.notes or (headline(self),))


class Splits(NamedTuple):
    """The pictures to train on, and those kept for evaluation (None where there are none)."""

    train: Dataset
    test: Dataset | None


def headline(data: Dataset) -> str:
    """The data in one line: "60,000 pictures, 28×28 gray, 10 classes"."""
    if data.points:
        parts = [counted(len(data), "point") + " in the plane"]
    else:
        color = {1: "gray", 3: "RGB"}.get(data.channels, f"{data.channels} channels")
        parts = [counted(len(data), "picture"), f"{extent(data.height, data.width)} {color}"]
    if data.classes:
        parts.append(counted(len(data.classes), "class", "classes"))
    if data.texts is not None:
        parts.append("with captions")
    return ", ".join(parts)


def splits(train: Dataset, test: Dataset | None, notes: Sequence[str]) -> Splits:
    """Both splits with their notes: a headline each, and all else on the training pictures."""
    if test is None:
        kept = "None is kept for evaluation."
    else:
        kept = f"{len(test):,} more {'is' if len(test) == 1 else 'are'} kept for evaluation."
        test = replace(test, notes=(headline(test),))
    return Splits(replace(train, notes=(headline(train), kept, *notes)), test)


def lone_classes(labels: Sequence[int] | Tensor, classes: Sequence[str]) -> list[str]:
    """A note naming the classes with a single picture, where there are any."""
    sizes = torch.bincount(torch.as_tensor(labels), minlength=len(classes))
    lone = [f"'{name}'" for name, size in zip(classes, sizes.tolist(), strict=True) if size == 1]
    if not lone:
        return []
    which = "1 class has" if len(lone) == 1 else f"{len(lone):,} classes have"
    return [f"{which} a single picture, too few to learn from: {named(lone)}."]


def counted(count: int, noun: str, plural: str = "") -> str:
    """ "1 picture", "3,354 pictures"."""
    return f"{count:,} {noun if count == 1 else plural or noun + 's'}"


def extent(height: int, width: int) -> str:
    """ "28×28", or "64 wide × 48 high" where the order matters."""
    return f"{width}×{height}" if height == width else f"{width} wide × {height} high"


def shown(name: str) -> str:
    """A name from outside as it can safely be printed, whatever characters it holds."""
    return name if name.isprintable() else ascii(name)[1:-1]


def named(parts: Sequence[str], most: int = 5) -> str:
    """Up to `most` of the parts, joined by semicolons, and how many more there are."""
    more = len(parts) - most
    shortened = [*parts[:most], f"and {more:,} more"] if more > 0 else list(parts)
    return "; ".join(shortened)


def to_float(pictures: Tensor) -> Tensor:
    """uint8 (B, C, H, W) in 0..255 to float32 in [-1, 1], keeping device and memory format.

    Floating-point input (2-D points) is returned as it is.
    """
    if pictures.is_floating_point():
        return pictures
    return pictures.to(torch.float32).div_(127.5).sub_(1.0)


def to_uint8(pictures: Tensor) -> Tensor:
    """Float (B, C, H, W) in [-1, 1] to uint8, rounded and clamped; the inverse of `to_float`."""
    return pictures.to(torch.float32).add(1.0).mul_(127.5).round_().clamp_(0, 255).to(torch.uint8)


def _fingerprint(data: Dataset) -> str:
    about = {"shape": list(data.values.shape), "dtype": str(data.values.dtype)}
    digest = hashlib.sha256(json.dumps([about, data.classes, data.texts]).encode())
    digest.update(_bytes(data.values))
    if data.labels is not None:
        digest.update(_bytes(data.labels))
    return digest.hexdigest()


def _bytes(values: Tensor) -> memoryview:
    """The tensor's memory, without a copy where it is contiguous."""
    array: Any = values.contiguous().numpy()
    return memoryview(array)
