"""The façade that `import couette` offers: the commands' words as functions."""

from couette.api.drawing import load, sample, steps
from couette.api.measuring import evaluate, lab
from couette.api.training import Run, begin, new_folder, recipe_config, train, with_length

__all__ = [
    "Run",
    "begin",
    "evaluate",
    "lab",
    "load",
    "new_folder",
    "recipe_config",
    "sample",
    "steps",
    "train",
    "with_length",
]
