"""Edits: pictures changed, combined or completed by a model. One function each, on any model.

An edit works in one of two ways: it wraps the guided denoiser into another, or it drives the walk,
a generator of Steps. So every edit goes with every model, sampler and guidance that its noise
allows.

| file | what it holds |
|---|---|
| `registry.py` | what an edit is given, and what it says of how pictures are drawn |
| `img2img.py` | from a picture that is noised part of the way |
| `inpainting.py`, `masks.py` | part of a picture made new, the rest kept |
| `anagrams.py`, `views.py` | one picture that shows two things, by how it is looked at |
| `hybrids.py`, `partitions.py`, `filters.py` | each part of a picture shows something else |
| `inverse.py`, `operators.py` | pictures of which something was measured |
| `inversion.py` | the noise that a picture comes from: paths, variations, edits |
| `windows.py` | pictures larger than the model's |
| `attention.py` | more or less of a word |
| `asking.py` | one denoiser asked for several things in one batch |
| `carry.py`, `sheets.py` | edits carried out, and what came of them to be looked at |

A new edit is one function (scene, **settings) to a list of `Edit`, decorated with
`@EDITS.register("name", pictures=N)`, in a file imported here: N pictures are needed, and up to
`optional=M` may be given instead.
"""

from couette.editing.anagrams import Anagram, anagram, commutator
from couette.editing.attention import reweigh, reweighed
from couette.editing.carry import Edited, drawn, edits_of, watched
from couette.editing.hybrids import Hybrid, hybrid
from couette.editing.img2img import from_picture, img2img
from couette.editing.inpainting import Masked, inpaint, outpaint, repaint, replaced
from couette.editing.inverse import (
    Guided,
    Projected,
    colorize,
    correction,
    deblur,
    dps,
    restore,
    superres,
)
from couette.editing.inversion import (
    friendly,
    interpolate,
    invert,
    noise_of,
    retraced,
    slerp,
    vary,
)
from couette.editing.operators import Average, Blur, Box, Gray, Holes, Kept, Linear, Operator
from couette.editing.partitions import Part, whole
from couette.editing.registry import EDITS, OPERATORS, PARTITIONS, VIEWS, Edit, Scene
from couette.editing.sheets import frames, sheet
from couette.editing.views import View, orthogonal, rearranged
from couette.editing.windows import Windowed, panorama

__all__ = [
    "EDITS",
    "OPERATORS",
    "PARTITIONS",
    "VIEWS",
    "Anagram",
    "Average",
    "Blur",
    "Box",
    "Edit",
    "Edited",
    "Gray",
    "Guided",
    "Holes",
    "Hybrid",
    "Kept",
    "Linear",
    "Masked",
    "Operator",
    "Part",
    "Projected",
    "Scene",
    "View",
    "Windowed",
    "anagram",
    "colorize",
    "commutator",
    "correction",
    "deblur",
    "dps",
    "drawn",
    "edits_of",
    "frames",
    "friendly",
    "from_picture",
    "hybrid",
    "img2img",
    "inpaint",
    "interpolate",
    "invert",
    "noise_of",
    "orthogonal",
    "outpaint",
    "panorama",
    "rearranged",
    "repaint",
    "replaced",
    "restore",
    "retraced",
    "reweigh",
    "reweighed",
    "sheet",
    "slerp",
    "superres",
    "vary",
    "watched",
    "whole",
]
