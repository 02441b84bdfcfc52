"""Files are whole or not there, and nothing that they hold can do harm."""

from __future__ import annotations

import errno
import json
import os
import re
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import processes
import victims
from couette import storage
from couette.errors import CheckpointError, CouetteError, StorageError

ROOT = Path(__file__).resolve().parents[1]
TENSORS = {"a": torch.arange(6.0).reshape(2, 3), "b": torch.tensor([1, 2, 3])}
GOOD = storage.tensor_bytes(TENSORS)


def file_of(header: object, data: bytes = b"", length: int | None = None) -> bytes:
    """A safetensors file with any header at all."""
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(raw) if length is None else length) + raw + data


def entry(dtype: str = "F32", shape: object = (2,), offsets: object = (0, 8)) -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets}


class TestTensors:
    def test_round_trip_to_the_bit(self, tmp_path: Path) -> None:
        odd = {**TENSORS, "nan": torch.tensor([float("nan"), -0.0]), "empty": torch.empty(0, 3)}
        odd["strided"] = torch.randn(2, 8, 3, 3).to(memory_format=torch.channels_last)
        path = tmp_path / "t.safetensors"
        storage.write_bytes(path, storage.tensor_bytes(odd))
        read = storage.read_tensors(path)
        assert read.keys() == odd.keys()
        for name, value in odd.items():
            assert read[name].dtype == value.dtype
            assert read[name].shape == value.shape
            assert storage.tensor_bytes({"x": read[name]}) == storage.tensor_bytes({"x": value})

    @pytest.mark.parametrize(
        "damaged",
        {
            "empty": b"",
            "short": GOOD[:7],
            "only a length": GOOD[:8],
            "truncated header": GOOD[:40],
            "truncated data": GOOD[:-1],
            "more data": GOOD + b"\0",
            "a huge header": file_of(b" ", length=2**63),
            "an oversized header": file_of(b"{" + b" " * storage.MAX_HEADER + b"}"),
            "not JSON": file_of(b"{]"),
            "not text": file_of(b"\xff\xfe\xfd"),
            "a list": file_of([]),
            "nested deeply": file_of(b"[" * 100_000),
            "a name twice": file_of(
                b'{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},'
                b'"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}',
                bytes(8),
            ),
            "a field twice": file_of(
                b'{"a":{"dtype":"F32","dtype":"F32","shape":[2],"data_offsets":[0,8]}}', bytes(8)
            ),
            "too many tensors": file_of({f"{i:x}": 0 for i in range(storage.MAX_TENSORS + 1)}),
            "an entry that is none": file_of({"a": 1}),
            "offsets backwards": file_of({"a": entry(offsets=(8, 0))}, bytes(8)),
            "offsets outside": file_of({"a": entry(offsets=(8, 16))}, bytes(8)),
            "offsets that overlap": file_of({"a": entry(), "b": entry()}, bytes(8)),
            "negative offsets": file_of({"a": entry(offsets=(-8, 0))}, bytes(8)),
            "a shape that is too large": file_of({"a": entry(shape=(2**40, 2**40))}, bytes(8)),
            "a negative shape": file_of({"a": entry(shape=(-2,))}, bytes(8)),
            "an unknown dtype": file_of({"a": entry(dtype="OBJ")}, bytes(8)),
        }.items(),
        ids=lambda item: item[0],
    )
    def test_damage_is_named(self, tmp_path: Path, damaged: tuple[str, bytes]) -> None:
        path = tmp_path / "bad.safetensors"
        path.write_bytes(damaged[1])
        with pytest.raises(CheckpointError, match=re.escape(str(path))):
            storage.read_tensors(path)

    def test_missing_and_folders(self, tmp_path: Path) -> None:
        for path in (tmp_path / "none", tmp_path):
            with pytest.raises(CheckpointError, match=re.escape(str(path))):
                storage.read_tensors(path)

    @settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(
        edits=st.lists(
            st.tuples(st.integers(0, len(GOOD) - 1), st.integers(0, 255)), min_size=1, max_size=6
        ),
        cut=st.integers(0, len(GOOD)),
    )
    def test_mutations_are_read_or_refused(
        self, tmp_path: Path, edits: list[tuple[int, int]], cut: int
    ) -> None:
        data = bytearray(GOOD)
        for where, value in edits:
            data[where] = value
        path = tmp_path / "m.safetensors"
        for each in (bytes(data), bytes(data[:cut]), GOOD[:cut]):
            path.write_bytes(each)
            try:
                found = storage.read_tensors(path)
            except CheckpointError:
                continue
            assert all(isinstance(value, torch.Tensor) for value in found.values())


