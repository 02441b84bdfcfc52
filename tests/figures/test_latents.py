"""What an autoencoder keeps; and words in the figures of models that read them."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from couette.errors import InputError, ShapeError, WordsCut
from couette.figures import draw, pictures, resolve, topics_for
from couette.figures.alike import SENTENCES
from couette.figures.latents import between
from couette.registry import RECIPES
from couette.render import matrix
from couette.runs import RunFolder
from recipes.test_text import TINY, folder
from small_runs import POINTS, losses, session

DATA = {"source": "digits", "limit": 40}


@pytest.fixture(scope="module")
def autoencoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("latents") / "variational"
    settings = {"data": DATA, "network": "vae:width=8", "training": {"batch": 8}}
    losses(session(out, settings, recipe="autoencoder", length={"steps": 2}))
    return out


def test_even_steps_between_pairs() -> None:
    z = torch.tensor([0.0, 3.0, 10.0, 4.0]).reshape(4, 1, 1, 1)
    expected = [0, 1, 2, 3, 10, 8, 6, 4]
    assert between(z, 4).flatten().tolist() == pytest.approx(expected)


def test_three_sheets(autoencoder: Path, tmp_path: Path) -> None:
    shown = draw(resolve(str(autoencoder)), "latents", {"columns": 4, "rows": 2}, tmp_path)
    names = ["reconstructions", "interpolations", "random"]
    assert [each.path.name for each in shown] == [f"latents-{name}.png" for name in names]
    about = ("what comes back of it", "even steps from", "random latents")
    assert all(words in each.notes[0] for words, each in zip(about, shown, strict=True))
    assert "a variational autoencoder, latents of (4, 4, 4)" in shown[0].notes[1]


def test_two_beside_each_other(autoencoder: Path, tmp_path: Path) -> None:
    plain = tmp_path / "plain"
    settings = {"data": DATA, "network": "vae:width=8,variational=false", "training": {"batch": 8}}
    losses(session(plain, settings, recipe="autoencoder", length={"steps": 1}))
    one = pictures(resolve(str(autoencoder)), "latents", {"columns": 4, "rows": 2})
    two = pictures(
        resolve(str(autoencoder)), "latents", {"columns": 4, "rows": 2, "beside": (str(plain),)}
    )
    assert two[0].image.width > 1.8 * one[0].image.width
    assert "plain: a plain autoencoder" in two[0].notes[2]


def test_of_a_saved_one_with_data_that_are_named(autoencoder: Path, tmp_path: Path) -> None:
    alone = tmp_path / "saved"
    shutil.copytree(sorted((autoencoder / "checkpoints").iterdir())[-1], alone)
    shown = pictures(resolve(str(alone), data="digits"), "latents", {"columns": 4, "rows": 2})
    assert "saved: a variational autoencoder, latents of (4, 4, 4)" in shown[0].notes[1]
    with pytest.raises(InputError, match="name them with --data"):
        pictures(resolve(str(alone)), "latents")


def test_what_is_shown_of_it_by_itself(autoencoder: Path) -> None:
    assert topics_for(resolve(str(autoencoder)), usual=True) == ["loss", "latents"]
    with pytest.raises(InputError, match="is an autoencoder: show its 'latents'"):
        pictures(resolve(str(autoencoder)), "sheet")


@pytest.mark.parametrize("topic", ["latents", "noising", "predictions"])
def test_of_a_model_of_latents(autoencoder: Path, tmp_path: Path, topic: str) -> None:
    """Its own autoencoder is shown, and pictures on their way are decoded."""
    settings = {
        "data": DATA,
        "network": "unet:size=tiny,width=8",
        "codec": f"latent:run={autoencoder}",
    }
    losses(session(tmp_path / "run", settings, length={"steps": 1}))
    target = resolve(str(tmp_path / "run"))
    for drawn in pictures(target, topic, {} if topic == "predictions" else {"rows": 2}):
        assert min(drawn.image.size) > 40


def test_of_what_is_none(tmp_path: Path) -> None:
    losses(session(tmp_path, POINTS, length={"steps": 1}))
    with pytest.raises(InputError, match="needs an autoencoder"):
        pictures(resolve(str(tmp_path)), "latents")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    base = tmp_path_factory.mktemp("words")
    settings = {**TINY, "data": {"source": str(folder(base / "data"))}}
    losses(session(base / "run", settings, recipe="text-to-pixels", length={"steps": 2}))
    return base / "run"


class TestWords:
    @pytest.mark.parametrize("topic", ["sheet", "steps", "reverse", "real"])
    def test_are_drawn(self, run: Path, topic: str) -> None:
        given = {"count": 4, "steps": 2, "prompt": ("a red picture", "🦊")}
        told = pictures(resolve(str(run)), topic, given)
        other = pictures(resolve(str(run)), topic, {**given, "prompt": ("", "a red picture")})
        assert told[0].image.tobytes() != other[0].image.tobytes()

    def test_of_the_data_stand_below_real_pictures(self, run: Path) -> None:
        real = pictures(resolve(str(run)), "real", {"count": 4, "steps": 2})
        assert real[0].image.height > 40

    def test_for_a_model_without(self, tmp_path: Path) -> None:
        losses(session(tmp_path, {"data": DATA, "network": "unet:size=tiny,width=8"},
            length={"steps": 1}))  # fmt: skip
        with pytest.raises(InputError, match="trained without captions"):
            pictures(resolve(str(tmp_path)), "sheet", {"prompt": ("a",)})


class TestAlike:
    def test_the_same_words_are_alike(self, tmp_path: Path) -> None:
        settings: dict[str, Any] = {
            "network": "clip:width=16,depth=1,eye=8,embedding=8",
            "data": {"source": str(folder(tmp_path / "data"))},
            "training": {"batch": 8},
        }
        losses(session(tmp_path / "clip", settings, recipe="clip", length={"steps": 1}))
        target = resolve(str(tmp_path / "clip"))
        assert topics_for(target, usual=True) == ["loss", "alike"]
        (drawn,) = pictures(target, "alike", {"text": ("a red picture", "A RED picture", "blue")})
        assert drawn.image.width > 300
        with pytest.raises(InputError, match="give two or more"):
            pictures(target, "alike", {"text": ("alone",)})
        with pytest.raises(InputError, match="is an encoder: couette search"):
            pictures(target, "sheet")

    def test_captions_of_the_data_unless_asked(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Of its own data each is read whole; the sentences would all be cut to one token."""
        shown: list[tuple[str, ...]] = []

        def kept(values: Any, rows: Any, columns: Any, **more: Any) -> Any:
            shown.append(tuple(rows))
            return matrix(values, rows, columns, **more)

        monkeypatch.setattr("couette.figures.alike.matrix", kept)
        data = folder(tmp_path / "data", ("red", "RED", "", "blue"))
        settings: dict[str, Any] = {
            "network": "clip:width=16,depth=1,eye=8,embedding=8",
            "data": {"source": str(data)},
            "training": {"batch": 8},
        }
        losses(session(tmp_path / "clip", settings, recipe="clip", length={"steps": 1}))
        (drawn,) = pictures(resolve(str(tmp_path / "clip")), "alike")
        assert "Captions of the data" in drawn.notes[0]
        data.rename(tmp_path / "moved")
        with pytest.warns(WordsCut):
            (drawn,) = pictures(resolve(str(tmp_path / "clip")), "alike")
        assert "are not at hand; --text compares others" in drawn.notes[0]
        assert shown == [("RED", "blue"), SENTENCES]

    def test_of_what_is_no_encoder(self, autoencoder: Path) -> None:
        with pytest.raises(InputError, match=r"needs an encoder.* is none; train one with"):
            pictures(resolve(str(autoencoder)), "alike")

    def test_of_a_run_that_trained_one(self, run: Path, tmp_path: Path) -> None:
        """As text-to-image does: its encoder is the one that is meant."""
        whole = tmp_path / "whole"
        shutil.copytree(run, whole)
        RunFolder(whole / "encoder").plan(RECIPES["clip"]())
        with pytest.raises(InputError, match=f"is none; give its own, {whole}/encoder\\."):
            pictures(resolve(str(whole)), "alike")


def test_a_table_needs_a_name_for_each_row_and_column() -> None:
    assert matrix([[0.0, 1.0]], ["a"], ["b", "c"]).width > 100
    with pytest.raises(ShapeError, match="1 rows and 1 columns can't show"):
        matrix([[0.0, 1.0]], ["a"], ["b"])
