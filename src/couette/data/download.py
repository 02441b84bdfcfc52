"""Fetching a file that is known by its digest, from the first mirror that has it whole."""

from __future__ import annotations

import hashlib
import os
import tempfile
import urllib.error
import urllib.request
from collections.abc import Callable
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from typing import NamedTuple

from couette.data.dataset import Progress
from couette.errors import DataError, StorageError

_CHUNK = 1 << 18
_SECONDS = 30.0


class Remote(NamedTuple):
    """A file to fetch.

    Attributes:
        name: what it is called on the disk.
        md5: its digest, as its publisher states it.
        urls: where it can be had, in order of preference.
        most: more bytes than this are refused.
    """

    name: str
    md5: str
    urls: tuple[str, ...]
    most: int = 1 << 30


def fetch(
    remote: Remote, folder: Path, progress: Progress | None = None, *, seconds: float = _SECONDS
) -> Path:
    """The file in `folder`, fetched unless it is there and whole.

    It appears under its name only when it is complete and its digest is right.

    Args:
        remote: what to fetch.
        folder: where it goes; made where it does not exist.
        progress: told how many bytes have come.
        seconds: the longest silence that is waited for.

    Raises:
        DataError: no mirror gave the right file; says why for each.
        StorageError: the disk refuses it.
    """
    path = folder / remote.name
    if path.is_file() and _digest(path) == remote.md5:
        return path
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=folder, prefix=f".{remote.name}.")
    except OSError as error:
        raise _refused(folder, error) from error
    temporary = Path(name)
    reasons = []
    try:
        os.close(handle)
        for url in remote.urls:
            try:
                _try(url, remote, temporary, progress, seconds)
            except (OSError, HTTPException, _Wrong) as error:
                reasons.append(f"{url}: {_why(error)}")
            else:
                temporary.replace(path)
                return path
    finally:
        temporary.unlink(missing_ok=True)
    raise DataError(
        f"'{remote.name}' could not be fetched ({'; '.join(reasons)}). Check the network, or put "
        f"the file into '{folder}' by hand."
    )


class _Wrong(Exception):
    """What came is not what was asked for."""


def _try(url: str, remote: Remote, target: Path, progress: Progress | None, seconds: float) -> None:
    digest, done = hashlib.md5(usedforsecurity=False), 0
    request = urllib.request.Request(url, headers={"User-Agent": "couette"})
    with urllib.request.urlopen(request, timeout=seconds) as answer:
        total = int(answer.headers.get("Content-Length") or 0)
        with _writer(target) as write:
            while chunk := _read(answer):
                done += len(chunk)
                if done > remote.most:
                    raise _Wrong(f"it is larger than {remote.most:,} bytes")
                digest.update(chunk)
                write(chunk)
                if progress:
                    progress(f"fetching {remote.name}", done, max(total, done))
    if digest.hexdigest() != remote.md5:
        raise _Wrong(f"its MD5 is {digest.hexdigest()}, not {remote.md5}")


def _read(answer: HTTPResponse) -> bytes:
    return answer.read(_CHUNK)


class _writer:
    """Writes to a file, to the disk at the end; what the disk refuses becomes a StorageError."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __enter__(self) -> Callable[[bytes], None]:
        self.file = self.path.open("wb")
        return self._write

    def _write(self, chunk: bytes) -> None:
        try:
            self.file.write(chunk)
        except OSError as error:
            raise _refused(self.path.parent, error) from error

    def __exit__(self, *error: object) -> None:
        try:
            self.file.flush()
            os.fsync(self.file.fileno())
        except OSError as fault:
            raise _refused(self.path.parent, fault) from fault
        finally:
            self.file.close()


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def _why(error: Exception) -> str:
    if isinstance(error, urllib.error.HTTPError):
        return f"HTTP {error.code} {error.reason}"
    if isinstance(error, urllib.error.URLError):
        return str(error.reason)
    return str(error) or type(error).__name__


def _refused(folder: Path, error: OSError) -> StorageError:
    return StorageError(
        f"The download can't be kept in '{folder}': {error.strerror or error}. Free some space, or "
        "set COUETTE_DATA to a folder that can be written."
    )
