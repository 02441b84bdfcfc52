from __future__ import annotations

import gzip
import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from couette.config import DataConfig
from couette.contracts import Sizes
from couette.data import Splits, open_data
from couette.data.idx import KINDS, read_idx
from couette.errors import DataError

NAMES = {
    "train": ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
    "test": ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"),
}


def idx(array: np.ndarray) -> bytes:
    return struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape) + array.tobytes()


def write(
    folder: Path, counts: tuple[int, ...] = (20, 10), zipped: bool = False, side: int = 6
) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for split, count in zip(NAMES, counts, strict=False):
        pixels = np.random.default_rng(count).integers(0, 256, (count, side, side), dtype=np.uint8)
        parts = (pixels, (np.arange(count) % 10).astype(np.uint8))
        for name, part in zip(NAMES[split], parts, strict=True):
            data = gzip.compress(idx(part)) if zipped else idx(part)
            (folder / (name + ".gz" * zipped)).write_bytes(data)


def opened(source: Path | str, **settings: object) -> Splits:
    return open_data(DataConfig(source=str(source), **settings))


@pytest.mark.parametrize("zipped", [False, True])
def test_both_splits_are_read(tmp_path: Path, zipped: bool) -> None:
    write(tmp_path, zipped=zipped)
    train, test = opened(tmp_path)
    assert test is not None and train.labels is not None
    assert (len(train), len(test)) == (20, 10)
    assert train.sizes == Sizes(1, 6, 6, 10)
    assert train.labels.tolist() == [*range(10)] * 2
    expected = np.random.default_rng(20).integers(0, 256, (20, 6, 6), dtype=np.uint8)
    assert np.array_equal(train.values[..., 0].numpy(), expected)


@pytest.mark.parametrize("layout", ["", "raw", "KMNIST/raw"])
def test_a_folder_is_searched_as_torchvision_lays_it_out(tmp_path: Path, layout: str) -> None:
    write(tmp_path / layout)
    assert len(opened(tmp_path).train) == 20


def test_torchvision_folders_name_the_set_and_several_must_be_chosen_from(tmp_path: Path) -> None:
    write(tmp_path / "FashionMNIST" / "raw")
    assert opened(tmp_path).train.classes[9] == "ankle boot"
    assert opened(tmp_path / "FashionMNIST").train.classes[9] == "ankle boot"
    write(tmp_path / "KMNIST" / "raw")
    with pytest.raises(DataError, match="holds several data sets"):
        opened(tmp_path)


def test_missing_files_are_handled_and_said(tmp_path: Path) -> None:
    write(tmp_path, (20,))
    train, test = opened(tmp_path, holdout=0.2)
    assert test is not None and (len(train), len(test)) == (16, 4)
    (tmp_path / NAMES["train"][1]).unlink()
    train, _ = opened(tmp_path)
    assert train.labels is None and train.classes == ()
    assert "There are no labels." in train.notes
    write(tmp_path / "other")
    for name in NAMES["train"]:
        (tmp_path / "other" / name).unlink()
    train, _ = opened(tmp_path / "other", holdout=0)
    assert len(train) == 10
    assert "There are no training files: the t10k pictures are used instead." in train.notes
    write(tmp_path / "half")
    (tmp_path / "half" / NAMES["test"][1]).unlink()
    train, test = opened(tmp_path / "half")
    assert test is not None and train.labels is None and test.labels is None


def test_resolution_colour_and_limit(tmp_path: Path) -> None:
    write(tmp_path, side=8)
    train, test = opened(tmp_path, resolution=(4, 8), color="rgb", limit=5)
    assert test is not None
    assert (len(train), len(test)) == (5, 5)
    assert train.sizes == Sizes(3, 4, 8, 10)


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("inner", ["{folder}/raw", "{name}"])
def test_names_are_looked_up_in_the_data_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, inner: str
) -> None:
    monkeypatch.setenv("COUETTE_DATA", str(tmp_path))
    with pytest.raises(DataError, match=r"--data\.download"):
        opened(name)
    write(tmp_path / inner.format(folder=KINDS[name].folder, name=name))
    train = opened(name).train
    assert (train.name, train.classes) == (name, KINDS[name].classes)


