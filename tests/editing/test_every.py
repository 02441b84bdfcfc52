"""Every edit on every kind of model: pixels, classes, words on latents."""

from __future__ import annotations

import re
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch

import couette
from couette import api
from couette.config import Spec
from couette.editing import EDITS, drawn, edits_of, frames, sheet
from couette.errors import CheckpointError, CouetteError, InputError
from couette.model import Model
from editing.exactly import gaussian, model_of
from recipes.test_text import folder
from small_runs import FAST


class Case(NamedTuple):
    """A model, and what it is asked."""

    model: Model
    asked: dict[str, Any]


INTEROP = ("stable", "filling", "ddpm")
"""Models of diffusers."""

TINY = {"network": "unet:size=tiny,width=8,blocks=1", "training": {"batch": 8}}


@pytest.fixture(scope="session")
def cases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Case]:
    """Trained for a step or two: what they draw is noise, but all that an edit needs is there."""
    out = tmp_path_factory.mktemp("edited")
    plain = couette.train(
        "digits", out=out / "plain", steps=1, **FAST, **TINY, diffusion={"drop": 1.0}
    )
    classes = couette.train("digits", out=out / "classes", steps=1, **FAST, **TINY)
    data = folder(out / "data", ("a red picture", "a green picture", "a blue picture"))
    run = api.begin(
        str(data),
        out=out / "words",
        recipe="text-to-image",
        length={"steps": 1},
        settings={
            **FAST,
            "network": "unet:size=tiny,width=16,patch=1,reading=1",
            "training": {"batch": 8},
            "sampling": {"steps": 2},
        },
    )
    for _ in run.run():
        pass
    others = {}
    if find_spec("diffusers") and find_spec("transformers"):
        from interop.small_pipelines import pixels, stable

        for name, inside in (("stable", 4), ("filling", 9)):
            stable(out / name, inside)
            asked = {"prompt": ("a red cat", "two blue dogs"), "guidance": 2.0}
            others[name] = Case(api.load(out / name), asked)
        pixels(out / "ddpm")
        others["ddpm"] = Case(api.load(out / "ddpm"), {})
    return others | {
        "exact": Case(model_of(gaussian()), {}),
        "pixels": Case(api.load(plain.path), {}),
        "classes": Case(api.load(classes.path), {"label": ("1", "2"), "guidance": 2.0}),
        "words": Case(
            api.load(out / "words"),
            {"prompt": ("a red picture", "a blue picture"), "guidance": 2.0},
        ),
    }


PLAIN: dict[str, dict[str, Any]] = {
    "img2img": {"strength": (0.5, 0.8)},
    "inpaint": {"box": (0, 0, 2, 1)},
    "outpaint": {"left": 1},
    "anagram": {"view": ("identity", "flip")},
    "hybrid": {"parts": "frequency:sigma=1"},
    "superres": {"degrade": True},
    "deblur": {"degrade": True},
    "colorize": {"degrade": True},
    "restore": {"degrade": True, "method": "dps"},
    "invert": {"rounds": 2},
    "interpolate": {"rounds": 2},
    "vary": {"rounds": 2},
    "panorama": {},
    "reweigh": {"word": ("red=2",)},
}
REFUSED = {
    ("exact", "colorize"): "gray pictures",
    ("pixels", "colorize"): "gray pictures",
    ("classes", "colorize"): "gray pictures",
    ("exact", "reweigh"): "this model has none",
    ("pixels", "reweigh"): "this model has none",
    ("classes", "reweigh"): "this model has none",
    ("words", "anagram"): "works on latents",
    ("stable", "anagram"): "works on latents",
    # What fills in pictures must be given one, and does nothing else.
    **{("filling", e): "fills in|latents" for e in PLAIN if e not in ("inpaint", "outpaint")},
    **{(name, "reweigh"): "this model has none" for name in INTEROP},
}


def test_every_edit_is_in_the_table() -> None:
    assert PLAIN.keys() == set(EDITS)


