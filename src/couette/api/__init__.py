"""The façade that `import couette` offers: the commands' words as functions.

The names are loaded when they are first used, so that drawing a picture does not load what trains.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
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

_HOMES = {
    "drawing": ("load", "sample", "steps"),
    "editing": ("edit",),
    "exporting": ("export",),
    "measuring": ("evaluate", "lab"),
    "searching": ("Found", "search"),
    "training": ("Run", "begin", "new_folder", "recipe_config", "train", "with_length"),
}


def __getattr__(name: str) -> Any:
    for home, names in _HOMES.items():
        if name in names:
            return getattr(import_module(f"{__name__}.{home}"), name)
    raise AttributeError(f"module '{__name__}' has no attribute '{name}'")


def __dir__() -> list[str]:
    return __all__
