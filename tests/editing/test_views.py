"""Views: orthogonal, undone, and what their names say."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from couette.config import Spec
from couette.editing import VIEWS, View, orthogonal, rearranged
from couette.editing.views import pieces
from couette.errors import InputError

OWN = [name for name in VIEWS if name != "permutation"]


def view(text: str, height: int = 16, width: int = 16) -> Any:
    return VIEWS.build(Spec.model_validate(text), height, width)


@pytest.mark.parametrize("side", [8, 12, 16, 28])
@pytest.mark.parametrize("name", [*OWN, "rotate:degrees=30", "rotate:degrees=90,radius=0.6"])
def test_every_view_is_orthogonal(name: str, side: int) -> None:
    assert orthogonal(view(name, side, side), (3, side, side))


@pytest.mark.parametrize(
    "name", ["flip", "mirror", "negative", "skew", "pixels", "circle", "rotate"]
)
def test_pictures_need_not_be_square(name: str) -> None:
    assert orthogonal(view(name, 8, 13), (1, 8, 13))


@pytest.mark.parametrize("turns", [1, 2, 3])
def test_right_angles_are_exact(turns: int) -> None:
    x = torch.randn(2, 3, 16, 16)
    assert torch.equal(view(f"rotate:degrees={90 * turns}").look(x), torch.rot90(x, turns, (2, 3)))


@pytest.mark.parametrize("degrees", [10, 30, 45, 77, 123, 200, 300])
def test_a_rotation_turns_what_lies_in_the_circle(degrees: int) -> None:
    side = 64
    at = (torch.arange(side, dtype=torch.float64) - (side - 1) / 2) / (side / 2)
    y, x = torch.meshgrid(at, at, indexing="ij")
    angle = torch.deg2rad(torch.tensor(float(degrees)))
    seen = view(f"rotate:degrees={degrees}", side, side).look(
        torch.exp(-8 * ((x - 0.5) ** 2 + y**2))
    )
    # A spot to the right of the middle is found turned counter-clockwise, y pointing down.
    there = torch.exp(-8 * ((x - 0.5 * angle.cos()) ** 2 + (y + 0.5 * angle.sin()) ** 2))
    assert float((seen - there).abs()[x**2 + y**2 < 0.9].max()) < 0.15


def test_a_disc_leaves_what_is_around_it() -> None:
    x = torch.randn(1, 1, 16, 16)
    seen = view("circle:radius=0.5").look(x)
    assert torch.equal(seen[..., 0, :], x[..., 0, :])
    assert not torch.equal(seen[..., 8, :], x[..., 8, :])


@pytest.mark.parametrize("across", [2, 3, 4, 5])
def test_pieces_of_a_jigsaw_turn_into_each_other(across: int) -> None:
    piece = pieces(12 * across, across)
    turned = torch.rot90(piece)
    moved = torch.tensor(
        [(across - 1 - k % across) * across + k // across for k in range(across**2)]
    )
    assert torch.equal(piece, moved[turned])
    square = torch.arange(12 * across) // 12
    assert not torch.equal(piece, square[:, None] * across + square)  # it has tabs


def test_a_jigsaw_keeps_its_pieces_whole() -> None:
    x = torch.randn(1, 1, 32, 32)
    seen = view("jigsaw:seed=1", 32, 32).look(x)
    piece = pieces(32, 4)
    for k in range(16):
        values = seen[0, 0][piece == k].sort().values
        found = [j for j in range(16) if torch.equal(x[0, 0][piece == j].sort().values, values)]
        assert len(found) == 1
    assert not torch.equal(seen, x)


def test_patches_are_moved_whole() -> None:
    x = torch.arange(16.0).reshape(4, 4).repeat_interleave(4, 0).repeat_interleave(4, 1)
    seen = view("patches").look(x[None, None])[0, 0]
    blocks = seen.reshape(4, 4, 4, 4).transpose(1, 2).reshape(16, 16)
    assert torch.equal(blocks.min(1).values, blocks.max(1).values)
    assert torch.equal(blocks[:, 0].sort().values, torch.arange(16.0))


def test_a_rearrangement_of_ones_own(tmp_path: Path) -> None:
    file = tmp_path / "own.json"
    order = torch.randperm(12).tolist()
    file.write_text(json.dumps(order), encoding="utf-8")
    x = torch.randn(1, 1, 3, 4)
    seen = VIEWS.build(Spec(name="permutation", file=str(file)), 3, 4).look(x)
    assert torch.equal(seen.flatten(), x.flatten()[torch.tensor(order)])


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[1, 2", "no JSON list"),
        ("[0, 1, 2]", "holds 3 numbers"),
        (json.dumps([0] * 12), "once"),
        ('["a"]', "no JSON list"),
        ("[0.5]", "holds 1 numbers"),
        ("[" * 5000, "no JSON list"),
    ],
)
def test_files_that_are_no_rearrangement(text: str, said: str, tmp_path: Path) -> None:
    file = tmp_path / "own.json"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(InputError, match=said):
        VIEWS.build(Spec(name="permutation", file=str(file)), 3, 4)


@pytest.mark.parametrize(
    ("text", "size", "said"),
    [
        ("rotate:degrees=90", (8, 12), "square"),
        ("jigsaw", (8, 12), "square"),
        ("jigsaw", (10, 10), "equal parts"),
        ("patches:across=3", (8, 8), "equal parts"),
    ],
)
def test_pictures_that_a_view_can_not_take(text: str, size: tuple[int, int], said: str) -> None:
    with pytest.raises(InputError, match=said):
        view(text, *size)


def test_what_is_not_orthogonal_is_seen() -> None:
    assert not orthogonal(View(lambda x: 2 * x, lambda x: x / 2), (1, 4, 4))
    assert not orthogonal(View(lambda x: x.flip(-1), lambda x: x), (1, 4, 4))
    assert not orthogonal(View(lambda x: x.abs(), lambda x: x), (1, 4, 4))
    assert not orthogonal(View(lambda x: x + 1, lambda x: x - 1), (1, 4, 4))
    with pytest.raises(InputError, match="once"):
        rearranged(torch.tensor([[0, 0]]))
