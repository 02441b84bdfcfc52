"""Drawn scenes with captions, and a reader that tells from a picture what it shows.

So that whether a model does what a prompt asks is measured, not judged by eye:

    asked = prompts("two", 1000)        # asked[0].text: "a red circle above a blue square"
    readings = read(pictures)           # of (B, 3, S, S), what a model drew for those texts
    tally(judge(p.asked, r) for p, r in zip(asked, readings))["both"].share

| file | what it holds |
|---|---|
| `vocabulary.py` | shapes, colours, sizes, backgrounds, places, relations; what is held out |
| `outlines.py` | each shape as a signed distance |
| `scenes.py`, `composing.py` | what a scene is; scenes as a function of integers |
| `drawing.py` | scenes to pixels |
| `asking.py` | what words say of a scene |
| `wording.py`, `parsing.py` | from there to words, and back |
| `blobs.py`, `reading.py` | pixels to what they show |
| `judging.py` | what was asked against what was read |
| `prompts.py`, `source.py` | captions and prompts; the data set |
"""

from couette.data.shapes.asking import Asked, Part
from couette.data.shapes.composing import SEEN, Split, compose
from couette.data.shapes.drawing import draw
from couette.data.shapes.judging import Tally, Verdict, judge, tally
from couette.data.shapes.parsing import understood
from couette.data.shapes.prompts import KINDS, Prompt, PromptKind, captions, prompts
from couette.data.shapes.reading import Reading, Seen, read
from couette.data.shapes.scenes import Scene, Thing
from couette.data.shapes.source import drawn, shapes
from couette.data.shapes.vocabulary import BACKGROUNDS, COLORS, HELD_OUT, SHAPES, SIZES

__all__ = [
    "BACKGROUNDS",
    "COLORS",
    "HELD_OUT",
    "KINDS",
    "SEEN",
    "SHAPES",
    "SIZES",
    "Asked",
    "Part",
    "Prompt",
    "PromptKind",
    "Reading",
    "Scene",
    "Seen",
    "Split",
    "Tally",
    "Thing",
    "Verdict",
    "captions",
    "compose",
    "draw",
    "drawn",
    "judge",
    "prompts",
    "read",
    "shapes",
    "tally",
    "understood",
]
