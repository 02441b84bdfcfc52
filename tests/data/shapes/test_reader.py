"""The reader says of a drawn scene what is in it, also through blur, noise and a tint."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pytest
import torch
from scipy import ndimage
from torch import Tensor

from couette.data import to_float
from couette.data.shapes import Reading, Scene, Thing, compose, draw, read
from couette.data.shapes.blobs import GRID, blobs_of
from couette.data.shapes.reading import ALIKE, MOST
from couette.data.shapes.vocabulary import COLORS
from couette.errors import ShapeError
from couette.tensors import normal

OTHERS = 10_000_000
"""Scenes from here on are those that no other test draws."""
SIDES = (32, 48, 64)


def drawn(scenes: Sequence[Scene], side: int) -> Tensor:
    """(N, 3, side, side) in [-1, 1]."""
    return to_float(draw(scenes, side).permute(0, 3, 1, 2))


def same(scene: Scene, reading: Reading, off: float = 0.01) -> bool:
    """Whether a reading has the scene's background, and its objects where they are."""
    left = list(reading.objects)
    for thing in scene.things:
        found = [
            seen
            for seen in left
            if seen[:3] == (thing.shape, thing.color, thing.size)
            and np.hypot(seen.x - thing.x, seen.y - thing.y) < off
        ]
        if not found:
            return False
        left.remove(found[0])
    return not left and reading.background == scene.background


def right(scenes: Sequence[Scene], pictures: Tensor, off: float = 0.01) -> float:
    """The share of scenes that are read without any fault."""
    readings = read(pictures)
    return float(np.mean([same(s, r, off) for s, r in zip(scenes, readings, strict=True)]))


def blurred(pictures: Tensor, sigma: float = 0.7) -> Tensor:
    soft = ndimage.gaussian_filter(pictures.numpy(), (0, 0, sigma, sigma), mode="nearest")
    return torch.from_numpy(soft)


def noisy(pictures: Tensor, sigma: float = 0.1) -> Tensor:
    keys = torch.stack((torch.arange(len(pictures)), torch.zeros(len(pictures)).long()), 1)
    return pictures + sigma * normal(3, keys, 0, pictures.shape[1:])


def tinted(pictures: Tensor) -> Tensor:
    """Each channel of each picture lighter or darker by up to 0.08, ten of 255."""
    keys = torch.stack((torch.arange(len(pictures)), torch.zeros(len(pictures)).long()), 1)
    return pictures + 0.08 * normal(4, keys, 0, (3, 1, 1)).clamp(-1, 1)


CHANGES: dict[str, Callable[[Tensor], Tensor]] = {
    "none": lambda pictures: pictures,
    "blur": blurred,
    "noise": noisy,
    "blur and noise": lambda pictures: noisy(blurred(pictures)),
    "tint": tinted,
}


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("change", CHANGES)
def test_the_reader_is_right(change: str, side: int) -> None:
    scenes = list(compose(range(OTHERS, OTHERS + 400)))
    share = right(scenes, CHANGES[change](drawn(scenes, side)), 0.01 if change == "none" else 0.03)
    assert share >= (1 if change == "none" else 0.99)


@pytest.mark.slow
@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("change", CHANGES)
def test_the_reader_is_right_of_thousands(change: str, side: int) -> None:
    scenes = list(compose(range(OTHERS, OTHERS + 4000), seed=1))
    share = right(scenes, CHANGES[change](drawn(scenes, side)), 0.01 if change == "none" else 0.03)
    assert share >= (0.999 if change in ("none", "blur", "noise") else 0.995)


@pytest.mark.parametrize(("side", "amount"), [(32, 0.3), (64, 0.5)])
def test_outlines_may_wobble(side: int, amount: float) -> None:
    """Pixels moved by smooth random ways of this root mean square: unevenness of a drawing hand."""
    scenes = list(compose(range(OTHERS, OTHERS + 300)))
    pictures = drawn(scenes, side).numpy()
    keys = torch.stack((torch.arange(300), torch.zeros(300).long()), 1)
    ways = normal(5, keys, 0, (2, side, side)).numpy()
    ways = ndimage.gaussian_filter(ways, (0, 0, 2, 2))
    ways *= amount / ways.std()
    grid = np.stack(np.meshgrid(np.arange(side), np.arange(side), indexing="ij"))
    for picture, way in zip(pictures, ways, strict=True):
        for channel in picture:
            channel[:] = ndimage.map_coordinates(channel, grid + way, order=1, mode="nearest")
    assert right(scenes, torch.from_numpy(pictures), 0.03) >= 0.98


def test_likeness_tells_how_sure_a_reading_is() -> None:
    scenes = list(compose(range(OTHERS, OTHERS + 200)))
    readings = read(noisy(blurred(drawn(scenes, 32))))
    assert min(seen.likeness for reading in readings for seen in reading.objects) > 0.97 > ALIKE
    (crescent,) = read(on_white(NO_SHAPES["crescent"]))[0].objects
    assert crescent.likeness < ALIKE


@pytest.mark.parametrize("side", [40, 100, MOST])
def test_other_sides_and_uint8_read_the_same(side: int) -> None:
    scenes = list(compose(range(OTHERS, OTHERS + 60)))
    pixels = draw(scenes, side).permute(0, 3, 1, 2)
    assert right(scenes, pixels) == 1
    assert [r.objects[0][:3] for r in read(pixels)] == [
        r.objects[0][:3] for r in read(to_float(pixels))
    ]


