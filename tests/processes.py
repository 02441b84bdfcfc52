"""Work in processes of their own, cheaply: forked from a server that has imported torch already."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(
    ["pytest", "couette.api", "couette.cli.train", "couette.cli.sample"]
)
_LONGEST = 300.0


class Child:
    """A process that runs `target(*args)`; its output goes to files in `folder`."""

    def __init__(self, folder: Path, target: Callable[..., object], *args: object) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.out, self.err = folder / "stdout", folder / "stderr"
        self.process = _CONTEXT.Process(target=_run, args=(self.out, self.err, target, args))
        self.process.start()

    def wait(self) -> int:
        """The exit code; negative for the signal that killed it."""
        self.process.join(_LONGEST)
        code = self.process.exitcode
        if code is None:
            self.process.kill()
            self.process.join()
            raise AssertionError(f"still running after {_LONGEST} s: {self.errors}")
        self.process.close()
        return code

    def send(self, number: int) -> None:
        assert self.process.pid is not None
        os.kill(self.process.pid, number)

    def until(self, happened: Callable[[], bool]) -> None:
        """Wait until something can be seen from outside."""
        end = time.monotonic() + _LONGEST
        while not happened():
            assert self.process.is_alive(), f"it ended too early: {self.errors}"
            assert time.monotonic() < end, f"it never happened: {self.errors}"
            time.sleep(0.005)

    @property
    def output(self) -> str:
        return self.out.read_text(encoding="utf-8") if self.out.exists() else ""

    @property
    def errors(self) -> str:
        return self.err.read_text(encoding="utf-8") if self.err.exists() else ""


@contextlib.contextmanager
def child(folder: Path, target: Callable[..., object], *args: object) -> Iterator[Child]:
    """A `Child` that does not outlive the block."""
    begun = Child(folder, target, *args)
    try:
        yield begun
    finally:
        with contextlib.suppress(ValueError):  # it was waited for and closed
            begun.process.kill()
            begun.process.join()
            begun.process.close()


def finished(folder: Path, target: Callable[..., object], *args: object) -> tuple[int, str, str]:
    """Run to the end: exit code, stdout, stderr."""
    with child(folder, target, *args) as begun:
        code = begun.wait()
        return code, begun.output, begun.errors


def command(*arguments: object) -> None:
    """The command line, as its user runs it."""
    from couette.cli import main

    main([str(each) for each in arguments])


def command_paused(where: str, mark: Path, *arguments: object) -> None:
    """The command line, which pauses on first entering the function `where` ("module:Class.name").

    It makes the file `mark` there, and goes on once that is gone.
    """
    module, _, path = where.partition(":")
    owner, _, name = path.rpartition(".")
    holder: Any = import_module(module)
    holder = getattr(holder, owner) if owner else holder
    real = getattr(holder, name)

    def pausing(*args: Any, **kwargs: Any) -> Any:
        setattr(holder, name, real)
        mark.touch()
        while mark.exists():
            time.sleep(0.002)
        return real(*args, **kwargs)

    setattr(holder, name, pausing)
    command(*arguments)


def _run(out: Path, err: Path, target: Callable[..., object], args: tuple[object, ...]) -> None:
    import torch

    # The tests may run under nohup or in a shell's background, where these are ignored.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    for path, stream, number in ((out, sys.stdout, 1), (err, sys.stderr, 2)):
        stream.flush()
        with path.open("wb") as file:
            os.dup2(file.fileno(), number)
    torch.set_num_threads(1)
    try:
        target(*args)
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
