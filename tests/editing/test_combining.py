"""Anagrams and hybrids: denoisers that are combinations, to the rounding of float."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from couette.api.editing import finished
from couette.config import Spec
from couette.contracts import Cond, Corruption, Prediction
from couette.editing import (
    PARTITIONS,
    VIEWS,
    Anagram,
    Hybrid,
    Part,
    View,
    anagram,
    drawn,
    edits_of,
    whole,
)
from couette.editing.filters import gaussian as blurred
from couette.errors import InputError, ShapeError
from couette.generate import steps
from editing.exactly import SHAPE, bumps, model_of, picture, scene

T = torch.tensor(0.4, dtype=torch.float64)


class Asked:
    """A denoiser that answers with what it is told and what it sees, and counts its calls."""

    def __init__(self, corruption: Corruption) -> None:
        self.corruption, self.rows = corruption, list[int]()

    def __call__(self, x: Tensor, t: Tensor, cond: Cond) -> Prediction:
        self.rows.append(len(x))
        told = cond["label"].to(x).reshape(-1, 1, 1, 1)
        return Prediction(torch.tanh(x) * (1 + told), base=x * told, mix=torch.sigmoid(x))


def asked() -> Asked:
    return Asked(model_of(bumps()).denoiser.corruption)


def label(value: int, rows: int = 1) -> Cond:
    return {"label": torch.full((rows,), value)}


def views(*names: str, height: int = 4, width: int = 4) -> list[View]:
    return [VIEWS.build(Spec.model_validate(name), height, width) for name in names]


@pytest.mark.parametrize("middle", [0.0, 0.5])
def test_an_anagram_is_the_mean_of_its_views(middle: float) -> None:
    denoise = asked()
    seen = views("identity", "rotate:degrees=90", "negative")
    x = torch.randn(3, 1, 4, 4)
    p = Anagram(denoise, seen, [label(0), label(1), label(2)], middle=middle)(x, T, label(9, 3))
    gray = middle * denoise.corruption.schedule.level(T).alpha.float()
    rot = torch.rot90(x, 1, (2, 3))
    by_hand = (
        torch.tanh(x)
        + torch.rot90(2 * torch.tanh(rot), -1, (2, 3))
        + (2 * middle - 3 * torch.tanh(2 * gray - x))
    ) / 3
    torch.testing.assert_close(p.x0, by_hand)
    assert denoise.rows == [9]  # all views of all pictures in one batch
    assert p.base is not None and p.mix is not None and p.mix.shape == x.shape


def test_weights_and_turns() -> None:
    denoise = asked()
    x = torch.randn(2, 1, 4, 4)
    seen = views("identity", "flip")
    heavy = Anagram(denoise, seen, [label(0), label(1)], [0.9, 0.1])(x, T, label(0, 2))
    torch.testing.assert_close(heavy.x0, 0.9 * torch.tanh(x) + 0.1 * 2 * torch.tanh(x))
    turns = Anagram(denoise, seen, [label(0), label(1)], alternate=True)
    torch.testing.assert_close(turns(x, T, label(0, 2)).x0, torch.tanh(x))
    torch.testing.assert_close(turns(x, T, label(0, 2)).x0, 2 * torch.tanh(x))
    torch.testing.assert_close(turns(x, T, label(0, 2)).x0, torch.tanh(x))


def test_views_of_what_is_recalled_are_taken() -> None:
    corruption = model_of(bumps()).denoiser.corruption

    class Recalls:
        def __init__(self) -> None:
            self.corruption = corruption

        def __call__(self, x: Tensor, t: Tensor, cond: Cond) -> Prediction:
            return Prediction(x + cond["x0"])

    x, last = torch.randn(2, 2, 1, 4, 4)
    p = Anagram(Recalls(), views("identity", "flip"), [label(0), label(1)])(
        x, T, {**label(0, 2), "x0": last}
    )
    torch.testing.assert_close(p.x0, x + last)


@pytest.mark.parametrize(
    "name", ["frequency", "bands", "color", "motion", "sides", "sides:soft=0.5"]
)
def test_parts_sum_to_the_picture(name: str) -> None:
    parts = PARTITIONS.build(Spec.model_validate(name), (3, 12, 20))
    assert whole(parts, (3, 12, 20)) < 1e-6
    flat = torch.full((1, 3, 12, 20), 0.7)
    if not name.startswith("sides"):
        torch.testing.assert_close(parts[0].take(flat), flat)  # a constant is all in the first


def test_blur_is_that_of_scipy() -> None:
    from scipy.ndimage import gaussian_filter

    x = torch.rand(1, 1, 9, 14, dtype=torch.float64)
    theirs = gaussian_filter(x[0, 0].numpy(), 1.7, mode="reflect", truncate=6 / 1.7)
    torch.testing.assert_close(blurred(x, 1.7)[0, 0], torch.from_numpy(theirs), atol=1e-6, rtol=0)


def test_a_hybrid_has_the_parts_of_its_sources() -> None:
    denoise = asked()
    parts = PARTITIONS.build(Spec(name="bands", coarse=2.0, fine=0.7), (1, 8, 8))
    x = torch.randn(2, 1, 8, 8)
    p = Hybrid(denoise, parts, [label(0), label(1), label(2)])(x, T, label(0, 2))
    sources = [torch.tanh(x) * (1 + k) for k in range(3)]
    expected = sum(part.take(source) for part, source in zip(parts, sources, strict=True))
    torch.testing.assert_close(p.x0, expected)
    assert denoise.rows == [6]
    # The noise that a move would put back is combined alike, as in the paper.
    level = denoise.corruption.schedule.level(T)
    eps = [(x - level.alpha.float() * source) / level.sigma.float() for source in sources]
    mixed = sum(part.take(each) for part, each in zip(parts, eps, strict=True))
    found = (x - level.alpha.float() * p.x0) / level.sigma.float()
    torch.testing.assert_close(found, mixed, atol=1e-4, rtol=1e-4)


class Halved:
    """Latents are pictures of half the size."""

    def decode(self, latents: Tensor) -> Tensor:
        return latents.repeat_interleave(2, -1).repeat_interleave(2, -2)

    def encode(self, pictures: Tensor, keys: Tensor | None = None) -> Tensor:
        return F.avg_pool2d(pictures, 2)

    def shape(self, channels: int, height: int, width: int) -> tuple[int, int, int]:
        return channels, height // 2, width // 2


def test_the_parts_of_a_hybrid_are_those_of_pictures_not_of_latents() -> None:
    codec = Halved()
    low, high = PARTITIONS.build(Spec(name="frequency", sigma=2.0), (1, 16, 16))
    x = torch.randn(2, 1, 8, 8)
    p = Hybrid(asked(), (low, high), [label(0), label(1)], codec=codec)(x, T, label(0, 2))
    first, second = (codec.decode(torch.tanh(x) * (1 + k)) for k in range(2))
    torch.testing.assert_close(p.x0, codec.encode(low.take(first) + high.take(second)))


@pytest.mark.parametrize(
    ("parts", "said"),
    [
        ("frequency:sigma=1", "near: 0%; detail: 0%; far: 100%; in all of them: 0%"),
        ("sides", "left: 100%; right: 0%; in all of them: 0%"),
    ],
)
def test_a_judge_reads_a_hybrid_in_each_of_its_ways(parts: str, said: str) -> None:
    """By the labels of the parts: one who sees class 0 everywhere is right of what is far."""
    s = scene(model_of(bumps()), count=2, labels=("0", "1"), steps=2)
    (edit,) = edits_of(s, Spec(name="hybrid", parts=parts))
    row = finished(s, edit, reads=lambda pictures, among: [0] * len(pictures))
    assert row.notes == (f"Read as asked, {said}.",)


def test_a_hybrid_keeps_the_part_of_a_picture() -> None:
    model = model_of(bumps())
    given = picture()
    s = scene(model, given, count=3, labels=("1",))
    (edit,) = edits_of(s, Spec(name="hybrid", parts="frequency:sigma=1"))
    made = drawn(s, edit)
    low = PARTITIONS.build(Spec(name="frequency", sigma=1.0), SHAPE)[0]
    # Low of low is not low: what is kept is the x0 that is moved to, whose last one is the result.
    denoise = edit.editor(model.denoiser) if edit.editor else None
    assert denoise is not None
    x = torch.randn(1, *SHAPE)
    p = denoise(x, T, label(1))
    own = model.denoiser(x, T, label(1)).x0
    torch.testing.assert_close(p.x0, low.take(given) + (own - low.take(own)))
    assert [each.label for each in edit.shows] == [1, 1, None]  # what is far was given
    assert made.shape == (3, *SHAPE)


def test_identical_views_are_the_model() -> None:
    """An anagram of one thing seen twice as it is is a plain sample of it."""
    model = model_of(bumps())
    s = scene(model, count=4, labels=("1",))
    (edit,) = edits_of(s, Spec(name="anagram", view=("identity", "identity")))
    plain = [step.x for step in steps(model, s.asks())][-1].clamp(-1, 1)
    torch.testing.assert_close(drawn(s, edit), plain, atol=1e-5, rtol=0)


def test_both_views_are_heard() -> None:
    """Classes that are each other's mirror image: the anagram is a sample of both."""
    model = model_of(bumps())
    s = scene(model, count=64, labels=("0", "1"), steps=20)
    (edit,) = edits_of(s, Spec(name="anagram", view=("identity", "negative")))
    seen = drawn(s, edit).mean(0)
    first, second = bumps().get_buffer("means").float().reshape(2, *SHAPE)
    assert float((seen - (first - second) / 2).abs().mean()) < 0.12


