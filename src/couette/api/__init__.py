"""The façade that `import couette` offers: the commands' words as functions."""

from couette.api.drawing import load, sample, steps
from couette.api.editing import edit
from couette.api.exporting import export
from couette.api.measuring import evaluate, lab
from couette.api.searching import Found, search
from couette.api.training import Run, begin, new_folder, recipe_config, train, with_length

__all__ = [
    "Found",
    "Run",
    "begin",
    "edit",
    "evaluate",
    "export",
    "lab",
    "load",
    "new_folder",
    "recipe_config",
    "sample",
    "search",
    "steps",
    "train",
    "with_length",
]