@pytest.mark.parametrize("name", ["exact", "pixels", "classes", "words", *INTEROP])
@pytest.mark.parametrize("edit", list(EDITS))
def test_every_edit_on_every_model(edit: str, name: str, cases: dict[str, Case]) -> None:
    """What comes out has the model's size and is finite; or why it can't be is said."""
    if name not in cases:
        pytest.skip("needs the extra couette[diffusers]")
    model, asked = cases[name]
    config = model.config
    count = {0: 0, 1: 1}[EDITS.trait(edit, "pictures")]
    if edit == "interpolate":
        count = 2
    generator = torch.Generator().manual_seed(0)
    shape = (config.channels, config.height, config.width)
    pictures = torch.rand(count, *shape, generator=generator) * 2 - 1
    if edit == "reweigh" and "prompt" in asked:
        asked = {**asked, "prompt": asked["prompt"][0]}
    given = {**asked, **PLAIN[edit], "count": 2, "steps": 3}
    if (name, edit) in REFUSED:
        with pytest.raises(CouetteError, match=REFUSED[name, edit]):
            couette.edit(model, edit, *pictures, **given)
        return
    rows = couette.edit(model, edit, *pictures, **given)
    for row in rows:
        assert row.pictures.shape[:2] == (2, config.channels)
        if edit == "panorama":
            assert row.pictures.shape[-1] == 2 * config.width
        else:
            assert row.pictures.shape[1:] == shape
        assert bool(row.pictures.isfinite().all()) and float(row.pictures.abs().max()) <= 1
    assert sheet(rows).width > 0
    # A picture does not depend on the batch it is drawn in.
    alone = couette.edit(model, edit, *pictures, **given, batch=1)
    for row, other in zip(rows, alone, strict=True):
        torch.testing.assert_close(row.pictures, other.pictures, atol=2e-3, rtol=0)


def test_latents_follow_what_commutes(cases: dict[str, Case]) -> None:
    model, _ = cases["words"]
    rows = couette.edit(model, "anagram", view=("identity", "identity"), steps=2, count=1)
    assert rows[0].pictures.shape[1:] == (3, model.config.height, model.config.width)


def test_latents_that_wrap_are_decoded_round(cases: dict[str, Case]) -> None:
    model, _ = cases["words"]
    (row,) = couette.edit(model, "panorama", tile=True, steps=2, count=1)
    assert row.pictures.shape[-2:] == (model.config.height, model.config.width)
    assert list(row.edit.views) == ["", "laid twice"]


def test_more_of_a_word_changes_the_picture(cases: dict[str, Case]) -> None:
    model, _ = cases["words"]
    # A fresh attention leaves as zeros: let it speak.
    rows = couette.edit(
        model,
        "reweigh",
        prompt="a red picture",
        word=("red=2", "picture=1"),
        factor=(0.0,),
        steps=2,
    )
    assert [row.name for row in rows] == ["red × 1", "red × 2", "red × 0"]
    for settings, said in (
        ({"word": ("red=2",), "prompt": ()}, "one prompt"),
        ({"word": ("black=2",), "prompt": "a red picture"}, "no word 'black'"),
        ({"word": ("red",), "prompt": "a red picture"}, "written red=2"),
        ({"word": (), "prompt": "a red picture"}, "needs a word"),
    ):
        with pytest.raises(InputError, match=said):
            couette.edit(model, "reweigh", **settings)


def test_a_film_of_every_step(cases: dict[str, Case]) -> None:
    model, _ = cases["pixels"]
    scene, _ = api.editing.scene_of(
        model,
        "img2img",
        [torch.zeros(1, 16, 16)],
        count=2,
        label=(),
        prompt=(),
        seed=0,
        settings={"steps": 6},
    )
    (edit,) = edits_of(scene, Spec(name="img2img", strength=(1.0,)))
    assert len(frames(scene, edit)) == 7
    assert drawn(scene, edit).shape == (2, 1, 16, 16)


