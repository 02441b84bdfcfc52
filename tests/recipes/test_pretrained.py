"""Runs that are told words by a CLIP or T5 of transformers: opened, trained on, found again."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

import couette
from couette import api, interop
from couette.conditioners import Words
from couette.errors import CheckpointError, ConfigError, InputError
from couette.model import READER, TOKENIZER, load_model
from couette.runs import RunFolder, find_model
from interop import small_pipelines as small
from recipes.test_text import folder
from small_runs import digests, losses, session

transformers = small.transformers
CAPTIONS = ("a red cat", "", "two blue dogs and a cat", "zzé 🦊 <pad>")
TINY: dict[str, Any] = {
    "network": "unet:size=tiny,width=16,reading=1",
    "training": {"batch": 8, "save_every": 3},
    "sampling": {"steps": 2},
}


def saved(path: Path, model: Any, tokenizer: Any) -> Path:
    transformers.logging.disable_progress_bar()
    for each in filter(None, (model, tokenizer)):
        each.save_pretrained(path)
    return path


def seeing() -> dict[str, Any]:
    return {
        "hidden_size": 16,
        "intermediate_size": 24,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "image_size": 8,
        "patch_size": 4,
    }


def whole_clip() -> Any:
    """A CLIP of both towers, its words' that of `small.clip`."""
    words = small.clip()
    config = transformers.CLIPConfig(
        text_config=words.config.to_dict(), vision_config=seeing(), projection_dim=16
    )
    made = small.seeded(lambda: transformers.CLIPModel(config))
    made.text_model.load_state_dict(words.state_dict())
    return made


def whole_t5() -> Any:
    """A T5 of both halves, its encoder that of `small.t5`."""
    words = small.t5()
    config = transformers.T5Config(**{**words.config.to_dict(), "decoder_start_token_id": 0})
    made = small.seeded(lambda: transformers.T5ForConditionalGeneration(config))
    made.shared.load_state_dict(words.shared.state_dict())
    made.encoder.load_state_dict(words.encoder.state_dict())
    return made


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("pretrained")


@pytest.fixture(scope="module")
def data(place: Path) -> Path:
    return folder(place / "data", CAPTIONS)


@pytest.fixture(scope="module")
def clip(place: Path) -> Path:
    return saved(place / "clip", small.clip(), small.clip_tokenizer())


@pytest.fixture(scope="module")
def t5(place: Path) -> Path:
    return saved(place / "t5", small.t5(), small.t5_tokenizer())


def told(out: Path, data: Path, run: str | Path | None, **text: Any) -> Any:
    named = {} if run is None else {"run": str(run)}
    settings = {
        **TINY,
        "data": {"source": str(data)},
        "text": {"encoder": "pretrained", **named, **text},
    }
    return session(out, settings, recipe="text-to-pixels", length={"steps": 4})


@pytest.fixture(scope="module")
def run(place: Path, data: Path, clip: Path) -> Path:
    losses(told(place / "run", data, clip))
    return place / "run"


def theirs(model: Any, tokenizer: Any, caption: str) -> torch.Tensor:
    """What transformers itself makes of a caption by itself, without padding."""
    tokens = tokenizer([caption], return_tensors="pt")
    with torch.no_grad():
        found: torch.Tensor = model(**tokens).last_hidden_state[0]
    return found