def test_labels_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    write(tmp_path)
    (tmp_path / NAMES["train"][1]).write_bytes(idx(np.zeros(19, np.uint8)))
    with pytest.raises(DataError, match="19 labels for the 20 pictures"):
        opened(tmp_path)


GOOD = idx(np.arange(24, dtype=np.uint8).reshape(2, 3, 4))


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "is cut off in its header"),
        (b"\x89PNG" + GOOD[4:], "starts with 89 50 4e 47"),
        (GOOD[:2] + b"\x0d" + GOOD[3:], "no IDX file of bytes with 3 axes"),
        (idx(np.zeros(4, np.uint8)), "no IDX file of bytes with 3 axes"),
        (GOOD[:10], "truncated"),
        (GOOD[:-1], "shorter than its header says"),
        (GOOD + b"\0", "longer than its header says"),
        (gzip.compress(GOOD)[:-9], "truncated or damaged"),
        (gzip.compress(GOOD + bytes(10**6)), "longer than its header says"),
        (struct.pack(">HBB3I", 0, 8, 3, *[2**32 - 1] * 3), "more than the"),
    ],
    ids=lambda value: value if isinstance(value, str) else len(value),
)
def test_damaged_files_are_named(tmp_path: Path, data: bytes, says: str) -> None:
    path = tmp_path / "images"
    path.write_bytes(data)
    with pytest.raises(DataError, match=says) as caught:
        read_idx(path, 3, 10**6)
    assert str(path) in str(caught.value)


@given(st.binary(max_size=64), st.booleans(), st.integers(0, 20))
def test_any_bytes_give_an_array_or_a_data_error(
    tmp_path_factory: pytest.TempPathFactory, data: bytes, zipped: bool, keep: int
) -> None:
    path = tmp_path_factory.mktemp("fuzz") / "images"
    path.write_bytes(gzip.compress(GOOD[:keep] + data) if zipped else GOOD[:keep] + data)
    try:
        assert read_idx(path, 3, 1000).ndim == 3
    except DataError as error:
        assert str(path) in str(error)


@given(st.integers(0, 4), st.integers(0, 4), st.integers(0, 4), st.booleans())
def test_what_is_written_is_read(
    tmp_path_factory: pytest.TempPathFactory, count: int, height: int, width: int, zipped: bool
) -> None:
    array = np.random.default_rng(1).integers(0, 256, (count, height, width), dtype=np.uint8)
    path = tmp_path_factory.mktemp("idx") / "images"
    path.write_bytes(gzip.compress(idx(array)) if zipped else idx(array))
    assert np.array_equal(read_idx(path, 3, 1000), array)


def test_mnist(shared_data: Path) -> None:
    train, test = opened(shared_data / "mnist")
    assert test is not None
    assert (len(train), len(test)) == (60_000, 10_000)
    assert train.notes[0] == "60,000 pictures, 28×28 gray, 10 classes"
    scaled = train.values.numpy() / 255
    assert scaled.mean() == pytest.approx(0.1307, abs=5e-5)
    assert scaled.std() == pytest.approx(0.3081, abs=5e-5)
    assert train.labels is not None
    assert train.labels.bincount().tolist() == [
        *(5923, 6742, 5958, 6131, 5842),
        *(5421, 5918, 6265, 5851, 5949),
    ]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is cut off in its header"),
        (b"\0\0\x08", "is cut off in its header"),
        (bytes(4), "starts with zeros"),
        (bytes(4000), "starts with zeros"),
        (b"abcd", "is no IDX file of bytes with 3 axes: it starts with 61 62 63 64"),
    ],
)
def test_a_header_that_is_damaged_is_told_from_another_file(
    tmp_path: Path, content: bytes, words: str
) -> None:
    (tmp_path / "a").write_bytes(content)
    with pytest.raises(DataError, match=words):
        read_idx(tmp_path / "a", 3, 1000)
