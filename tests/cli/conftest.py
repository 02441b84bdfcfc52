"""A shell in a folder of its own, and two small runs to call on."""

from __future__ import annotations

from pathlib import Path

import pytest

from cli.shell import Shell
from small_runs import FAST, losses, session


@pytest.fixture
def shell(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Shell:
    monkeypatch.chdir(tmp_path)
    return Shell(capsys)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two runs of a step each: `labelled` pictures, and `plain` ones without labels."""
    folder = tmp_path_factory.mktemp("runs")
    for name, drop in (("labelled", 0.1), ("plain", 1.0)):
        settings = {
            **FAST,
            "data": {"source": "digits", "limit": 40, "resolution": 8},
            "network": "unet:size=tiny,width=8",
            "diffusion": {"drop": drop},
            "training": {"batch": 8},
        }
        losses(session(folder / name, settings, length={"steps": 1}))
    return folder
