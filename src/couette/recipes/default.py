"""The recipes we recommend: sized from the data, fast on a laptop."""

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


@RECIPES.register("default")
def default() -> RunConfig:
    """What we think best for a new folder: EDM preconditioning, a UNet sized from the data.

    Levels count alike, however large their errors are, which is learned (Karras et al. 2024, eqs.
    15–22).
    """
    return RunConfig(
        recipe="default",
        diffusion=DiffusionConfig(
            schedule=spec("edm"),
            parameterization=spec("edm", sigma_data=0.5),
            told=spec("log"),
            times=spec("log-normal", mean=0.0, std=1.0),
            weighting=spec("uncertainty"),
            drop=0.1,
        ),
        training=TrainingConfig(
            minutes=5,
            batch=0,
            optimizer="muon",
            lr=4e-3,
            muon_lr=0.02,
            warmup=50,
            decay="linear",
            average=0.08,
        ),
        sampling=SamplingConfig(
            sampler=spec("dpmpp-2m"),
            grid=spec("karras", sigma_min=0.01, sigma_max=40.0),
            steps=10,
            guidance=1.5,
        ),
    )


@RECIPES.register("digits")
def digits() -> RunConfig:
    """The demo: scikit-learn's 1,797 handwritten digits at 16 px, in one minute."""
    base = default()
    return base.model_copy(
        update={
            "recipe": "digits",
            "data": DataConfig(source="digits"),
            # Pictures of fewer pixels are lost in less noise.
            "diffusion": base.diffusion.model_copy(
                update={"times": spec("log-normal", mean=-0.4, std=1.0)}
            ),
            "training": base.training.model_copy(update={"minutes": 1.0, "batch": 32, "lr": 3e-3}),
        }
    )


@RECIPES.register("points")
def points() -> RunConfig:
    """Points in the plane: dye that is stirred until it vanishes, and stirred back."""
    base = default()
    return base.model_copy(
        update={
            "recipe": "points",
            "data": DataConfig(source="moons"),
            "diffusion": base.diffusion.model_copy(
                update={
                    "parameterization": spec("edm", sigma_data=1.0),
                    "times": spec("log-normal", mean=-1.2, std=1.6),
                    "weighting": spec("uniform"),
                }
            ),
            "network": spec("points"),
            "training": base.training.model_copy(update={"minutes": 1.0, "batch": 512}),
            "sampling": base.sampling.model_copy(
                update={"sampler": spec("heun"), "steps": 18, "guidance": 1.0}
            ),
        }
    )
