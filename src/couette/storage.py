"""Files that are whole or not there: atomic writes, safetensors with a checked header, JSON.

Nothing here is ever unpickled. A folder is written under a temporary name, each file flushed to the
disk and its SHA-256 entered in a manifest, and only then renamed to its own name; a power cut or a
kill at any moment leaves either the old state or the new one. Knows nothing of what it stores.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import safetensors.torch
from torch import Tensor

from couette.errors import CheckpointError, StorageError

MANIFEST = "manifest.json"
MAX_HEADER = 1_000_000
MAX_TENSORS = 20_000
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_TEMPORARY = ".couette-tmp"
"""The end of every temporary name: what `sweep` removes, and nothing of the user's."""


@contextmanager
def explained(path: Path, needed: int) -> Iterator[None]:
    """Turn the operating system's refusals while writing `needed` bytes into a StorageError."""
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            problem = f"the disk is full ({_amount(needed)} are needed); free some space"
        elif error.errno == errno.EROFS:
            problem = "the disk is read-only; choose another place with --out"
        elif error.errno in (errno.EACCES, errno.EPERM):
            problem = "permission is denied; choose another place with --out"
        else:
            problem = f"{error.strerror or error}; choose another place with --out"
        kept = " What was saved is intact." if _saved_beside(path) else ""
        raise StorageError(f"Can't write {path}: {problem}.{kept}") from error


def check_room(folder: Path, needed: int, what: str) -> None:
    """Refuse a disk without room for `needed` bytes; makes nothing.

    Args:
        folder: where they are to go; it need not exist yet.
        needed: how many.
        what: what they are, in the plural.

    Raises:
        StorageError: with both figures.
    """
    present = next(each for each in (folder, *folder.absolute().parents) if each.exists())
    with explained(folder, needed):
        free = shutil.disk_usage(present).free
    if free < needed:
        raise StorageError(
            f"{what} in {folder} will need {_amount(needed)}, and the disk has {_amount(free)} "
            "free; free some space, or choose another place with --out."
        )


def _saved_beside(path: Path) -> bool:
    """Whether something is there that a failed write has left as it was."""
    try:
        return path.exists() or any(not p.name.startswith(".") for p in path.parent.iterdir())
    except OSError:
        return False


def check_writable(folder: Path) -> None:
    """Refuse a folder that nothing can be written to, or that can't be made; makes nothing.

    Raises:
        StorageError: with the reason.
    """
    present = next(each for each in (folder, *folder.absolute().parents) if os.path.lexists(each))
    with explained(folder, 0):
        if not present.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, f"{present} is not a folder")
        if not os.access(present, os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))


def write_bytes(path: Path, data: bytes) -> None:
    """Write a file so that it is either whole or as it was before.

    Raises:
        StorageError: the disk is full, read-only or refuses; `path` is as it was.
    """
    with explained(path, len(data)):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(_TEMPORARY, f".{path.name}.", path.parent)
        try:
            with os.fdopen(handle, "wb") as file:
                _write_through(file.fileno(), data)
            Path(name).chmod(0o644)
            Path(name).replace(path)
        except BaseException:
            with suppress(OSError):
                Path(name).unlink(missing_ok=True)
            raise
        _sync_folder(path.parent)


def write_json(path: Path, value: Any) -> None:
    """Write a value as JSON, atomically. Raises StorageError as `write_bytes`."""
    write_bytes(path, json_bytes(value))


def json_bytes(value: Any) -> bytes:
    """A value as indented JSON. Raises ValueError for NaN and infinities, which JSON lacks."""
    return (json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode()


def read_text(path: Path, limit: int = 16_000_000) -> str:
    """Read a file of at most `limit` bytes as UTF-8.

    Raises:
        CheckpointError: the file is missing, too large, not text, or a device or a pipe.
    """
    try:
        if file_size(path) > limit:
            raise CheckpointError(f"{path} is larger than {limit} bytes; it is not ours.")
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise CheckpointError(f"{path} is missing; check the path.") from None
    except ValueError as error:
        raise CheckpointError(f"{path} is not valid UTF-8 ({error}); it is damaged.") from None
    except OSError as error:
        raise CheckpointError(f"{path} can't be read: {error.strerror}.") from None


def file_size(path: Path) -> int:
    """Bytes of a file; of what may never end there is no size.

    Raises:
        CheckpointError: it is a device, a pipe or a socket.
        OSError: it can't be read.
    """
    found = path.stat()
    if not (stat.S_ISREG(found.st_mode) or stat.S_ISDIR(found.st_mode)):
        raise CheckpointError(
            f"{path} is a device, a pipe or a socket, not a file, so it is not opened; put a file "
            "in its place."
        )
    return found.st_size


def read_json(path: Path, limit: int = 16_000_000) -> Any:
    """Read a JSON file of at most `limit` bytes.

    Raises:
        CheckpointError: the file is missing, too large or not JSON.
    """
    try:
        return json.loads(read_text(path, limit))
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} is not valid JSON ({error}); it is damaged.") from None


