"""The recipes of Berkeley's CS180 project 5B."""

from __future__ import annotations

from couette.config import (
    DataConfig,
    DiffusionConfig,
    RunConfig,
    SamplingConfig,
    TrainingConfig,
    spec,
)
from couette.registry import RECIPES

_ADAM = TrainingConfig(
    epochs=20,
    batch=128,
    lr=1e-3,
    betas=(0.9, 0.999),
    warmup=0,
    decay="exponential",
    clip=None,
    average=0.0,
    sample_every="epoch",
)
_T300 = DiffusionConfig(
    schedule=spec("linear", steps=300),
    parameterization=spec("eps"),
    told=spec("time", scale=1.0),
    times=spec("uniform"),
    drop=1.0,
)
_ANCESTRAL = SamplingConfig(sampler=spec("ddpm", variance="beta"), grid=spec("strided"), steps=300)


@RECIPES.register("denoiser")
def denoiser() -> RunConfig:
    """One step from z = x + 0.5·ε, pictures in [0, 1]: D = 128, Adam 1e-4, batch 256, 5 epochs."""
    return RunConfig(
        recipe="denoiser",
        data=DataConfig(source="mnist"),
        codec=spec("unit"),
        diffusion=DiffusionConfig(
            schedule=spec("edm"),
            parameterization=spec("x0"),
            told=spec("constant", value=0.0),
            times=spec("fixed", sigma=0.5),
            drop=1.0,
        ),
        network=spec("berkeley", hidden=128),
        training=_ADAM.model_copy(
            update={"epochs": 5, "batch": 256, "lr": 1e-4, "decay": "constant"}
        ),
    )


@RECIPES.register("berkeley-time")
def berkeley_time() -> RunConfig:
    """Noise prediction told the normalized time: T = 300, D = 64, Adam 1e-3, 20 epochs."""
    return RunConfig(
        recipe="berkeley-time",
        data=DataConfig(source="mnist"),
        diffusion=_T300,
        network=spec("berkeley", hidden=64, time=True),
        training=_ADAM,
        sampling=_ANCESTRAL,
    )


@RECIPES.register("berkeley-class")
def berkeley_class() -> RunConfig:
    """As berkeley-time, told the class too, which is hidden 10 % of the time; guidance 5."""
    return berkeley_time().model_copy(
        update={
            "recipe": "berkeley-class",
            "diffusion": _T300.model_copy(update={"drop": 0.1}),
            "sampling": _ANCESTRAL.model_copy(update={"guidance": 5.0}),
        }
    )
