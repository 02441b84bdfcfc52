"""The words of the drawn scenes, and what each of them means in a picture.

Lengths are shares of the picture's side, so a scene is the same at any resolution.
"""

from __future__ import annotations

from typing import Final, Literal

Color = tuple[int, int, int]

SHAPES: Final = ("circle", "square", "triangle", "star", "cross", "ring", "heart", "diamond")

COLORS: Final[dict[str, Color]] = {
    "red": (226, 59, 52),
    "orange": (245, 138, 31),
    "yellow": (248, 213, 38),
    "green": (47, 168, 79),
    "cyan": (44, 197, 222),
    "blue": (48, 105, 232),
    "purple": (139, 63, 199),
    "pink": (245, 140, 192),
}
"""What objects are painted in: any two lie 75 or more apart in RGB, 0.15 in OKLab."""

BACKGROUNDS: Final[dict[str, Color]] = {
    "white": (250, 250, 250),
    "gray": (138, 142, 148),
    "black": (21, 22, 26),
    "navy": (34, 47, 107),
}
"""Each lies 94 or more from every colour of an object in RGB, 0.16 in OKLab."""

SIZES: Final[dict[str, float]] = {"small": 0.125, "medium": 0.158, "large": 0.2}
"""The unit of an object's outline, about half its width; each is 1.26 times the one before."""

PLACES: Final = (
    *("top left", "top", "top right"),
    *("left", "center", "right"),
    *("bottom left", "bottom", "bottom right"),
)
"""Where one object can be, row by row."""

Relation = Literal["above", "below", "left of", "right of"]
RELATIONS: Final[tuple[Relation, ...]] = ("above", "below", "left of", "right of")
MOST: Final = 4
"""The most objects in a scene."""

HELD_OUT: Final = frozenset(
    {
        ("red", "heart"),
        ("orange", "square"),
        ("yellow", "cross"),
        ("green", "star"),
        ("cyan", "triangle"),
        ("blue", "ring"),
        ("purple", "circle"),
        ("pink", "diamond"),
    }
)
"""Colours and shapes that are never drawn together to train on: each colour and each shape once."""
