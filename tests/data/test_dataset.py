from __future__ import annotations

import hashlib

import pytest
import torch

from couette.contracts import Sizes
from couette.data import Dataset, headline, to_float, to_uint8
from couette.errors import DataError


def pictures(count: int = 5, channels: int = 3) -> torch.Tensor:
    values = torch.arange(count * 4 * 6 * channels) % 251
    return values.to(torch.uint8).reshape(count, 4, 6, channels)


def test_pictures_are_gathered_with_channels_first_in_channels_last_strides() -> None:
    data = Dataset("made", pictures())
    got = data.pictures(torch.tensor([3, 1, 3]))
    assert got.shape == (3, 3, 4, 6)
    assert got.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(got[1], data.values[1].permute(2, 0, 1))
    assert torch.equal(got[0], got[2])
    assert data.sizes == Sizes(3, 4, 6, 0)


def test_data_on_a_device_are_the_same_data() -> None:
    data = Dataset("made", pictures(), torch.tensor([0, 1, 1, 0, 1]), ("a", "b"))
    moved = data.on("cpu")
    assert moved.fingerprint == data.fingerprint
    assert torch.equal(moved.pictures(torch.tensor([2])), data.pictures(torch.tensor([2])))


def test_points_come_as_they_are() -> None:
    data = Dataset("made", torch.randn(7, 2, 1, 1))
    assert torch.equal(data.pictures(torch.tensor([6])), data.values[6:])
    assert data.sizes == Sizes(2, 1, 1, 0)
    assert headline(data) == "7 points in the plane"


def test_to_float_and_back_is_exact_for_every_value() -> None:
    every = torch.arange(256, dtype=torch.uint8).reshape(1, 1, 16, 16)
    floats = to_float(every)
    assert floats.dtype == torch.float32
    assert (floats.min(), floats.max()) == (-1.0, 1.0)
    assert torch.equal(to_uint8(floats), every)
    assert to_uint8(torch.tensor([[-3.0, -1.0, 1.0, 9.0]])).tolist() == [[0, 0, 255, 255]]


def test_conversion_keeps_channels_last() -> None:
    batch = Dataset("made", pictures()).pictures(torch.arange(5))
    floats = to_float(batch)
    assert floats.is_contiguous(memory_format=torch.channels_last)
    assert to_uint8(floats).is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize(
    ("shape", "classes", "text"),
    [
        ((2, 28, 28, 1), ("a", "b"), "2 pictures, 28×28 gray, 2 classes"),
        ((1, 4, 6, 3), (), "1 picture, 6 wide × 4 high RGB"),
    ],
)
def test_headline(shape: tuple[int, ...], classes: tuple[str, ...], text: str) -> None:
    labels = torch.arange(shape[0]) if classes else None
    assert headline(Dataset("made", torch.zeros(shape).byte(), labels, classes)) == text


def test_the_fingerprint_changes_with_anything_that_matters() -> None:
    base = Dataset("made", pictures(), torch.zeros(5).long(), ("a", "b"))
    changed = pictures()
    changed[4, 3, 5, 2] += 1
    others = [
        Dataset("made", changed, torch.zeros(5).long(), ("a", "b")),
        Dataset("made", pictures(), torch.ones(5).long(), ("a", "b")),
        Dataset("made", pictures(), torch.zeros(5).long(), ("a", "c")),
        Dataset("made", pictures(), torch.zeros(5).long(), ("a", "b"), texts=("",) * 5),
        Dataset("made", pictures().reshape(5, 6, 4, 3), torch.zeros(5).long(), ("a", "b")),
    ]
    assert len({base.fingerprint, *(other.fingerprint for other in others)}) == 6
    renamed = Dataset("else", pictures(), torch.zeros(5).long(), ("a", "b"), names=("x",) * 5)
    assert renamed.fingerprint == base.fingerprint
    assert len(base.fingerprint) == len(hashlib.sha256().hexdigest())


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"values": torch.zeros(2, 3, 4, 4)}, "give uint8"),
        ({"values": pictures(), "labels": torch.zeros(4).long(), "classes": ("a",)}, "4 labels"),
        ({"values": pictures(), "labels": torch.ones(5).long(), "classes": ("a",)}, r"0\.\.0"),
        ({"values": pictures(), "texts": ("a",)}, "1 texts"),
    ],
)
def test_parts_that_do_not_fit_are_refused(wrong: dict[str, object], says: str) -> None:
    with pytest.raises(DataError, match=says):
        Dataset("made", **wrong)  # type: ignore[arg-type]
