"""Models whose denoiser is known in closed form, for the tests of edits."""

from __future__ import annotations

import torch
from torch import Tensor

from couette.config import DiffusionConfig, ModelConfig, SamplingConfig, spec
from couette.editing import Scene
from couette.exact import Ideal, Known, Mixture
from couette.generate import sampling_of
from couette.model import Model, assemble
from couette.registry import SCHEDULES

SHAPE = (1, 2, 4)
"""Of the little pictures: eight pixels."""


def model_of(known: Known, schedule: str = "edm", codec: str = "symmetric") -> Model:
    """A world as a model, told the time itself; its classes are numbered."""
    channels, height, width = known.shape
    config = ModelConfig(
        recipe="exact",
        channels=channels,
        height=height,
        width=width,
        classes=tuple(map(str, range(len(known.prior)))),
        codec=spec(codec),
        diffusion=DiffusionConfig(
            schedule=spec(schedule), parameterization=spec("x0"), told=spec("time", scale=1.0)
        ),
        network=spec("exact", world="exact:digits"),
        sampling=SamplingConfig(sampler=spec("heun"), steps=20),
    )
    return assemble(config, Ideal(known))


def covariance() -> Tensor:
    """Of the eight pixels: neighbours alike, (8, 8) float64."""
    at = torch.arange(8, dtype=torch.float64)
    return 0.25 * torch.exp(-(at[:, None] - at).abs() / 3)


def gaussian(schedule: str = "edm") -> Mixture:
    """One Gaussian of eight pixels that depend on each other, mean 0.1."""
    values, directions = torch.linalg.eigh(covariance())
    factors = (directions * values.clamp(min=0).sqrt()).T.reshape(1, 8, *SHAPE)
    means = torch.full((1, *SHAPE), 0.1)
    return Mixture(SCHEDULES.build(spec(schedule)), means, 1e-3, factors=factors)


def bumps(schedule: str = "edm") -> Mixture:
    """Two classes, each a Gaussian about a picture of its own."""
    means = torch.tensor([[-0.6, 0.4], [0.5, -0.3]]).repeat_interleave(4, 1).reshape(2, *SHAPE)
    return Mixture(SCHEDULES.build(spec(schedule)), means, 0.25, labels=torch.arange(2))


def scene(model: Model, *pictures: Tensor, **more: object) -> Scene:
    drawing = {
        key: more.pop(key) for key in ("steps", "sampler", "guidance", "grid") if key in more
    }
    sampling = sampling_of(model, **drawing)
    return Scene(model, tuple(pictures), sampling=sampling, raw=tuple(pictures), **more)  # type: ignore[arg-type]


def picture(value: float = 0.3, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return (value + 0.2 * torch.randn(1, *SHAPE, generator=generator)).clamp(-1, 1)
