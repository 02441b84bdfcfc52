"""The recipes of the Hugging Face course's "from scratch" unit, and of the DDPM walk-through."""

from __future__ import annotations

from couette.config import (
    DataConfig,
    DiffusionConfig,
    RunConfig,
    SamplingConfig,
    Spec,
    TrainingConfig,
    spec,
)
from couette.registry import RECIPES

_TOY = DiffusionConfig(
    schedule=spec("flow"),
    noise="uniform",
    parameterization=spec("x0"),
    told=spec("constant", value=0.0),
    weighting=spec("uniform"),
    times=spec("uniform"),
    drop=1.0,
)
_ADAM = TrainingConfig(
    epochs=3,
    batch=128,
    lr=1e-3,
    betas=(0.9, 0.999),
    warmup=0,
    clip=None,
    average=0.0,
    sample_every="epoch",
)
_UNET = spec(
    "unet2d",
    block_out_channels=(32, 64, 64),
    attention=(False, True, True),
    norm_num_groups=32,
)


def _course(name: str, network: Spec, diffusion: DiffusionConfig = _TOY) -> RunConfig:
    return RunConfig(
        recipe=name,
        data=DataConfig(source="mnist"),
        codec=spec("unit"),
        diffusion=diffusion,
        network=network,
        training=_ADAM,
        sampling=SamplingConfig(sampler=spec("mix"), grid=spec("uniform"), steps=40),
    )


@RECIPES.register("course-basic")
def course_basic() -> RunConfig:
    """The course's minimal UNet: predict the picture from a mix with uniform noise; 3 epochs."""
    return _course("course-basic", spec("basic"))


@RECIPES.register("course-unet")
def course_unet() -> RunConfig:
    """As course-basic, by the course's larger UNet (1,707,009 parameters), told t = 0 always."""
    return _course("course-unet", _UNET)


@RECIPES.register("course-unet-time")
def course_unet_time() -> RunConfig:
    """The course's suggested variation: the larger UNet is told t = 1000·amount."""
    told = _TOY.model_copy(update={"told": spec("time", scale=1000.0)})
    return _course("course-unet-time", _UNET, told)


@RECIPES.register("ddpm")
def ddpm() -> RunConfig:
    """The DDPM walk-through: 32 px, T = 1000, noise prediction, UNet 16/32/64/64; 5 epochs.

    The walk-through's code ends beta at 0.01 where its text, like the paper, says 0.02; this is
    0.02.
    """
    return RunConfig(
        recipe="ddpm",
        data=DataConfig(source="fashion-mnist", resolution=32),
        diffusion=DiffusionConfig(
            schedule=spec("linear", steps=1000),
            parameterization=spec("eps"),
            told=spec("index"),
            times=spec("uniform"),
            drop=1.0,
        ),
        network=spec(
            "unet2d",
            block_out_channels=(16, 32, 64, 64),
            attention=(False, True, True, True),
            norm_num_groups=8,
        ),
        training=_ADAM.model_copy(update={"epochs": 5}),
        sampling=SamplingConfig(
            sampler=spec("ddpm", variance="beta"),
            grid=spec("strided"),
            steps=1000,
            threshold=spec("static"),
        ),
    )
