from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from couette.config import DataConfig
from couette.data import Splits, open_data, store
from couette.data.decode import BadPicture
from couette.errors import DataError, StorageError

Save = Callable[..., Path]
TINY = 1e-9


def opened(path: Path, **settings: object) -> Splits:
    return open_data(DataConfig(source=str(path), **settings))


@pytest.fixture
def folder(tmp_path: Path, save: Save) -> Path:
    for number in range(30):
        save(f"{'ab'[number % 2]}/{number}.png", seed=number)
    (tmp_path / "set" / "a" / "bad.png").touch()
    cut = save("b/3.png", size=(64, 64))
    cut.write_bytes(cut.read_bytes()[:3000])
    return tmp_path / "set"


def kept_in(cache: Path) -> list[Path]:
    return list((cache / "decoded").iterdir())


def same(one: Splits, other: Splits) -> None:
    for a, b in zip(one, other, strict=True):
        assert a is not None and b is not None
        assert torch.equal(a.values, b.values)
        assert a.labels is not None and b.labels is not None
        assert torch.equal(a.labels, b.labels)
        assert (a.names, a.texts, a.classes, a.fingerprint) == (
            (b.names, b.texts, b.classes, b.fingerprint)
        )


def test_on_disk_is_what_in_memory_is(folder: Path, own_places: Path) -> None:
    held = opened(folder, resolution=16)
    assert not (own_places / "decoded").exists()
    mapped = opened(folder, resolution=16, memory_gb=TINY)
    same(held, mapped)
    assert held.train.notes == mapped.train.notes[:-1]
    assert len(kept_in(own_places)) == 1
    picked = mapped.train.pictures(torch.tensor([4, 2]))
    assert torch.equal(picked[1], held.train.values[2].permute(2, 0, 1))


def test_what_is_on_disk_is_used_again(
    folder: Path, own_places: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = opened(folder, resolution=16, memory_gb=TINY)

    def never(*_: object) -> None:
        raise AssertionError("decoded again")

    monkeypatch.setattr(store, "decode_into", never)
    same(first, opened(folder, resolution=16, memory_gb=TINY))


@pytest.mark.parametrize("change", ["file", "setting"])
def test_a_change_makes_a_new_one(folder: Path, own_places: Path, save: Save, change: str) -> None:
    first = opened(folder, resolution=16, memory_gb=TINY)
    if change == "file":
        save("a/0.png", seed=999)
    holdout = 0.3 if change == "setting" else 0.1
    second = opened(folder, resolution=16, memory_gb=TINY, holdout=holdout)
    assert first.train.fingerprint != second.train.fingerprint
    assert len(kept_in(own_places)) == 2


@pytest.mark.parametrize("harm", ["record", "pixels", "no record"])
def test_a_damaged_one_is_made_again(folder: Path, own_places: Path, harm: str) -> None:
    opened(folder, resolution=16, memory_gb=TINY)
    [kept] = kept_in(own_places)
    if harm == "record":
        (kept / "record.json").write_text(json.dumps({"train": {}}))
    elif harm == "no record":
        (kept / "record.json").unlink()
    else:
        os.truncate(kept / "train", 100)
    same(opened(folder, resolution=16), opened(folder, resolution=16, memory_gb=TINY))


def test_grays_stored_in_colour_shrink_on_disk_too(
    tmp_path: Path, save: Save, own_places: Path
) -> None:
    from PIL import Image

    for number in range(6):
        path = save(f"{number}.png", mode="L")
        Image.open(path).convert("RGB").save(path)
    held, mapped = opened(tmp_path / "set"), opened(tmp_path / "set", memory_gb=TINY)
    assert torch.equal(held.train.values, mapped.train.values)
    [kept] = kept_in(own_places)
    assert (kept / "train").stat().st_size == len(held.train) * 16 * 16


def test_too_little_room_is_said_before_anything_is_written(
    folder: Path, own_places: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import shutil

    usage = shutil.disk_usage(folder)._replace(free=100)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    with pytest.raises(StorageError, match="free some space"):
        opened(folder, resolution=16, memory_gb=TINY)
    assert kept_in(own_places) == []


def test_a_disk_that_fills_up_leaves_nothing(
    folder: Path, own_places: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(StorageError, match="No space left"):
        opened(folder, resolution=16, memory_gb=TINY)
    assert kept_in(own_places) == []


def test_a_cache_that_cannot_be_made_is_said(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("COUETTE_CACHE", str(tmp_path / "file"))
    with pytest.raises(StorageError, match="COUETTE_CACHE"):
        opened(folder, resolution=16, memory_gb=TINY)


def test_too_few_pictures_leave_nothing_on_disk(
    tmp_path: Path, save: Save, own_places: Path
) -> None:
    for name in "ab":
        path = save(f"{name}.png", size=(64, 64))
        path.write_bytes(path.read_bytes()[:3000])
    with pytest.raises(DataError, match="Only 0 pictures"):
        opened(tmp_path / "set", memory_gb=TINY)
    assert kept_in(own_places) == []


@given(
    count=st.integers(1, 40),
    keep=st.sets(st.integers(0, 39), min_size=1),
    channels=st.sampled_from([1, 3]),
    chunk=st.integers(1, 8),
)
def test_compaction_in_place_is_selection(
    count: int, keep: set[int], channels: int, chunk: int
) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (count, 2, 3, 3), dtype=np.uint8)
    rows = np.array(sorted(row for row in keep if row < count), np.int64)
    expected = pixels[rows][..., :channels].copy()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(store, "_ROWS", chunk)
        assert np.array_equal(store.compact(pixels, rows, channels), expected)


def test_work_is_in_order_with_problems_in_place_and_progress_told() -> None:
    def work(number: int) -> int:
        if number % 500 == 7:
            raise BadPicture("is bad")
        return number * number

    told: list[tuple[str, int, int]] = []
    got = list(store.each(work, range(1500), "squaring", lambda *news: told.append(news)))
    assert [row for row, value in enumerate(got) if isinstance(value, BadPicture)] == [7, 507, 1007]
    assert [value for value in got if isinstance(value, int)][-1] == 1499**2
    assert told == [("squaring", 1024, 1500), ("squaring", 1500, 1500)]
