"""Drawn scenes: objects of simple shapes and colours on a plain background."""

from couette.data.shapes.composing import Split, compose
from couette.data.shapes.drawing import draw
from couette.data.shapes.scenes import Scene, Thing
from couette.data.shapes.vocabulary import BACKGROUNDS, COLORS, HELD_OUT, SHAPES, SIZES

__all__ = [
    "BACKGROUNDS",
    "COLORS",
    "HELD_OUT",
    "SHAPES",
    "SIZES",
    "Scene",
    "Split",
    "Thing",
    "compose",
    "draw",
]