@pytest.mark.parametrize(
    ("edit", "more", "said"),
    [
        ("anagram:view=identity", {}, "two views or more"),
        ("anagram", {"labels": ("0", "1", "0")}, "one for each, or one for all"),
        ("anagram:reduce=alternate,weight=(1,2)", {}, "no weights"),
        ("anagram:weight=(1,)", {}, "give one each"),
        ("anagram:reduce=alternate", {"sampler": "dopri5"}, "endless"),
        ("hybrid", {"labels": ("0",) * 3}, "one for each, or one for all"),
        ("hybrid:parts=color", {}, "no colour"),
        ("hybrid:parts=(bands:coarse=1,fine=2)", {}, "wider"),
        ("anagram:view=(identity,jigsaw)", {}, "square"),
        ("anagram:view=(identity,bogus)", {}, "no view"),
    ],
)
def test_what_can_not_be_combined_is_said(edit: str, more: dict[str, object], said: str) -> None:
    settings: dict[str, object] = {}
    name, _, rest = edit.partition(":")
    if rest == "view=identity":
        settings = {"view": ("identity",)}
    elif rest == "reduce=alternate,weight=(1,2)":
        settings = {"reduce": "alternate", "weight": (1.0, 2.0)}
    elif rest == "weight=(1,)":
        settings = {"weight": (1.0,)}
    elif rest == "reduce=alternate":
        settings = {"reduce": "alternate"}
    elif rest.startswith("parts="):
        settings = {"parts": rest[6:].strip("()")}
    elif rest:
        settings = {"view": tuple(rest[6:-1].split(","))}
    s = scene(model_of(bumps()), **more)
    with pytest.raises((InputError, ShapeError), match=said):
        edits_of(s, Spec(name=name, **settings))


def test_a_view_that_is_not_orthogonal_is_refused() -> None:
    made = VIEWS.register("doubled-in-a-test")(
        lambda height, width: View(lambda x: 2 * x, lambda x: x / 2)
    )
    assert made is not None
    try:
        with pytest.raises(InputError, match="not linear and orthogonal"):
            edits_of(
                scene(model_of(bumps())),
                Spec(name="anagram", view=("identity", "doubled-in-a-test")),
            )
    finally:
        del VIEWS._parts["doubled-in-a-test"]


def test_parts_that_do_not_sum_are_refused() -> None:
    PARTITIONS.register("half-in-a-test")(lambda shape: (Part("half", lambda x: x / 2),))
    try:
        with pytest.raises(InputError, match="sum to the picture"):
            edits_of(scene(model_of(bumps())), Spec(name="hybrid", parts="half-in-a-test"))
    finally:
        del PARTITIONS._parts["half-in-a-test"]


def test_the_edit_says_how_it_is_looked_at() -> None:
    s = scene(model_of(bumps()), labels=("0", "1"))
    (edit,) = anagram(s, view=(Spec(name="identity"), Spec(name="flip")))
    assert list(edit.views) == ["identity: 0", "flip: 1"]
