"""Couette: train diffusion models on your own pictures, sample from them and measure them.

    import couette
    run = couette.train("digits", minutes=1)
    model = couette.load(run.path)
    pictures = couette.sample(model, count=16, label=3, guidance=2.0, seed=0)

The names below are loaded when they are first used, so that `import couette` costs nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from couette import exact
    from couette.api import edit, evaluate, lab, load, sample, search, steps, train
    from couette.errors import CouetteError

__version__ = "0.1.0"
__all__ = [
    "CouetteError",
    "edit",
    "evaluate",
    "exact",
    "lab",
    "load",
    "sample",
    "search",
    "steps",
    "train",
]


def __getattr__(name: str) -> Any:
    if name == "CouetteError":
        from couette.errors import CouetteError

        return CouetteError
    if name == "exact":
        import couette.exact as exact

        return exact
    if name in __all__:
        from couette import api

        return getattr(api, name)
    raise AttributeError(f"module 'couette' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
