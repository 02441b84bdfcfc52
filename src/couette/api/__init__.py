"""The façade that `import couette` offers: the commands' words as functions.

The names are loaded when they are first used, so that drawing a picture does not load what trains.
"""

from __future__ import annotations

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


def __getattr__(name: str) -> Any:
    if name in ("load", "sample", "steps"):
        from couette.api import drawing

        return getattr(drawing, name)
    if name == "edit":
        from couette.api import editing

        return editing.edit
    if name == "export":
        from couette.api import exporting

        return exporting.export
    if name in ("evaluate", "lab"):
        from couette.api import measuring

        return getattr(measuring, name)
    if name in ("Found", "search"):
        from couette.api import searching

        return getattr(searching, name)
    if name in __all__:
        from couette.api import training

        return getattr(training, name)
    raise AttributeError(f"module '{__name__}' has no attribute '{name}'")


def __dir__() -> list[str]:
    return __all__
