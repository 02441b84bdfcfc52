"""A classifier of noised pictures, to guide a model by."""

from __future__ import annotations

from couette.config import RunConfig, spec
from couette.recipes.default import default
from couette.registry import RECIPES


@RECIPES.register("classifier")
def classifier() -> RunConfig:
    """A classifier of noised pictures, for classifier guidance; it makes no pictures itself.

    Noised as in the default recipe, with more of the high noise levels, where a picture's class is
    decided.
    """
    return (
        default()
        .model_copy(update={"recipe": "classifier"})
        .replace(
            objective=spec("classifier"),
            network=spec("encoder"),
            diffusion={"times": spec("log-normal", mean=-0.2, std=1.4), "drop": 0.0},
            training={"minutes": 1.0, "optimizer": "adamw", "lr": 2e-3, "weight_decay": 0.05},
            sampling={"guidance": 1.0},
        )
    )