class TestJson:
    @pytest.mark.parametrize("value", [{}, [1, 2.5, None, "…"], {"a": {"b": [True]}}])
    def test_round_trip(self, tmp_path: Path, value: object) -> None:
        storage.write_json(tmp_path / "x.json", value)
        assert storage.read_json(tmp_path / "x.json") == value

    @pytest.mark.parametrize("data", [b"", b"{", b"\xff\xfe", b"[" * 200_000, b"1" * 5000])
    def test_damage(self, tmp_path: Path, data: bytes) -> None:
        path = tmp_path / "x.json"
        path.write_bytes(data)
        with pytest.raises(CheckpointError, match=re.escape(str(path))):
            storage.read_json(path)

    def test_too_large_is_not_read(self, tmp_path: Path) -> None:
        path = tmp_path / "x.json"
        path.write_text("[" + "1," * 60 + "1]", encoding="utf-8")
        with pytest.raises(CheckpointError, match="larger than 100 bytes"):
            storage.read_json(path, limit=100)

    @pytest.mark.parametrize("read", [storage.read_json, storage.read_tensors])
    def test_a_pipe_is_not_opened(self, tmp_path: Path, read: Callable[[Path], Any]) -> None:
        os.mkfifo(tmp_path / "pipe")
        with pytest.raises(CheckpointError, match="is a device, a pipe or a socket, not a file"):
            read(tmp_path / "pipe")

    def test_what_json_lacks_is_not_written(self, tmp_path: Path) -> None:
        with pytest.raises(ValueError, match="not JSON compliant"):
            storage.write_json(tmp_path / "x.json", float("nan"))
        assert not list(tmp_path.iterdir())


FILES = {"a.bin": b"a" * 3000, "b.bin": b"b" * 70_000, "c.json": b"{}"}


class TestFolders:
    def test_whole(self, tmp_path: Path) -> None:
        storage.write_folder(tmp_path / "f", FILES)
        storage.check_folder(tmp_path / "f")
        assert {p.name: p.read_bytes() for p in (tmp_path / "f").iterdir()}.items() > FILES.items()
        assert [p.name for p in tmp_path.iterdir()] == ["f"]

    def test_folders_inside(self, tmp_path: Path) -> None:
        inside = {"a/b/c.bin": b"1", "a/d.bin": b"2", "e.bin": b"3"}
        storage.write_folder(tmp_path / "f", inside)
        storage.check_folder(tmp_path / "f")
        assert {name: (tmp_path / "f" / name).read_bytes() for name in inside} == inside
        (tmp_path / "f" / "a" / "b" / "c.bin").write_bytes(b"4")
        with pytest.raises(CheckpointError, match=r"c\.bin was edited or is damaged"):
            storage.check_folder(tmp_path / "f")
        with pytest.raises(StorageError):
            storage.write_folder(tmp_path / "g", {"a": b"1", "a/b": b"2"})
        assert [p.name for p in tmp_path.iterdir()] == ["f"]

    @pytest.mark.parametrize("name", FILES)
    @pytest.mark.parametrize("how", ["flipped", "cut", "gone", "longer"])
    def test_damage_to_any_file_is_found(self, tmp_path: Path, name: str, how: str) -> None:
        folder = tmp_path / "f"
        storage.write_folder(folder, FILES)
        data = bytearray(FILES[name])
        data[0] ^= 1
        match how:
            case "flipped":
                (folder / name).write_bytes(data)
            case "cut":
                (folder / name).write_bytes(data[:-1])
            case "longer":
                (folder / name).write_bytes(FILES[name] + b"x")
            case _:
                (folder / name).unlink()
        with pytest.raises(CheckpointError, match=re.escape(name)):
            storage.check_folder(folder)

    @pytest.mark.parametrize(
        "manifest",
        [
            {},
            [],
            None,
            {"../outside": "0"},
            {"/etc/hostname": "0"},
            {"..": "0"},
            {"": "0"},
            {"nul\0": "0"},
            {"a.bin": 3},
            {"sub/a.bin": "0"},
            {"sub/../../outside": "0"},
            {"sub//a.bin": "0"},
        ],
    )
    def test_hostile_manifests(self, tmp_path: Path, manifest: object) -> None:
        (tmp_path / "outside").write_text("secret", encoding="utf-8")
        folder = tmp_path / "f"
        storage.write_folder(folder, FILES)
        (folder / storage.MANIFEST).write_text(json.dumps(manifest), encoding="utf-8")
        with pytest.raises(CheckpointError):
            storage.check_folder(folder)

    def test_sweep_takes_only_its_own(self, tmp_path: Path) -> None:
        """A run may lie in a folder with other things, such as a home."""
        kept = [".bashrc", ".tmux.conf", ".git.backup", ".x.tmp", "y.couette-tmp", "step_1"]
        for name in kept:
            (tmp_path / name).touch()
        (tmp_path / ".a.b" / ".c.d").mkdir(parents=True)
        (tmp_path / ".last.x1.couette-tmp").touch()
        (tmp_path / ".step.x2.couette-tmp").mkdir()
        (tmp_path / ".step.x2.couette-tmp" / "file").touch()
        storage.sweep(tmp_path)
        assert {p.name for p in tmp_path.iterdir()} == {*kept, ".a.b"}
        storage.sweep(tmp_path / "absent")


