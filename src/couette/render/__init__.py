"""Pictures, plots and animations from arrays and tensors. Knows nothing of models.

files.py     saving PNGs with their settings, GIFs, and reading the settings back
pixels.py    from tensors to 8-bit colour: clipping, rescaling, enlarging
sheets.py    grids, strips, comparisons, nearest neighbours: pictures in rows and columns
motion.py    the reverse process as frames and as a filmstrip
plots.py     curves, losses, noise schedules, bars
density.py   random variables and points: histograms, conditionals, dye
plan.py      a network drawn as the U it is
style.py     the fonts, colours and sizes that all of them share

Every function returns a `PIL.Image.Image` in mode RGB (or a list of them, for an animation).
"""

from couette.render.density import conditionals, dye, dye_frames, histograms
from couette.render.files import read_text, save, save_gif
from couette.render.matrix import matrix
from couette.render.motion import filmstrip, reverse_frames, spread
from couette.render.pixels import to_rgb
from couette.render.plan import network_plan
from couette.render.plots import Levels, bars, curves, loss_curve, schedules
from couette.render.sheets import beside, columns_for, grid, nearest, steps, strip

__all__ = [
    "columns_for",
    "Levels",
    "bars",
    "beside",
    "conditionals",
    "curves",
    "dye",
    "dye_frames",
    "filmstrip",
    "grid",
    "histograms",
    "loss_curve",
    "matrix",
    "nearest",
    "network_plan",
    "read_text",
    "reverse_frames",
    "save",
    "save_gif",
    "schedules",
    "spread",
    "steps",
    "strip",
    "to_rgb",
]
