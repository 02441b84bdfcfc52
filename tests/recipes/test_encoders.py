"""Encoders of pictures and words: searched with, measured, and told to a model that draws."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

import couette
from couette import api
from couette.config import DataConfig, RunConfig, TextConfig, spec
from couette.data import open_data
from couette.errors import CheckpointError, ConfigError, InputError, WordsCut
from couette.model import READER, load_encoder, load_model, read_config
from couette.recipes.reading import reading, refuse_idle
from couette.runs import RunFolder, find_model
from recipes.test_text import folder
from small_runs import digests, losses, session

CAPTIONS = ("a red picture", "a green picture", "a blue picture, and quite a long caption")
CLIP: dict[str, Any] = {
    "network": "clip:width=16,depth=1,eye=8,embedding=8",
    "training": {"batch": 8, "save_every": 3},
}
TINY: dict[str, Any] = {
    "network": "unet:size=tiny,width=16,reading=1",
    "training": {"batch": 8, "save_every": 3},
    "sampling": {"steps": 2},
}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return folder(tmp_path_factory.mktemp("encoders") / "data", CAPTIONS, count=30)


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory, data: Path) -> Path:
    out = tmp_path_factory.mktemp("encoders") / "clip"
    settings = {**CLIP, "data": {"source": str(data), "holdout": 0.3}}
    losses(session(out, settings, recipe="clip", length={"steps": 30}))
    return out


def told(out: Path, data: Path, clip: Path | None, steps: int = 4) -> Any:
    text = {"encoder": "clip"} | ({} if clip is None else {"run": str(clip)})
    settings = {**TINY, "data": {"source": str(data)}, "text": text}
    return session(out, settings, recipe="text-to-pixels", length={"steps": steps})


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, data: Path, clip: Path) -> Path:
    out = tmp_path_factory.mktemp("encoders") / "run"
    losses(told(out, data, clip))
    return out


class TestEncoder:
    def test_its_pictures_and_its_card(self, clip: Path) -> None:
        assert list((clip / "samples").glob("step_*.png"))
        assert "couette search" in (clip / "README.md").read_text(encoding="utf-8")

    def test_search_finds_colours(self, clip: Path, data: Path) -> None:
        """Thirty steps tell three colours apart."""
        found = couette.search(clip, "a red picture", count=5)
        assert found.texts == ("a red picture",) * 5
        assert (found.pictures[:, 0] > found.pictures[:, 1:].amax(1)).all()
        assert list(found.near) == sorted(found.near, reverse=True)
        elsewhere = couette.search(clip, "a green picture", data, count=3)
        assert elsewhere.texts == ("a green picture",) * 3

    def test_searched_by_the_command(
        self, clip: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        from couette.cli import main

        out = tmp_path / "found.png"
        with pytest.raises(SystemExit) as stop:
            main(
                ["search", str(clip), "a red picture", "--count", "2", "--out", str(out), "--json"]
            )
        assert stop.value.code == 0
        answer = json.loads(capsys.readouterr().out)
        assert [each["text"] for each in answer["pictures"]] == ["a red picture"] * 2
        with Image.open(out) as image:
            assert image.width > 32

    def test_measured(self, clip: Path, tmp_path: Path) -> None:
        report, paths = api.evaluate(clip, out=tmp_path)
        assert report.json()["what"] == "encoder"
        assert report.json()["to_text"][1] > 0.8  # type: ignore[index]
        assert [path.name for path in paths] == ["report.json", "report.txt"]

    @pytest.mark.parametrize("settings", [{"guidance": 2.0}, {"count": 5}, {"likelihood": True}])
    def test_what_would_do_nothing_is_refused(self, clip: Path, settings: dict[str, Any]) -> None:
        with pytest.raises(InputError, match=f"draws nothing: {next(iter(settings))} would do"):
            api.evaluate(clip, **settings)

    @pytest.mark.parametrize(("words", "count"), [("  ", 3), ("red", 0)])
    def test_nothing_to_search(self, clip: Path, words: str, count: int) -> None:
        with pytest.raises(InputError):
            couette.search(clip, words, count=count)

    def test_it_draws_nothing(self, clip: Path) -> None:
        with pytest.raises(CheckpointError, match="an encoder of pictures and words; search"):
            couette.sample(clip, count=1)


class TestTold:
    def test_the_model_holds_the_encoder(self, run: Path, clip: Path) -> None:
        checkpoint = find_model(run)
        assert (checkpoint / READER).exists()
        model = load_model(checkpoint)
        words = model.conditioner.words
        assert words is not None and words.reader is not None and words.features == 16
        _, network, _ = load_encoder(find_model(clip))
        ids = words.tokenizer(["a red picture"], words.length)
        expected = network.eval().read(ids.ids, ids.mask)[0]
        torch.testing.assert_close(words(["a red picture"])["text"], expected.detach())
        assert str(clip) not in (checkpoint / "model.json").read_text(encoding="utf-8")

    def test_it_is_not_trained_on(self, run: Path, clip: Path) -> None:
        _, network, _ = load_encoder(find_model(clip))
        kept = load_model(find_model(run)).conditioner.words
        assert kept is not None and kept.reader is not None
        own = network.reader.state_dict()
        assert all(torch.equal(v, own[name]) for name, v in kept.reader.state_dict().items())

    def test_prompts_are_drawn(self, run: Path) -> None:
        drawn = couette.sample(run, count=2, prompt=["a red picture", "🦊"], seed=1)
        assert drawn.shape == (2, 3, 16, 16) and drawn.isfinite().all()
        plain = couette.sample(run, count=2, seed=1)
        assert torch.equal(couette.sample(run, count=2, prompt="", seed=1), plain)

    def test_part_of_the_way_to_other_words(self, run: Path) -> None:
        """Weight 0 is the prompt, 1 the other words of as many tokens; and in between."""
        model = couette.load(run)
        given = {"count": 2, "prompt": "a red picture", "seed": 2}
        both = ("a red picture", "a green picture")
        ends = [couette.sample(model, **{**given, "prompt": each}) for each in both]
        drawn = [
            couette.sample(model, **given, toward="a green picture", weight=weight)
            for weight in (0.0, 1.0, 0.5)
        ]
        torch.testing.assert_close(drawn[0], ends[0], rtol=0, atol=1e-5)
        torch.testing.assert_close(drawn[1], ends[1], rtol=0, atol=1e-5)
        assert (drawn[2] - ends[0]).abs().max() > 1e-4
        turns = couette.sample(model, **given, toward="a green picture", weight=(0.0, 1.0))
        torch.testing.assert_close(turns[0], ends[0][0], rtol=0, atol=1e-4)
        torch.testing.assert_close(turns[1], ends[1][1], rtol=0, atol=1e-4)
        with pytest.raises(InputError, match=r"between 0 and 1, not at 1\.5"):
            couette.sample(model, **given, toward="x", weight=1.5)
        with pytest.raises(InputError, match="how far to go toward other words"):
            couette.sample(model, **given, weight=0.5)

    def test_words_that_are_too_long_are_said(self, run: Path, clip: Path) -> None:
        long = "a red picture of a zebra in the snow"
        with pytest.warns(WordsCut, match="only 'a red picture of a' is read"):
            couette.sample(run, count=1, prompt=long, steps=2)
        with pytest.warns(WordsCut):
            couette.search(clip, long, count=1)
        with warnings.catch_warnings():
            warnings.simplefilter("error", WordsCut)
            couette.sample(run, count=1, prompt="a red picture", steps=2)

    def test_words_that_would_change_nothing(self, run: Path) -> None:
        with pytest.raises(InputError, match="changes nothing at guidance 1"):
            couette.sample(run, count=1, prompt="a", negative="b", guidance=1.0)
        with pytest.raises(InputError, match="3 prompts were given for 2 pictures"):
            couette.sample(run, count=2, prompt=["a", "b", "c"])
        with pytest.raises(InputError, match="2 weights were given for 1 pictures"):
            couette.sample(run, count=1, prompt="a", toward="b", weight=(0.0, 1.0))

    def test_resumed_to_the_bit_without_the_encoders_run(
        self, run: Path, data: Path, clip: Path, tmp_path: Path
    ) -> None:
        moved = tmp_path / "clip"
        moved.symlink_to(clip)
        losses(told(tmp_path / "part", data, moved), stop_after=3)
        moved.unlink()
        losses(session(tmp_path / "part", {}, resume=True))
        assert digests(tmp_path / "part") == digests(run)

    def test_what_is_refused(self, run: Path, data: Path, tmp_path: Path) -> None:
        config = TextConfig(encoder="clip")
        with pytest.raises(InputError, match="needs its run; train one with --recipe clip"):
            reading(config, open_data(DataConfig(source=str(data))).train, tmp_path / "none")
        with pytest.raises(CheckpointError, match="makes pictures"):
            told(tmp_path / "run", data, run)
        assert not (tmp_path / "run").exists()

    @pytest.mark.parametrize(
        "setting, given", [("length", 9), ("vocabulary", 300), ("tokenizer", "tokenizer.json")]
    )
    @pytest.mark.parametrize("recipe", ["text-to-pixels", "text-to-image"])
    def test_what_the_encoder_has_decided(
        self, clip: Path, data: Path, tmp_path: Path, recipe: str, setting: str, given: Any
    ) -> None:
        """Also where another stage, the autoencoder, would have been trained first."""
        own = read_config(find_model(clip)).text
        decided = getattr(own, setting) or "its own"
        text = {"encoder": "clip", "run": str(clip), setting: given}
        settings = {**TINY, "data": {"source": str(data)}, "text": text}
        with pytest.raises(ConfigError, match=f"--text.{setting} {given} .*{setting} {decided}"):
            session(tmp_path / "run", settings, recipe=recipe, length={"steps": 1})
        assert not (tmp_path / "run").exists()

    def test_an_encoder_that_would_not_be_used(
        self, clip: Path, data: Path, tmp_path: Path
    ) -> None:
        settings = {**TINY, "data": {"source": str(data)}, "text": {"run": str(clip)}}
        with pytest.raises(ConfigError, match="would change nothing: with the text encoder"):
            session(tmp_path / "run", settings, recipe="text-to-pixels", length={"steps": 1})
        assert not (tmp_path / "run").exists()

    def test_what_it_has_itself_is_no_contradiction(self, clip: Path) -> None:
        own = read_config(find_model(clip)).text
        same = {"length": own.length, "vocabulary": own.vocabulary}
        assert own.length != 0 and own.vocabulary != TextConfig().vocabulary
        refuse_idle(RunConfig(text=TextConfig(encoder="clip", run=str(clip), **same)))

    def test_what_it_sees_can_teach_an_autoencoder(
        self, data: Path, clip: Path, tmp_path: Path
    ) -> None:
        settings: dict[str, Any] = {
            "network": "vae:width=8",
            "data": {"source": str(data)},
            "training": {"batch": 8},
            "objective": spec("autoencoder", perceptual=0.5, run=str(clip)),
        }
        run = session(tmp_path / "run", settings, recipe="autoencoder", length={"steps": 2})
        losses(run)
        rows = [row for row in RunFolder(tmp_path / "run").metrics() if "loss" in row]
        assert rows[0]["perceptual"] > 0
        assert not any("features" in name for name in run.trainer.tensors())
        with pytest.raises(ConfigError, match="name it: --objective"):
            other = {**settings, "objective": spec("autoencoder", perceptual=0.5)}
            session(tmp_path / "other", other, recipe="autoencoder", length={"steps": 2})