CALLS = ("write", "fsync", "replace", "rename", "mkdir")


Refuse = Callable[[int, int], None]


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch) -> Refuse:
    """Makes the operating system refuse from its k-th call on; removing stays possible."""

    def begin(count: int, number: int) -> None:
        def refuse() -> None:
            raise OSError(number, os.strerror(number))

        around = victims.from_call(count, refuse)
        for name in CALLS:
            monkeypatch.setattr(os, name, around(getattr(os, name)))

    return begin


class TestRefusals:
    """The disk may refuse at any call: what was there is there still, and nothing else is."""

    def test_a_file_is_as_it_was(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: Refuse
    ) -> None:
        path, refused = tmp_path / "x", 0
        storage.write_bytes(path, b"before")
        for k in range(100):
            failing(k, errno.ENOSPC)
            try:
                storage.write_bytes(path, b"after" * 50_000)
            except StorageError as error:
                refused += 1
                assert "the disk is full (0.2 MB are needed); free some space" in str(error)
                done = path.read_bytes() != b"before"
            else:
                done = True
            monkeypatch.undo()
            assert path.read_bytes() == (b"after" * 50_000 if done else b"before")
            assert [p.name for p in tmp_path.iterdir()] == ["x"]
            if done:
                break
        assert refused >= 3  # write, flush, rename

    def test_a_folder_is_whole_or_absent(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: Refuse
    ) -> None:
        refused = 0
        for k in range(100):
            failing(k, errno.ENOSPC)
            try:
                storage.write_folder(tmp_path / "f", FILES)
                break
            except StorageError:
                refused += 1
            finally:
                monkeypatch.undo()
            assert not list(tmp_path.iterdir())
        assert refused >= 3 * len(FILES)
        storage.check_folder(tmp_path / "f")

    @pytest.mark.parametrize(
        ("number", "words"),
        [
            (errno.ENOSPC, "the disk is full (1 kB are needed)"),
            (errno.EDQUOT, "the disk is full (1 kB are needed)"),
            (errno.EFBIG, "the disk is full (1 kB are needed)"),
            (errno.EROFS, "the disk is read-only; choose another place with --out"),
            (errno.EACCES, "permission is denied; choose another place with --out"),
            (errno.EIO, "choose another place with --out"),
        ],
    )
    def test_words(self, tmp_path: Path, failing: Refuse, number: int, words: str) -> None:
        failing(2, number)
        with pytest.raises(StorageError, match=re.escape(words)) as caught:
            storage.write_bytes(tmp_path / "x", b"123")
        assert str(caught.value).endswith(".") and "is intact" not in str(caught.value)
        (tmp_path / "before").touch()
        whole = pytest.raises(StorageError, match=r"What was saved is intact\.$")
        with whole, storage.explained(tmp_path / "x", 3):
            raise OSError(number, os.strerror(number))
        assert caught.value.exit_code == 2

    def test_a_file_in_place_of_a_folder(self, tmp_path: Path) -> None:
        (tmp_path / "file").touch()
        with pytest.raises(StorageError, match="choose another place"):
            storage.write_bytes(tmp_path / "file" / "x", b"1")
        with pytest.raises(StorageError, match="choose another place"):
            storage.write_folder(tmp_path / "file" / "x", FILES)

    def test_a_place_that_takes_no_files(self) -> None:
        with pytest.raises(StorageError):
            storage.write_bytes(Path("/proc/couette/x"), b"1")

    def test_an_interruption_leaves_nothing(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def stop(*args: object) -> None:
            raise KeyboardInterrupt

        monkeypatch.setattr(os, "fsync", stop)
        for write in (
            lambda: storage.write_bytes(tmp_path / "x", b"1"),
            lambda: storage.write_folder(tmp_path / "f", FILES),
        ):
            with pytest.raises(KeyboardInterrupt):
                write()
        assert not list(tmp_path.iterdir())


def test_a_real_limit_on_file_size(tmp_path: Path) -> None:
    storage.write_folder(tmp_path / "w" / "before", {"x": b"1"})
    code, out, errors = processes.finished(
        tmp_path, victims.folder_under_limit, tmp_path / "w" / "new", FILES
    )
    assert (code, errors) == (0, "")
    assert "the disk is full (73 kB are needed)" in out
    assert [p.name for p in (tmp_path / "w").iterdir()] == ["before"]
    storage.check_folder(tmp_path / "w" / "before")


FORBIDDEN = {
    r"\bimport (c?pickle|dill|shelve|marshal|joblib)\b": "pickles run code when they are read",
    r"\bfrom (c?pickle|dill|shelve|marshal|joblib)\b": "pickles run code when they are read",
    r"(?<!safetensors\.)\btorch\.(save|load)\(": "pickles and unpickles",
    r"allow_pickle\s*=\s*True": "unpickles",
    r"\byaml\.(load|unsafe_load|full_load|load_all)\(": "YAML tags run code; use safe_load",
    r"weights_only": "belongs to torch.load",
    r"(?<![.\w])(eval|exec)\(": "runs text",
    r"\bos\.system\(|shell\s*=\s*True": "runs text",
    r"trust_remote_code\s*=\s*True": "runs what was downloaded",
}


def test_nothing_is_ever_unpickled() -> None:
    sources = sorted((ROOT / "src").rglob("*.py"))
    assert len(sources) > 50
    found = [
        f"{path.relative_to(ROOT)}: {match.group()}: {why}"
        for path in sources
        for pattern, why in FORBIDDEN.items()
        for match in re.finditer(pattern, path.read_text(encoding="utf-8"))
    ]
    assert not found


@pytest.mark.parametrize(
    "sample",
    ["import pickle", "torch.load(f)", "np.load(f, allow_pickle=True)", "yaml.load(f)", "eval(x)"],
)
def test_the_gate_would_see_it(sample: str) -> None:
    assert any(re.search(pattern, sample) for pattern in FORBIDDEN)


def test_an_error_of_ours_is_an_error_of_ours() -> None:
    assert issubclass(StorageError, CouetteError)
    assert issubclass(CheckpointError, CouetteError)


def test_saved_by_safetensors_is_read(tmp_path: Path) -> None:
    """Another program's honest file, with its metadata, is taken."""
    path = tmp_path / "x.safetensors"
    safetensors.torch.save_file(TENSORS, path, metadata={"made": "elsewhere"})
    assert torch.equal(storage.read_tensors(path)["a"], TENSORS["a"])
