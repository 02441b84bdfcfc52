"""Recipes whose pixels are states: a few gray levels, masked or shuffled and brought back."""

from __future__ import annotations

from couette.config import DiffusionConfig, RunConfig, SamplingConfig, spec
from couette.recipes.default import digits
from couette.registry import RECIPES


@RECIPES.register("absorbing")
def absorbing() -> RunConfig:
    """Masked diffusion: pixels of 8 gray levels go to [MASK] and come back; in two minutes."""
    base = digits()
    return base.model_copy(
        update={
            "recipe": "absorbing",
            "codec": spec("levels", count=8),
            "diffusion": DiffusionConfig(
                schedule=spec("flow"),
                noise="absorbing",
                parameterization=spec("x0"),
                told=spec("time", scale=1.0),
                times=spec("uniform"),
            ),
            "training": base.training.model_copy(update={"minutes": 2.0}),
            "sampling": SamplingConfig(
                sampler=spec("categorical"), grid=spec("uniform"), steps=128, guidance=1.5
            ),
        }
    )


@RECIPES.register("multinomial")
def multinomial() -> RunConfig:
    """As absorbing, by pixels that turn into any level; the time alone says how many have."""
    base = absorbing()
    noise = {"noise": "multinomial", "schedule": spec("cosine"), "cross_entropy": 0.01}
    return base.model_copy(
        update={
            "recipe": "multinomial",
            "diffusion": base.diffusion.model_copy(update=noise),
            "sampling": base.sampling.model_copy(update={"grid": spec("strided")}),
        }
    )
