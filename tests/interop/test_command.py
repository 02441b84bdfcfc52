"""The command line on a folder in diffusers' layout, from its start to a picture."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from couette.cli import main
from interop import small_pipelines as small


def run(*words: str) -> int:
    with pytest.raises(SystemExit) as stop:
        main(list(words))
    return int(stop.value.code or 0)


@pytest.fixture(scope="module")
def stable(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pipelines") / "stable"
    small.stable(folder)
    return folder


def test_sample(stable: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--prompt", "a red cat", "--negative", "dog", "--count", "2", "--steps", "3"]
    assert run("sample", str(stable), *words, "--device", "cpu", "--json") == 0
    (path,) = json.loads(capsys.readouterr().out)["paths"]
    assert Path(path).parent == stable / "pictures"
    with Image.open(path) as sheet:
        told = json.loads(sheet.info["couette"])
        assert sheet.info["parameters"].startswith("a red cat\nNegative prompt: dog\nSteps: 3")
    assert told["recipe"] == "diffusers"
    assert told["prompts"] == ["a red cat"] * 2
    assert told["sampling"]["guidance"] == 7.5
    assert told["weights"] is None


def test_show(stable: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = ["--out", str(tmp_path), "--device", "cpu"]
    assert run("show", str(stable), "reverse", "--steps", "3", *out) == 0
    assert list(tmp_path.glob("*reverse*"))
    capsys.readouterr()
    assert run("show", str(stable), "attention", "--prompt", "cat", *out) == 2
    assert "looks into networks that were trained here" in capsys.readouterr().err


def test_list(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("list", "worlds") == 0
    assert "StableDiffusion3Pipeline" in capsys.readouterr().out


def test_eval_needs_data(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    small.pixels(tmp_path)
    assert run("eval", str(tmp_path), "--device", "cpu") == 2
    assert "say which data to measure with" in capsys.readouterr().err


@pytest.mark.slow
def test_eval(tmp_path: Path) -> None:
    small.pixels(tmp_path / "pixels")
    words = ["--count", "4", "--steps", "2", "--device", "cpu"]
    assert run("eval", str(tmp_path / "pixels"), "digits", *words) == 0
    assert (tmp_path / "pixels/evaluation").is_dir()


def test_a_refusal_is_one_sentence(
    stable: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "model_index.json").write_text('{"_class_name": "KandinskyPipeline"}')
    assert run("sample", str(tmp_path)) == 2
    told = capsys.readouterr().err
    assert told.startswith("couette: ") and told.count("\n") == 1
    assert "is a 'KandinskyPipeline', which is none of the kinds that can be loaded" in told
    assert run("sample", str(stable), "--label", "3") == 2
    assert "reads words and knows no labels" in capsys.readouterr().err
