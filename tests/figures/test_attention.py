"""Where a model looks when it reads."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from couette.config import DiffusionConfig, ModelConfig, SamplingConfig, TextConfig, spec
from couette.data.tokenizer import Tokenizer
from couette.errors import InputError
from couette.figures import draw, resolve
from couette.figures.attention import looked, shaded
from couette.model import Model, Parts, assemble, build_network
from couette.networks.text import CrossAttention
from small_runs import POINTS, losses, session

TOKENIZER = Tokenizer.learned(["a red circle", "a blue square"] * 3, 300)
SAMPLING = SamplingConfig(sampler=spec("euler"), grid=spec("uniform"), steps=3)


def model() -> Model:
    config = ModelConfig(
        recipe="text-to-image",
        channels=3,
        height=16,
        width=32,
        codec=spec("symmetric"),
        diffusion=DiffusionConfig(
            schedule=spec("flow"), parameterization=spec("flow"), told=spec("time")
        ),
        text=TextConfig(encoder="learned", vocabulary=TOKENIZER.size, length=8),
        network=spec("unet", size="tiny", width=16, reading=0),
        sampling=SAMPLING,
    )
    torch.manual_seed(0)
    network = build_network(config).eval()
    for parameter in network.parameters():
        if parameter.ndim > 1 and not parameter.any():
            nn.init.normal_(parameter, std=0.1)
    return assemble(config, network, None, Parts(TOKENIZER))


def test_each_word_has_a_map_that_lies_on_the_picture() -> None:
    picture, maps = looked(model(), "a red circle", SAMPLING, 0)
    assert picture.shape == (3, 16, 32)
    assert list(maps) == [("a", 0), ("red", 1), ("circle", 2)]
    for each in maps.values():
        assert each.shape == (16, 32) and (each.min(), each.max()) == (0, 1)


def test_a_word_that_only_the_left_half_looks_at() -> None:
    """Maps are turned as the picture is: weights by hand, that a column of positions decides."""
    held = model()

    class Left(CrossAttention):
        def forward(self, h: Tensor, text: Tensor, mask: Tensor, where: object = None) -> Tensor:
            height, width = h.shape[-2:]
            left = (torch.arange(width) < width // 2).float().expand(height, width).reshape(-1)
            weights = torch.zeros(len(h), self.heads, height * width, text.shape[1])
            weights[..., 2] = left  # the second word
            weights[..., 1] = 1 - left
            if self.tap is not None:
                self.tap(weights)
            return h

    for part in held.network.modules():
        if isinstance(part, CrossAttention):
            part.__class__ = Left
    _, maps = looked(held, "a red circle", SAMPLING, 0)
    red, a = maps["red", 1], maps["a", 0]
    assert red[:, :12].min() > 0.9 and red[:, 20:].max() < 0.1
    assert a[:, :12].max() < 0.1 and a[:, 20:].min() > 0.9


def test_shade() -> None:
    picture = torch.ones(1, 2, 2)
    maps = torch.tensor([[[0.0, 1.0], [0.5, 1.0]]])
    found = shaded(picture, maps)[0, 0]
    torch.testing.assert_close(found, torch.tensor([[-0.5, 1.0], [0.25, 1.0]]))


def test_a_model_that_reads_nothing(tmp_path: Path) -> None:
    losses(session(tmp_path, {**POINTS, "data": {"source": "digits", "limit": 20, "resolution": 8},
        "network": "unet:size=tiny,width=16"}, length={"steps": 1}))  # fmt: skip
    with pytest.raises(InputError, match="trained without captions"):
        draw(resolve(str(tmp_path)), "attention", {"prompt": ("a",)}, tmp_path / "figures")
