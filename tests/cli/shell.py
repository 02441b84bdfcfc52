"""The command line in this process, for its tests."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import pytest

from couette.cli import main


@dataclass
class Result:
    code: int
    out: str
    err: str


class Shell:
    """The command line in this process, in a folder of its own."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self.capsys = capsys

    def __call__(self, *arguments: object) -> Result:
        self.capsys.readouterr()
        with pytest.raises(SystemExit) as caught:
            main([str(each) for each in arguments])
        out, err = self.capsys.readouterr()
        code = caught.value.code
        return Result(code if isinstance(code, int) else 1, out, err)

    def refused(self, *arguments: object) -> str:
        """Exit code 2, a sentence on stderr, no file made or changed."""
        before = files(Path())
        result = self(*arguments)
        assert result.code == 2, result
        assert "Traceback" not in result.err
        assert files(Path()) == before
        return result.err


def unwrapped(text: str) -> str:
    """A help text as one line, without its boxes."""
    return re.sub(r"[\s│|]+", " ", text)


def files(folder: Path) -> dict[Path, bytes]:
    return {p: p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}
