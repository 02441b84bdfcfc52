"""Scenes are functions of integers, fit the picture, and keep what is held out, out."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch

from couette.data.shapes import COLORS, HELD_OUT, SHAPES, SIZES, Scene, Split, Thing, compose, draw
from couette.data.shapes.composing import APART, GAP, MARGIN, PLACED, SHARES
from couette.data.shapes.drawing import coverage
from couette.data.shapes.outlines import OUTLINES
from couette.data.shapes.scenes import LOOSE, at_place, place, relation
from couette.data.shapes.vocabulary import BACKGROUNDS, PLACES
from couette.errors import ConfigError, UnknownName

MANY = list(compose(range(6000)))


def apart(a: Thing, b: Thing) -> float:
    """How far the boxes of two objects lie apart, along the axis where it is more."""
    gaps = [max(b.box[i] - a.box[i + 2], a.box[i] - b.box[i + 2]) for i in (0, 1)]
    return max(gaps)


def different(scene: Scene) -> bool:
    return len({thing[:2] for thing in scene.things}) > 1


def test_a_scene_does_not_depend_on_how_many_are_made() -> None:
    assert list(compose(range(40, 50))) == MANY[40:50]
    assert next(compose(range(5999, 6000))) == MANY[-1]
    assert list(compose(range(50), seed=1)) != MANY[:50]
    assert list(compose(range(50), split=Split.TEST)) != MANY[:50]


def test_the_first_scene_stays_what_it_is() -> None:
    """Any change to how scenes are drawn changes what a data set is: it must be meant."""
    (first,) = MANY[:1]
    diamond, ring = first.things
    assert first.background == "navy"
    assert diamond == pytest.approx(("blue", "diamond", "medium", 0.1996382, 0.3901869))
    assert ring == pytest.approx(("pink", "ring", "medium", 0.6269294, 0.2466102))
    assert draw([first], 32).long().sum().item() == 224_274


def test_objects_keep_clear_of_each_other_and_of_the_edge() -> None:
    for scene in MANY:
        for i, thing in enumerate(scene.things):
            assert min(thing.box) > MARGIN - 1e-6
            assert max(thing.box) < 1 - MARGIN + 1e-6
            assert all(apart(thing, other) > GAP - 1e-6 for other in scene.things[:i])


def test_relations_hold_clearly_and_all_as_often() -> None:
    pairs = [scene.things for scene in MANY if different(scene)]
    for a, b in pairs:
        along, aside = sorted((abs(a.x - b.x), abs(a.y - b.y)), reverse=True)
        assert along > APART - 1e-6
        assert aside < along / 2 + 1e-6
    held = Counter(relation(*things) for things in pairs)
    assert set(held) == {"above", "left of"}  # the nearer to the corner is named first
    assert abs(held["above"] / len(pairs) - 0.5) < 0.04


def test_kinds_come_at_their_shares_and_every_word_occurs() -> None:
    sizes = Counter(
        "two" if different(scene) else "one" if len(scene.things) == 1 else "several"
        for scene in MANY
    )
    for kind, share in SHARES:
        assert abs(sizes[kind] / len(MANY) - share) < 0.025
    assert {len(scene.things) for scene in MANY} == {1, 2, 3, 4}
    things = [thing for scene in MANY for thing in scene.things]
    assert {scene.background for scene in MANY} == set(BACKGROUNDS)
    assert {thing.size for thing in things} == set(SIZES)
    pairs = Counter((thing.color, thing.shape) for thing in things)
    assert len(pairs) == len(COLORS) * len(SHAPES) - len(HELD_OUT)
    assert min(pairs.values()) > 80


def test_held_out_pairs_are_in_no_scene_and_each_word_once_in_them() -> None:
    for split in Split:
        for scene in compose(range(3000), split=split, seed=5):
            assert not {thing[:2] for thing in scene.things} & HELD_OUT
    assert sorted(color for color, _ in HELD_OUT) == sorted(COLORS)
    assert sorted(shape for _, shape in HELD_OUT) == sorted(SHAPES)


def test_lone_objects_are_found_at_every_place() -> None:
    lone = [scene.things[0] for scene in MANY if len(scene.things) == 1]
    found = Counter(map(place, lone))
    assert set(found) == {*PLACES, None}
    assert min(found[name] for name in PLACES) > PLACED * len(lone) / 9 * 0.75
    for thing in lone:
        if (name := place(thing)) is not None:
            assert at_place(thing, name, LOOSE)


def test_how_things_lie() -> None:
    here = Thing("red", "circle", "small", 0.5, 0.5)
    assert relation(here, here._replace(y=0.7)) == "above"
    assert relation(here, here._replace(y=0.3, x=0.6)) == "below"
    assert relation(here, here._replace(x=0.9, y=0.4)) == "left of"
    assert relation(here, here._replace(x=0.1)) == "right of"
    assert relation(here, here._replace(x=0.6)) is None
    assert relation(here, here._replace(x=0.75, y=0.75)) is None


@pytest.mark.parametrize("shape", SHAPES)
def test_an_outline_is_a_distance_around_its_centre_of_mass(shape: str) -> None:
    ticks = np.linspace(-1.4, 1.4, 561, dtype=np.float32)
    x, y = np.meshgrid(ticks, ticks)
    outline = OUTLINES[shape]
    away = outline.distance(x, y)
    inside = away < 0
    assert abs(x[inside].mean()) < 1e-3
    assert abs(y[inside].mean()) < 1e-3
    reach = x[inside].max(), -y[inside].min(), y[inside].max()
    assert np.allclose(reach, outline[1:], atol=0.006)
    assert max(2 * outline.across, outline.up + outline.down) <= 2.1  # else scenes would not fit
    slope = np.hypot(*np.gradient(away, 0.005))
    assert np.median(slope) == pytest.approx(1, abs=1e-3)
    assert max(abs(np.diff(away, axis=axis)).max() for axis in (0, 1)) < 0.005 * 1.001


@pytest.mark.parametrize("shape", SHAPES)
def test_an_object_covers_as_much_as_its_outline_holds(shape: str) -> None:
    ticks = np.linspace(-1.4, 1.4, 1121, dtype=np.float32)
    area = (OUTLINES[shape].distance(*np.meshgrid(ticks, ticks)) < 0).sum() * 0.0025**2
    where, corner = np.full((1, 2), 32.3, np.float32), np.zeros((1, 2), np.int64)
    covered = coverage(OUTLINES[shape].distance, where, np.full(1, 12, np.float32), corner, 64)
    assert covered.sum() == pytest.approx(area * 144, rel=0.02)
    assert ((covered > 0) & (covered < 1)).sum() > 10  # edges are smooth


def test_a_drawing_is_of_its_colours_and_the_same_at_any_place_in_a_batch() -> None:
    scene = Scene("gray", (Thing("red", "square", "large", 0.5, 0.5),))
    pixels = draw([*MANY[:9], scene, *MANY[:9]], 48)
    assert torch.equal(pixels[9], draw([scene], 48)[0])
    assert torch.equal(pixels[:9], pixels[10:])
    assert pixels[9, 24, 24].tolist() == list(COLORS["red"])
    assert pixels[9, 0, 0].tolist() == list(BACKGROUNDS["gray"])
    assert pixels.shape == (19, 48, 48, 3)
    assert pixels.dtype == torch.uint8


def test_a_scene_is_the_same_at_any_resolution() -> None:
    coarse, fine = draw(MANY[:50], 32).float(), draw(MANY[:50], 128).float()
    averaged = fine.reshape(50, 32, 4, 32, 4, 3).mean((2, 4))
    assert (coarse - averaged).abs().mean() < 0.6
    assert (coarse - averaged).abs().max() < 70  # at the tips of stars


def test_nothing_to_draw() -> None:
    assert draw([], 32).shape == (0, 32, 32, 3)
    empty = draw([Scene("black", ())], 16)
    assert (empty == torch.tensor(BACKGROUNDS["black"], dtype=torch.uint8)).all()


@pytest.mark.parametrize(
    ("scene", "words"),
    [
        (Scene("lilac", ()), "no background 'lilac'"),
        (Scene("white", (Thing("rde", "circle", "small", 0.5, 0.5),)), "did you mean 'red'"),
        (Scene("white", (Thing("red", "oval", "small", 0.5, 0.5),)), "no shape 'oval'"),
        (Scene("white", (Thing("red", "circle", "huge", 0.5, 0.5),)), "no size 'huge'"),
        (Scene("white", (Thing("red", "circle", "large", 0.1, 0.5),)), "leaves the picture"),
        (Scene("white", (Thing("red", "circle", "large", float("nan"), 0.5),)), "leaves the"),
    ],
)
def test_scenes_that_can_not_be_drawn(scene: Scene, words: str) -> None:
    with pytest.raises((ConfigError, UnknownName), match=words):
        draw([scene], 32)


@pytest.mark.parametrize("resolution", [0, 15, 257])
def test_resolutions_that_can_not_be_drawn(resolution: int) -> None:
    with pytest.raises(ConfigError, match=f"16 to 256 pixels, not {resolution}"):
        draw(MANY[:1], resolution)