def test_a_reading_does_not_depend_on_the_batch() -> None:
    pictures = noisy(drawn(list(compose(range(300))), 32))
    together = read(pictures)
    for i in (0, 7, 299):
        alone = read(pictures[i : i + 1])[0]
        assert [seen[:3] for seen in alone.objects] == [seen[:3] for seen in together[i].objects]
        assert np.allclose(
            [seen[3:] for seen in alone.objects],
            [seen[3:] for seen in together[i].objects],
            atol=1e-5,
        )


def on_white(inside: Callable[..., np.ndarray], radius: float = 6.5) -> Tensor:
    """A red figure in the middle of a white picture of 32 pixels, (1, 3, 32, 32)."""
    ticks = ((np.arange(256) + 0.5) / 8 - 16.3) / radius
    covered = inside(*np.meshgrid(ticks, ticks)).astype(float)
    share = torch.from_numpy(covered.reshape(32, 8, 32, 8).mean((1, 3)))
    red = torch.tensor(COLORS["red"]).reshape(3, 1, 1)
    return (250 + share * (red - 250)).round().to(torch.uint8)[None]


NO_SHAPES: dict[str, Callable[..., np.ndarray]] = {
    "half a disc": lambda x, y: (np.hypot(x, y) < 1) & (y < 0),
    "crescent": lambda x, y: (np.hypot(x, y) < 1) & (np.hypot(x - 0.6, y) > 0.9),
    "bar": lambda x, y: (abs(x) < 1.2) & (abs(y) < 0.3),
    "ellipse": lambda x, y: np.hypot(x / 1.27, y * 1.27) < 0.95,
    "rectangle": lambda x, y: (abs(x) < 1.1) & (abs(y) < 0.65),
    "L": lambda x, y: (abs(x) < 0.9) & (abs(y) < 0.9) & ~((x > -0.3) & (y < 0.3)),
    "T": lambda x, y: (abs(x) < 0.9) & (abs(y) < 0.9) & ((y < -0.3) | (abs(x) < 0.3)),
    "two discs that touch": lambda x, y: np.hypot(abs(x) - 0.7, y) < 0.75,
    "X": lambda x, y: (abs(abs(x) - abs(y)) < 0.45) & (abs(x) + abs(y) < 1.35),
    "triangle on its head": lambda x, y: (y > -0.6) & (abs(x) < 0.577 * (1.2 - y)) & (y < 1.2),
}


@pytest.mark.parametrize("figure", NO_SHAPES)
def test_what_is_no_shape_is_called_none(figure: str) -> None:
    (reading,) = read(on_white(NO_SHAPES[figure]))
    (seen,) = reading.objects
    assert seen.shape is None
    assert seen.size is None
    assert seen.color == "red"
    assert reading.background == "white"


def test_a_colour_that_no_object_has_is_called_none() -> None:
    brown = torch.where(on_white(lambda x, y: np.hypot(x, y) < 0.95) < 240, 90, 250)
    (reading,) = read(brown.to(torch.uint8))
    assert [seen[:2] for seen in reading.objects] == [("circle", None)]
    pale = torch.full((1, 3, 32, 32), 200, dtype=torch.uint8)
    pale[:, 2] = 120
    assert read(pale) == [Reading(None, ())]


def test_an_object_far_too_large_is_of_no_size() -> None:
    (reading,) = read(on_white(lambda x, y: np.hypot(x, y) < 0.95, radius=11))
    assert (reading.objects[0].shape, reading.objects[0].size) == ("circle", None)


def test_dust_is_no_object_and_an_empty_picture_has_none() -> None:
    scene = Scene("white", (Thing("green", "ring", "small", 0.3, 0.3),))
    pixels = draw([scene, Scene("black", ())], 32).permute(0, 3, 1, 2)
    pixels[0, :, 25:27, 25:27] = 0
    first, second = read(pixels)
    assert [seen[:3] for seen in first.objects] == [("ring", "green", "small")]
    assert second == Reading("black", ())
    assert read(pixels[:0]) == []


def test_pure_noise_and_infinities_are_read_without_a_fault() -> None:
    keys = torch.stack((torch.arange(20), torch.zeros(20).long()), 1)
    noise = normal(0, keys, 0, (3, 32, 32))
    noise[0, :, :4] = float("nan")
    noise[1, :, 9:] = float("inf")
    readings = read(noise)
    assert len(readings) == 20
    assert all(0 <= seen.x <= 1 for reading in readings for seen in reading.objects)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (torch.zeros(3, 32, 32), r"given \(3, 32, 32\)"),
        (torch.zeros(1, 1, 32, 32), r"\(1, 1, 32, 32\)"),
        (torch.zeros(1, 3, 32, 48), r"\(1, 3, 32, 48\)"),
        (torch.zeros(1, 3, 16, 16), "from 32 to 128"),
        (torch.zeros(1, 3, 32, 32, dtype=torch.int64), "torch.int64; it reads uint8"),
    ],
)
def test_pictures_that_can_not_be_read(given: Tensor, words: str) -> None:
    with pytest.raises(ShapeError, match=words):
        read(given)


def test_a_part_is_brought_to_one_size_and_place() -> None:
    """Its patch has its centre of mass in the middle, and one radius of gyration."""
    pixels = draw(list(compose(range(50))), 64).float().numpy()
    paper = pixels[:, 0, 0]
    blobs = blobs_of(pixels, paper, np.zeros(50, np.float32))
    weight = np.abs(blobs.patch).sum(3)
    ticks = np.linspace(-2.5, 2.5, GRID)
    mass = weight.sum((1, 2))
    assert np.abs((weight.sum(1) * ticks).sum(1) / mass).max() < 0.03
    square = np.add.outer(ticks**2, ticks**2)
    assert np.sqrt((weight * square).sum((1, 2)) / mass) == pytest.approx(1, abs=0.05)
