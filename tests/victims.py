"""What runs in the processes that tests kill, starve and interrupt."""

from __future__ import annotations

import os
import resource
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

from couette import storage
from couette.errors import StorageError
from couette.runs import RunFolder
from processes import command

Around = Callable[[Callable[..., Any]], Callable[..., Any]]


def files(step: int) -> dict[str, bytes]:
    """A checkpoint whose every file tells its step."""
    word = f"{step} ".encode()
    return {"a.bin": word * 4000, "b.bin": word * 9000, "model.json": word}


def from_call(count: int, act: Callable[[], None]) -> Around:
    """A wrapper for several functions: from their k-th call on, all together, `act` comes first."""
    calls = iter(range(1_000_000))

    def around(real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            if next(calls) >= count:
                act()
            return real(*args, **kwargs)

        return call

    return around


def save_for_ever(path: Path) -> None:
    run, step = RunFolder(path), 1
    while True:
        run.save(step, files(step), 2)
        step += 1


def save_and_die(path: Path, count: int) -> None:
    """Save step 2; SIGKILL at the k-th call that changes the disk."""
    around = from_call(count, lambda: os.kill(os.getpid(), signal.SIGKILL))
    for name in ("write", "fsync", "mkdir", "replace", "rename", "unlink", "rmdir", "open"):
        setattr(os, name, around(getattr(os, name)))
    RunFolder(path).save(2, files(2), 1)


def limited(bytes_: int) -> None:
    """From now on no file of this process grows beyond this: what a full quota does."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (bytes_, bytes_))


def folder_under_limit(folder: Path, contents: dict[str, bytes]) -> None:
    limited(10_000)
    try:
        storage.write_folder(folder, contents)
    except StorageError as error:
        print(error)


def append_under_limit(path: Path) -> None:
    limited(1000)
    run = RunFolder(path)
    try:
        for step in range(100):
            run.append({"step": step, "word": "…" * 20})
    except StorageError as error:
        print(error)


def command_under_limit(bytes_: int, *arguments: object) -> None:
    """The command line on a disk that takes no file larger than this."""
    limited(bytes_)
    command(*arguments)
