"""Runs that read captions: what is kept of them, what is said of them, and what is drawn."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from couette import api, generate
from couette.cli import main
from couette.data.tokenizer import Tokenizer
from couette.errors import CheckpointError, ConfigError, DataError, InputError
from couette.model import TOKENIZER, load_model
from couette.render import read_text
from couette.runs import RunFolder, find_model
from small_runs import digests, losses, session

TINY: dict[str, Any] = {
    "network": "unet:size=tiny,width=16,reading=1",
    "training": {"batch": 8, "save_every": 3},
    "sampling": {"steps": 2},
}
CAPTIONS = ("a red picture", "a green picture", "", "a blue picture, and quite a long caption")


def folder(path: Path, captions: tuple[str | None, ...] = CAPTIONS, count: int = 16) -> Path:
    """Pictures of one colour each, 16 px, with metadata.jsonl."""
    path.mkdir(parents=True)
    rows = []
    for i in range(count):
        pixels = np.zeros((16, 16, 3), dtype=np.uint8)
        pixels[..., i % 3] = 100 + i
        Image.fromarray(pixels).save(path / f"{i:02}.png")
        text = captions[i % len(captions)]
        rows.append({"file_name": f"{i:02}.png"} | ({} if text is None else {"text": text}))
    lines = "\n".join(map(json.dumps, rows))
    (path / "metadata.jsonl").write_text(lines, encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return folder(tmp_path_factory.mktemp("words") / "data")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, data: Path) -> Path:
    out = tmp_path_factory.mktemp("words") / "run"
    settings = {**TINY, "data": {"source": str(data)}}
    losses(session(out, settings, recipe="text-to-pixels", length={"steps": 4}))
    return out


def prepared(tmp_path: Path, source: Path, **text: Any) -> Any:
    settings = {**TINY, "data": {"source": str(source)}, "text": text}
    return session(tmp_path / "run", settings, recipe="text-to-pixels", length={"steps": 2})


def test_it_is_no_encoder(run: Path, data: Path) -> None:
    with pytest.raises(CheckpointError, match=r"not an encoder .*; train one with --recipe clip"):
        api.search(run, "red", data)


class TestWhatIsKept:
    def test_the_tokenizer_goes_with_the_model(self, run: Path) -> None:
        checkpoint = find_model(run)
        model = load_model(checkpoint)
        kept = Tokenizer((checkpoint / TOKENIZER).read_text(encoding="utf-8"))
        assert model.config.text.vocabulary == kept.size
        assert model.conditioner.words is not None
        assert model.conditioner.words.length == model.config.text.length > 5

    def test_a_checkpoint_without_it_or_with_another(self, run: Path, tmp_path: Path) -> None:
        copy = tmp_path / "model"
        copy.mkdir()
        for path in find_model(run).iterdir():
            (copy / path.name).write_bytes(path.read_bytes())
        other = Tokenizer.learned(["other words are here"] * 9, 400)
        (copy / TOKENIZER).write_text(other.text, encoding="utf-8")
        with pytest.raises(CheckpointError, match="put back the one that was saved with it"):
            load_model(copy)
        (copy / TOKENIZER).write_text("{", encoding="utf-8")
        with pytest.raises(CheckpointError, match="is damaged"):
            load_model(copy)
        (copy / TOKENIZER).unlink()
        with pytest.raises(CheckpointError, match="is missing"):
            load_model(copy)

    def test_resumed_to_the_bit(self, run: Path, data: Path, tmp_path: Path) -> None:
        settings = {**TINY, "data": {"source": str(data)}}
        part = session(tmp_path, settings, recipe="text-to-pixels", length={"steps": 4})
        losses(part, stop_after=3)
        losses(session(tmp_path, {}, resume=True))
        assert digests(tmp_path) == digests(run)

    def test_other_words_are_another_run(self, run: Path) -> None:
        before = digests(run)
        with pytest.raises(ConfigError, match="was begun with text"):
            session(run, {"text": {"length": 9}}, resume=True)
        assert digests(run) == before


class TestWhatIsSaid:
    def test_of_missing_and_long_captions(self, data: Path, tmp_path: Path) -> None:
        notes = prepared(tmp_path, data, length=8).notes()
        assert any("pictures have no caption and teach without one: " in note for note in notes)
        assert any("captions are longer than 8 tokens" in note for note in notes)

    def test_missing_captions_refused_where_asked(self, data: Path, tmp_path: Path) -> None:
        with pytest.raises(DataError, match=r"have no caption \(.*\); write them, or train"):
            prepared(tmp_path, data, missing="refuse")
        assert not (tmp_path / "run").exists()

    def test_no_captions_at_all(self, tmp_path: Path) -> None:
        source = folder(tmp_path / "data", (None,))
        with pytest.raises(DataError, match="has no captions to read"):
            prepared(tmp_path, source)

    def test_one_caption_for_all(self, tmp_path: Path) -> None:
        source = folder(tmp_path / "data", ("a picture",))
        assert "All captions are the same" in "\n".join(prepared(tmp_path, source).notes())

    def test_captions_that_nobody_reads(self, data: Path, tmp_path: Path) -> None:
        plain = session(tmp_path / "run", {"data": {"source": str(data)}}, length={"steps": 1})
        assert "The captions are not read; --recipe text-to-image does." in plain.notes()
        assert not any("not read" in note for note in prepared(tmp_path, data).notes())

    def test_a_network_that_reads_nothing(self, data: Path, tmp_path: Path) -> None:
        settings = {**TINY, "data": {"source": str(data)}, "network": "basic"}
        with pytest.raises(ConfigError, match="'basic' reads no captions"):
            session(tmp_path / "run", settings, recipe="text-to-pixels", length={"steps": 1})

    def test_a_tokenizer_that_is_given(self, data: Path, tmp_path: Path) -> None:
        given = Tokenizer.learned(["a red picture"] * 3, 270)
        path = tmp_path / "mine.json"
        path.write_text(given.text, encoding="utf-8")
        made = prepared(tmp_path, data, tokenizer=str(path))
        assert made.model_config.text.vocabulary == given.size
        with pytest.raises(InputError, match="no tokenizer in"):
            prepared(tmp_path, data, tokenizer=str(tmp_path / "none.json"))


class TestWhatIsDrawn:
    @pytest.mark.filterwarnings("ignore::couette.errors.WordsCut")  # unknown words take many tokens
    def test_prompts_are_taken_in_turn(self, run: Path) -> None:
        model = api.load(run)
        asked = generate.ask(model, 3, prompt=["red", "🦊 ünknown"])
        assert [each.words for each in asked] == ["red", "🦊 ünknown", "red"]
        both = api.sample(model, count=3, prompt=["a red picture", "🦊 ünknown"])
        alone = api.sample(model, count=1, prompt="a red picture")
        torch.testing.assert_close(both[:1], alone, rtol=0, atol=1e-4)
        assert both.shape == (3, 3, 16, 16) and both.isfinite().all()

    def test_an_empty_prompt_is_none(self, run: Path) -> None:
        model = api.load(run)
        plain = api.sample(model, count=2)
        assert torch.equal(api.sample(model, count=2, prompt=""), plain)

    def test_guided_away_from_words(self, run: Path) -> None:
        """Guidance 0 draws the negative prompt itself, and "" is the unconditional."""
        model = api.load(run)
        away = api.sample(model, count=2, prompt="red", negative="a green picture", guidance=0.0)
        green = api.sample(model, count=2, prompt="a green picture", guidance=1.0)
        torch.testing.assert_close(away, green, rtol=0, atol=1e-4)

    def test_words_for_a_model_without(self, tmp_path: Path) -> None:
        losses(session(tmp_path, {"data": {"source": "moons", "limit": 64},
            "network": "points:hidden=8,depth=1"}, length={"steps": 1}))  # fmt: skip
        for settings in ({"prompt": "a dog"}, {"negative": "a dog"}):
            with pytest.raises(InputError, match="trained without captions"):
                api.sample(tmp_path, count=1, **settings)

    def test_between_tokens_there_is_nothing(self, run: Path) -> None:
        with pytest.raises(InputError, match="needs a model that was told an encoder's features"):
            api.sample(run, count=1, prompt="a red picture", toward="a green picture")

    def test_captions_are_what_guidance_needs(self, run: Path) -> None:
        """The model of a run keeps its guidance: it has no classes, but it reads."""
        assert api.load(run).config.sampling.guidance == 3.0
        assert RunFolder(run).config().sampling.guidance == 3.0

    def test_words_are_kept_in_the_picture(self, run: Path, tmp_path: Path) -> None:
        """As the web UIs write them, and in ours; names tell them, too."""
        asked = ["sample", str(run), "--count", "2", "--prompt", "a red picture", "blue / green"]
        with pytest.raises(SystemExit) as stop:
            main([*asked, "--negative", "green", "--out", str(tmp_path / "sheet.png")])
        assert stop.value.code == 0
        text = read_text(tmp_path / "sheet.png")
        first, second, rest = text["parameters"].split("\n")
        assert first == "a red picture | blue / green"
        assert second == "Negative prompt: green"
        assert rest.startswith("Steps: 2, Sampler: dpmpp-2m")
        own = json.loads(text["couette"])
        assert own["prompts"] == ["a red picture", "blue / green"]
        assert own["sampling"]["negative"] == "green"
        with pytest.raises(SystemExit):
            main(asked)
        (made,) = (run / "pictures").iterdir()
        assert made.name == "seed0-a_red_picture-and1more-2.png"
