"""Models for the tests of the evaluation: one whose samples are known exactly, one untrained."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from couette.config import DiffusionConfig, ModelConfig, SamplingConfig, spec
from couette.contracts import Cond
from couette.data import Dataset, to_float
from couette.model import Model, assemble, build_network

ONE_STEP = SamplingConfig(sampler=spec("euler"), grid=spec("uniform"), steps=1)


class Memory(nn.Module):
    """A network that answers each label with one training picture, whatever it is shown."""

    wants = frozenset({"label"})

    def __init__(self, pictures: Tensor) -> None:
        super().__init__()
        self.register_buffer("pictures", pictures)

    def forward(self, x: Tensor, told: Tensor, cond: Cond) -> Tensor:
        pictures: Tensor = self.get_buffer("pictures")
        return pictures[cond["label"]]


def config(data: Dataset, diffusion: DiffusionConfig, **more: object) -> ModelConfig:
    return ModelConfig.model_validate(
        {
            "recipe": "default",
            "channels": data.channels,
            "height": data.height,
            "width": data.width,
            "classes": data.classes,
            "codec": spec("symmetric"),
            "diffusion": diffusion,
            "network": spec("unet", size="tiny"),
            "sampling": ONE_STEP,
            "data_fingerprint": data.fingerprint,
            **more,
        }
    )


def parrot(data: Dataset) -> Model:
    """A model whose sample of class k is the first training picture of class k."""
    assert data.labels is not None
    first = torch.tensor([int((data.labels == k).nonzero()[0]) for k in range(len(data.classes))])
    network = Memory(to_float(data.pictures(first)))
    diffusion = DiffusionConfig(
        schedule=spec("flow"), parameterization=spec("x0"), told=spec("time")
    )
    return assemble(config(data, diffusion), network)


def untrained(data: Dataset, seed: int = 0, **more: object) -> Model:
    """A small network with random weights, on the default diffusion."""
    described = config(data, DiffusionConfig(), **more)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = build_network(described)
        for parameter in network.parameters():  # outputs begin at zero otherwise
            nn.init.normal_(parameter, std=0.05)
    return assemble(described, network.eval())


def both(data: Dataset) -> Mapping[str, Model]:
    return {"weights": untrained(data, 0), "average": parrot(data)}