def tensor_bytes(tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None) -> bytes:
    """Tensors as one safetensors file, with words about them in its header where some are given."""
    dense = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    return safetensors.torch.save(dense, None if metadata is None else dict(metadata))


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Read a safetensors file whose header has been checked first.

    Raises:
        CheckpointError: the file is missing, damaged, or has a header that no honest file has.
    """
    try:
        check_header(path)
        return safetensors.torch.load_file(path)
    except FileNotFoundError:
        raise CheckpointError(f"{path} is missing; check the path.") from None
    except OSError as error:
        raise CheckpointError(f"{path} can't be read: {error.strerror}.") from None
    except (safetensors.SafetensorError, ValueError, KeyError, TypeError, RuntimeError) as error:
        raise CheckpointError(f"{path} is damaged ({error}); use another checkpoint.") from None


def check_header(path: Path) -> None:
    """Refuse a safetensors header that is oversized, repeats a name or points outside the file.

    Raises:
        CheckpointError: with what is wrong.
        OSError: the file can't be read.
    """
    size = file_size(path)
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if size < 8 or length > min(MAX_HEADER, size - 8):
            raise CheckpointError(f"{path} is not a whole safetensors file; use another one.")
        raw = file.read(length)
    try:
        header = json.loads(raw, object_pairs_hook=_without_duplicates)
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} has a damaged header ({error}).") from None
    if not isinstance(header, dict) or len(header) > MAX_TENSORS:
        raise CheckpointError(f"{path} has no usable header or over {MAX_TENSORS} tensors.")


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) != len(pairs):
        raise ValueError("a name stands twice")
    return fields


def write_folder(path: Path, files: Mapping[str, bytes]) -> None:
    """Write a folder of files with a manifest of their hashes, all or nothing.

    A name may lead into folders inside it, as "unet/config.json" does. A folder of the path's name
    that is there already goes first: keep another one meanwhile.

    Raises:
        StorageError: as `write_bytes`; nothing half written is left behind.
    """
    manifest = {name: hashlib.sha256(data).hexdigest() for name, data in files.items()}
    needed = sum(len(data) for data in files.values())
    with explained(path, needed):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(_TEMPORARY, f".{path.name}.", path.parent))
        try:
            for name, data in {**files, MANIFEST: json_bytes(manifest)}.items():
                (temporary / name).parent.mkdir(parents=True, exist_ok=True)
                with (temporary / name).open("wb") as file:
                    _write_through(file.fileno(), data)
            temporary.chmod(0o755)
            for folder in sorted({(temporary / name).parent for name in files} | {temporary}):
                _sync_folder(folder)
            if path.exists():
                shutil.rmtree(path)
            temporary.rename(path)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise
        _sync_folder(path.parent)


def check_folder(path: Path) -> None:
    """Compare a folder with its manifest.

    Raises:
        CheckpointError: a file is missing or differs.
    """
    manifest = read_json(path / MANIFEST)
    if not isinstance(manifest, dict) or not manifest:
        raise CheckpointError(f"{path / MANIFEST} is damaged; use another checkpoint.")
    for name, digest in manifest.items():
        if not _inside(name):
            raise CheckpointError(f"{path / MANIFEST} names a file outside its folder: {name!r}.")
        try:
            with (path / name).open("rb") as file:
                found = hashlib.file_digest(file, "sha256").hexdigest()
        except (OSError, ValueError):
            raise CheckpointError(f"{path} lacks {name!r}; use another checkpoint.") from None
        if found != digest:
            raise CheckpointError(
                f"{path / name} was edited or is damaged; use another checkpoint."
            )


def _inside(name: str) -> bool:
    """Whether a name leads into a folder or to a file in it, and nowhere else."""
    parts = name.split("/")
    return all(part not in ("", ".", "..") and Path(part).name == part for part in parts)


def sweep(parent: Path) -> None:
    """Remove what a killed writer left behind in `parent`: hidden temporary files and folders."""
    for left in parent.glob(f".*{_TEMPORARY}"):
        if left.is_dir() and not left.is_symlink():
            shutil.rmtree(left, ignore_errors=True)
        else:
            with suppress(OSError):
                left.unlink()


def _amount(count: int) -> str:
    """A number of bytes for people."""
    return f"{count / 1e6:.1f} MB" if count >= 100_000 else f"{max(1, round(count / 1e3))} kB"


def _write_through(handle: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(handle, view) :]
    os.fsync(handle)


def _sync_folder(path: Path) -> None:
    # Windows can't open a folder; there the rename itself is all that can be asked for.
    with suppress(OSError):
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