def test_what_no_edit_can_take(cases: dict[str, Case], tmp_path: Path) -> None:
    model, _ = cases["pixels"]
    flat = torch.zeros(1, 16, 16)
    for name, pictures, settings, said in (
        ("img2img", (), {}, "needs one picture, and 0"),
        ("img2img", (flat, flat), {}, "needs one picture, and 2"),
        ("anagram", (flat,), {}, "needs no pictures, and 1"),
        ("img2img", (torch.zeros(1, 8, 8),), {}, "the model makes"),
        ("img2img", (tmp_path / "no.png",), {}, "can't be opened"),
        ("img2img", (flat,), {"count": 0}, "at least 1"),
        ("img2img", (flat,), {"seed": -1}, "seed"),
        ("img2img", (flat,), {"batch": 0}, "at least one picture"),
        ("img2img", (flat,), {"strength": (2.0,)}, "strength"),
        ("img2img", (flat,), {"prompt": "a cat"}, "without captions"),
        ("img2img", (flat,), {"label": "3"}, "without labels"),
        ("img2img", (flat,), {"bogus": 1}, "bogus"),
        ("bogus", (flat,), {}, "no edit 'bogus'"),
    ):
        with pytest.raises(CouetteError, match=said):
            couette.edit(model, name, *pictures, **settings)


def test_points_and_states_are_not_edited() -> None:
    with pytest.raises(InputError, match="points"):
        couette.edit("exact:gaussians", "img2img")


def test_an_encoder_reads_which_of_the_prompts_is_nearest(
    cases: dict[str, Case], tmp_path_factory: pytest.TempPathFactory
) -> None:
    model, asked = cases["words"]
    (encoder,) = tmp_path_factory.getbasetemp().glob("edited0/words/encoder")
    (row,) = couette.edit(model, "hybrid", count=2, steps=2, judge=str(encoder), **asked)
    assert re.fullmatch(
        r"Read as asked, near: \d+%; detail: \d+%; far: \d+%; in all of them: \d+%\.", row.notes[0]
    )
    prompts = asked["prompt"][0], ""
    (row,) = couette.edit(model, "panorama", prompt=asked["prompt"], count=2, judge=str(encoder))
    assert re.fullmatch(r"Read as asked, as asked: \d+%\.", row.notes[0])
    for one in (prompts[0], prompts):
        with pytest.raises(InputError, match="two or more"):
            couette.edit(model, "panorama", prompt=one, count=2, judge=str(encoder))
    with pytest.raises(CheckpointError, match=r"judged by an encoder.*There is no run in shapes"):
        couette.edit(model, "hybrid", judge="shapes", **asked)


def test_an_encoder_of_other_pictures_is_refused_before_any_is_drawn(
    cases: dict[str, Case], tmp_path_factory: pytest.TempPathFactory, tmp_path: Path
) -> None:
    (encoder,) = tmp_path_factory.getbasetemp().glob("edited0/words/encoder")
    data = {"source": "digits", "captions": ("a {word}",)}
    gray = couette.train(
        data, recipe="text-to-pixels", out=tmp_path / "gray", steps=1, **FAST, **TINY
    )
    prompts = ("a one", "a two")
    with pytest.raises(InputError, match="3 channels, and the model makes some of 1"):
        couette.edit(gray.path, "hybrid", prompt=prompts, judge=str(encoder))


@pytest.mark.slow
def test_a_judge_reads_what_was_asked_for() -> None:
    """The ideal denoiser draws real digits; an anagram of a digit seen twice alike is one."""
    row, other = (
        couette.edit("exact:digits", name, label=("3",), count=8, judge="digits", **settings)[0]
        for name, settings in (
            ("anagram", {"view": ("identity", "identity")}),
            ("panorama", {"width": 16}),
        )
    )
    assert row.notes == (
        "Read as asked, identity: 3 (1): 100%; identity: 3 (2): 100%; in all of them: 100%.",
    )
    assert other.notes == ("Read as asked, as asked: 100%.",)
    with pytest.raises(InputError, match="name the data that it was trained on"):
        couette.edit(model_of(gaussian()), "panorama", judge="digits")
