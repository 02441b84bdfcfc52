from __future__ import annotations

import io
import tarfile
from pathlib import Path

import numpy as np
import pytest

from couette.config import DataConfig
from couette.contracts import Sizes
from couette.data import Splits, open_data
from couette.data.cifar import CLASSES, FOLDER, TEST, TRAIN, extract
from couette.errors import DataError


def batch(seed: int, count: int = 4) -> bytes:
    records = np.random.default_rng(seed).integers(0, 256, (count, 3073), dtype=np.uint8)
    records[:, 0] = np.arange(count) % 10
    return records.tobytes()


def write(folder: Path) -> None:
    folder.mkdir(parents=True)
    for seed, name in enumerate((*TRAIN, TEST)):
        (folder / name).write_bytes(batch(seed))


def opened(source: Path | str, **settings: object) -> Splits:
    return open_data(DataConfig(source=str(source), **settings))


@pytest.mark.parametrize("inner", ["", FOLDER])
def test_planes_become_pixels(tmp_path: Path, inner: str) -> None:
    write(tmp_path / "set" / inner)
    train, test = opened(tmp_path / "set")
    assert test is not None
    assert (len(train), len(test)) == (20, 4)
    assert train.sizes == Sizes(3, 32, 32, 10)
    assert train.classes == CLASSES
    record = np.frombuffer(batch(2), np.uint8).reshape(4, 3073)[1]
    assert train.values[9, 3, 5].tolist() == [record[1 + 1024 * c + 3 * 32 + 5] for c in range(3)]
    assert train.labels is not None and train.labels[9] == record[0]


def test_names_of_the_classes_are_read_and_missing_batches_said(tmp_path: Path) -> None:
    write(tmp_path / "set")
    (tmp_path / "set" / "batches.meta.txt").write_text("\n".join("abcdefghij") + "\n")
    (tmp_path / "set" / TRAIN[3]).unlink()
    (tmp_path / "set" / TEST).unlink()
    train, test = opened(tmp_path / "set", holdout=0.25)
    assert test is not None and (len(train), len(test)) == (12, 4)
    assert train.classes == tuple("abcdefghij")
    assert "Missing: data_batch_4.bin." in train.notes


def test_colour_and_resolution(tmp_path: Path) -> None:
    write(tmp_path / "set")
    train = opened(tmp_path / "set", color="gray", resolution=16).train
    assert train.sizes == Sizes(1, 16, 16, 10)


@pytest.mark.parametrize(
    ("data", "says"),
    [(b"", "0 bytes"), (batch(0)[:-1], "12,291 bytes"), (b"\x0a" + batch(0)[1:], "the label 10")],
)
def test_damaged_batches_are_named(tmp_path: Path, data: bytes, says: str) -> None:
    write(tmp_path / "set")
    (tmp_path / "set" / TRAIN[1]).write_bytes(data)
    with pytest.raises(DataError, match=rf"data_batch_2\.bin' has {says}"):
        opened(tmp_path / "set")


def archive(path: Path, names: list[str], link: str | None = None) -> Path:
    with tarfile.open(path, "w:gz") as tar:
        for name in names:
            member = tarfile.TarInfo(name)
            member.size = len(batch(0))
            tar.addfile(member, io.BytesIO(batch(0)))
        if link:
            member = tarfile.TarInfo(link)
            member.type, member.linkname = tarfile.SYMTYPE, "/etc/passwd"
            tar.addfile(member)
    return path


def test_only_expected_files_leave_the_archive(tmp_path: Path) -> None:
    names = [f"{FOLDER}/{name}" for name in TRAIN[1:]]
    names += ["../../evil.bin", "/etc/evil", f"../{TEST}", f"/tmp/x/{TRAIN[0]}"]
    extract(archive(tmp_path / "a.tar.gz", names), tmp_path / "deep" / "out")
    assert sorted(p.name for p in (tmp_path / "deep" / "out").iterdir()) == sorted((*TRAIN, TEST))
    assert not list(tmp_path.rglob("evil*"))
    assert len(opened(tmp_path / "deep" / "out").train) == 20


def test_archives_that_lack_files_or_hold_links_or_are_cut_are_refused(tmp_path: Path) -> None:
    few = archive(tmp_path / "few.tar.gz", [f"{FOLDER}/{n}" for n in TRAIN], f"{FOLDER}/{TEST}")
    with pytest.raises(DataError, match=r"lacks .*test_batch\.bin"):
        extract(few, tmp_path / "out")
    few.write_bytes(few.read_bytes()[:2000])
    with pytest.raises(DataError, match="is damaged"):
        extract(few, tmp_path / "out2")
    few.write_bytes(b"no archive")
    with pytest.raises(DataError, match="is damaged"):
        extract(few, tmp_path / "out3")


def test_the_name_says_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COUETTE_DATA", str(tmp_path))
    with pytest.raises(DataError, match=r"--data\.download"):
        opened("cifar10")
    write(tmp_path / FOLDER)
    assert opened("cifar10").train.name == "cifar10"