class TestFeatures:
    @pytest.mark.parametrize("name", ["clip", "t5"])
    @pytest.mark.parametrize("caption", ["a red cat", "", "zzé <pad>"])
    def test_they_are_those_of_transformers(
        self, name: str, caption: str, request: pytest.FixtureRequest
    ) -> None:
        """Beside other captions, with padding, told twice; and nothing is told of padding."""
        opened = interop.open_words(request.getfixturevalue(name))
        words = Words(opened.tokenizer, 12, opened.encoder)
        expected = theirs(getattr(small, name)(), getattr(small, f"{name}_tokenizer")(), caption)
        count = len(expected)
        found = words(["a cat", caption, caption])
        assert found["text"].shape == (3, 12, 16) and found["text"].dtype == torch.float32
        assert found["text_mask"].sum(1).tolist()[1:] == [count] * 2
        torch.testing.assert_close(found["text"][1, :count], expected, rtol=0, atol=1e-5)
        assert torch.equal(found["text"][1], found["text"][2])
        assert not found["text"][1, count:].any()
        assert torch.equal(words(["a cat", caption, caption])["text"], found["text"])

    def test_long_captions_lose_their_ends(self, clip: Path) -> None:
        """CLIP reads from left to right: what is left is told as if nothing had been cut."""
        opened = interop.open_words(clip)
        assert opened.longest == 12 and opened.tokenizer.longest(["a cat", "a " * 20]) == 22
        tokens = opened.tokenizer(["a " * 20, "a cat"], 12)
        assert tokens.cut == 1 and tokens.mask.sum(1).tolist() == [12, 4]
        states = theirs(small.clip(), small.clip_tokenizer(), "a " * 10)
        words = Words(opened.tokenizer, 12, opened.encoder)
        torch.testing.assert_close(words(["a " * 20])["text"][0], states, rtol=0, atol=1e-5)

    def test_a_relative_folder_is_named_as_it_is_from_anywhere(
        self, clip: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (clip.parent / "beside").mkdir()
        monkeypatch.chdir(clip.parent / "beside")
        assert interop.open_words(f"../{clip.name}").described.source == str(clip)

    def test_where_words_lie(self, clip: Path, t5: Path) -> None:
        told = interop.open_words(clip).tokenizer.words("a red cat")
        assert told == [("a", (1,)), ("red", (2, 3, 4)), ("cat", (5,))]
        told = interop.open_words(t5).tokenizer.words("a red cat")
        assert told == [("a", (0, 1)), ("red", (2,)), ("cat", (3,))]

    @pytest.mark.parametrize("kind", ["whole", "projected", "pipeline"])
    def test_the_same_encoder_in_another_folder(
        self, kind: str, tmp_path: Path, clip: Path
    ) -> None:
        """By its digest, whatever it is held in."""
        if kind == "pipeline":
            small.stable(tmp_path)
            shutil.rmtree(tmp_path / "unet")
        elif kind == "whole":
            saved(tmp_path, whole_clip(), small.clip_tokenizer())
        else:
            made = small.clip(projected=True)
            made.text_model.load_state_dict(small.clip().state_dict())
            saved(tmp_path, made, small.clip_tokenizer())
        found = interop.open_words(tmp_path).described
        assert found.kind == "CLIPTextModel"
        assert found.digest == interop.open_words(clip).described.digest

    def test_the_encoder_of_a_whole_t5(self, tmp_path: Path, t5: Path) -> None:
        saved(tmp_path, whole_t5(), small.t5_tokenizer())
        found = interop.open_words(tmp_path).described
        assert found.kind == "T5EncoderModel"
        assert found.digest == interop.open_words(t5).described.digest

    def test_other_words_or_settings_are_another_encoder(self, tmp_path: Path, t5: Path) -> None:
        pieces = [*small.PIECES[:-1], ("▁dog", -1.5)]
        saved(tmp_path, small.t5(), transformers.T5Tokenizer(vocab=pieces, extra_ids=0))
        digest = interop.open_words(tmp_path).described.digest
        same = interop.open_words(t5).described.digest
        assert digest != same
        shutil.copytree(t5, tmp_path / "copy")
        assert interop.open_words(tmp_path / "copy").described.digest == same
        small.edited(tmp_path / "copy" / "config.json", feed_forward_proj="gated-silu")
        assert interop.open_words(tmp_path / "copy").described.digest != same


class TestRuns:
    def test_what_is_saved_and_drawn(self, run: Path, clip: Path) -> None:
        checkpoint = find_model(run)
        assert not (checkpoint / READER).exists() and not (checkpoint / TOKENIZER).exists()
        assert clip.name in (run / "README.md").read_text(encoding="utf-8")
        model = couette.load(run)
        kept = model.config.pretrained
        assert kept is not None and kept.source == str(clip) and kept.kind == "CLIPTextModel"
        assert model.conditioner.words is not None and model.conditioner.words.features == 16
        drawn = couette.sample(model, count=2, prompt=["a red cat", "🦊"], seed=1)
        assert drawn.shape == (2, 3, 16, 16) and drawn.isfinite().all()
        plain = couette.sample(model, count=2, seed=1)
        assert torch.equal(couette.sample(model, count=2, prompt="", seed=1), plain)
        assert not torch.equal(couette.sample(checkpoint, count=2, prompt="cat", seed=1), plain)
        halfway = couette.sample(model, count=1, prompt="a cat", toward="two dogs", weight=0.5)
        assert halfway.isfinite().all()

    def test_t5_in_a_run(self, data: Path, t5: Path, tmp_path: Path) -> None:
        made = told(tmp_path / "run", data, t5)
        assert any("of up to" in note for note in made.notes())
        losses(made)
        assert couette.sample(tmp_path / "run", count=1, prompt="a dog").isfinite().all()

    def test_what_is_said(self, data: Path, clip: Path, tmp_path: Path) -> None:
        notes = told(tmp_path / "run", data, clip).notes()
        assert f"words are told by {clip} (CLIPTextModel, 16 features a token), which is not " in (
            "\n".join(notes)
        )
        assert any("longer than 12 tokens and lose their ends; the encoder reads no" in n for n in
                   notes)  # fmt: skip
        with pytest.raises(ConfigError, match="up to 12 tokens, not 13; give a smaller --text"):
            told(tmp_path / "run", data, clip, length=13)

    def test_captions_are_not_encoded_in_steps(
        self, data: Path, clip: Path, tmp_path: Path
    ) -> None:
        made = told(tmp_path / "run", data, clip)
        calls: list[int] = []
        made.parts.reader.register_forward_pre_hook(lambda *given: calls.append(1))
        for _ in made.trainer.run():
            pass
        assert made.trainer.step == 4 and calls == []

    def test_resumed_to_the_bit_wherever_the_encoder_lies(
        self, run: Path, data: Path, clip: Path, tmp_path: Path
    ) -> None:
        moved, there = tmp_path / "clip", tmp_path / "there"
        shutil.copytree(clip, moved)
        losses(told(tmp_path / "part", data, moved), stop_after=3)
        moved.rename(there)
        with pytest.raises(CheckpointError, match=r"'.*clip', which can't be opened: There is no"):
            session(tmp_path / "part", {}, resume=True)
        losses(session(tmp_path / "part", {"text": {"run": str(there)}}, resume=True))
        assert digests(tmp_path / "part") == digests(run)
        assert RunFolder(tmp_path / "part").config().text.run == str(there)
        with pytest.raises(ConfigError, match="was begun with text"):
            session(tmp_path / "part", {"text": {"length": 5}}, resume=True)

    def test_another_encoder_is_refused(
        self, run: Path, tmp_path: Path, data: Path, clip: Path
    ) -> None:
        other = saved(tmp_path / "other", small.clip(seed=5), small.clip_tokenizer())
        said = "holds another encoder of words than the CLIPTextModel .* Put that back"
        with pytest.raises(CheckpointError, match=said):
            session(run, {"text": {"run": str(other)}}, resume=True)
        copy = tmp_path / "run"
        shutil.copytree(run, copy)
        settings = yaml.safe_load((copy / "config.yaml").read_text(encoding="utf-8"))
        settings["text"]["run"] = str(other)
        (copy / "config.yaml").write_text(yaml.safe_dump(settings), encoding="utf-8")
        with pytest.raises(CheckpointError, match=said):
            couette.sample(copy, count=1)

    def test_a_missing_encoder_is_named(self, run: Path, clip: Path, tmp_path: Path) -> None:
        """By itself a model looks where its model.json says."""
        alone = api.export(run, tmp_path / "model")
        assert couette.sample(alone, count=1, prompt="a cat").isfinite().all()
        described = json.loads((alone / "model.json").read_text(encoding="utf-8"))
        described["pretrained"]["source"] = str(tmp_path / "gone")
        (alone / "model.json").write_text(json.dumps(described), encoding="utf-8")
        with pytest.raises(CheckpointError, match=r"'.*gone', which can't be opened: .* Put it ba"):
            couette.sample(alone, count=1)
        described["pretrained"]["source"] = str(clip)
        described["text"]["encoder"] = "learned"
        (alone / "model.json").write_text(json.dumps(described), encoding="utf-8")
        with pytest.raises(ConfigError, match="put back the config"):
            couette.sample(alone, count=1)
        with pytest.raises(CheckpointError, match=r"open the model with couette\.load"):
            load_model(find_model(run))

    def test_as_onnx_it_is_refused(self, run: Path, tmp_path: Path) -> None:
        with pytest.raises(InputError, match="that is no part of it"):
            api.export(run, tmp_path / "graph", format="onnx")

    def test_fine_tuned_with_another(self, run: Path, data: Path, tmp_path: Path) -> None:
        other = saved(tmp_path / "other", small.clip(seed=5), small.clip_tokenizer())
        settings = {
            "data": {"source": str(data)},
            "text": {"encoder": "pretrained", "run": str(other)},
            "training": {"init": str(run)},
        }
        with pytest.raises(ConfigError, match=r"another encoder of words .* --text\.run NAME"):
            session(tmp_path / "run", settings, recipe="text-to-pixels", length={"steps": 2})


def no_tokenizer(path: Path) -> None:
    saved(path, small.clip(), None)


def only_eyes(path: Path) -> None:
    config = transformers.CLIPVisionConfig(**seeing())
    saved(path, transformers.CLIPVisionModel(config), small.clip_tokenizer())


def another_kind(path: Path) -> None:
    no_tokenizer(path)
    small.edited(path / "config.json", architectures=["BertModel"])


def pickled(path: Path) -> None:
    saved(path, small.clip(), small.clip_tokenizer())
    (path / "model.safetensors").unlink()
    (path / "pytorch_model.bin").write_bytes(b"\x80\x04.")


def code_of_its_own(path: Path) -> None:
    saved(path, whole_clip(), small.clip_tokenizer())
    settings = json.loads((path / "config.json").read_text(encoding="utf-8"))
    settings["text_config"]["auto_map"] = {"AutoModel": "evil.Model"}
    (path / "config.json").write_text(json.dumps(settings), encoding="utf-8")


def wrong_settings(path: Path) -> None:
    saved(path, small.clip(), small.clip_tokenizer())
    small.edited(path / "config.json", vocab_size="many")


def other_shapes(path: Path) -> None:
    saved(path, small.clip(), small.clip_tokenizer())
    small.edited(path / "config.json", vocab_size=10**9)


def without_words(path: Path) -> None:
    small.pixels(path)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (no_tokenizer, "holds no tokenizer"),
        (only_eyes, "'CLIPVisionModel', which sees pictures and reads no words"),
        (another_kind, "a 'BertModel', and words are told by none such"),
        (pickled, "a pickle, which may run code"),
        (code_of_its_own, "'auto_map', which asks for code"),
        (wrong_settings, "that they should not"),
        (other_shapes, "do not fit its config"),
        (without_words, "a 'DDPMPipeline' without an encoder of words"),
        (lambda path: path.mkdir(), "config.json is missing"),
        (lambda path: None, "There is no folder"),
        (lambda path: path.write_bytes(b""), "There is no folder"),
    ],
)
def test_what_is_refused(
    make: Callable[[Path], None], said: str, data: Path, tmp_path: Path
) -> None:
    make(tmp_path / "encoder")
    with pytest.raises(CheckpointError, match=said):
        told(tmp_path / "run", data, tmp_path / "encoder")
    assert not (tmp_path / "run").exists()


def test_what_names_no_encoder(data: Path, run: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="needs a name; give a folder with a CLIP or a T5"):
        told(tmp_path / "run", data, None)
    with pytest.raises(CheckpointError, match=r"a run of Couette's; .* --text\.encoder clip"):
        told(tmp_path / "run", data, run)


def test_without_the_package(
    data: Path, clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "transformers", None)
    with pytest.raises(ConfigError, match=r"transformers.*pip install 'couette\[diffusers\]'"):
        told(tmp_path / "run", data, clip)


def test_refused_before_other_stages(data: Path, tmp_path: Path) -> None:
    settings = {"data": {"source": str(data)}, "text": {"encoder": "pretrained", "run": "/gone"}}
    with pytest.raises(CheckpointError, match="There is no folder /gone"):
        session(tmp_path / "run", settings, recipe="text-to-image", length={"steps": 2})
    assert not (tmp_path / "run").exists()
