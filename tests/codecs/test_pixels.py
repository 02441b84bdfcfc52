from __future__ import annotations

import pytest
import torch

from couette.codecs import Levels, Symmetric, Unit
from couette.config import spec
from couette.errors import ConfigError, ShapeError
from couette.registry import CODECS

PIXELS = [name for name in CODECS if not {"states", "latents"} & CODECS._traits[name].keys()]


@pytest.mark.parametrize("name", PIXELS)
class TestEveryCodec:
    def test_decoding_undoes_encoding(self, name: str) -> None:
        codec = CODECS.build(spec(name))
        pictures = torch.rand(2, 3, 4, 5) * 2 - 1
        latents = codec.encode(pictures)
        assert latents.shape == (2, *codec.shape(3, 4, 5))
        assert torch.allclose(codec.decode(latents), pictures, rtol=0, atol=1e-6)

    def test_is_differentiable_both_ways(self, name: str) -> None:
        codec = CODECS.build(spec(name))
        pictures = torch.rand(1, 1, 2, 2, dtype=torch.float64).requires_grad_()
        assert torch.autograd.gradcheck(codec.encode, pictures)
        assert torch.autograd.gradcheck(codec.decode, pictures)

    def test_range_is_that_of_encoded_pictures(self, name: str) -> None:
        codec = CODECS.build(spec(name))
        ends = codec.encode(torch.tensor([-1.0, 1.0]).reshape(2, 1, 1, 1)).flatten().tolist()
        assert ends == [codec.low, codec.high]


def test_symmetric_leaves_pictures_alone() -> None:
    pictures = torch.rand(1, 1, 2, 2)
    assert Symmetric().encode(pictures) is pictures


def test_unit_is_zero_to_one() -> None:
    pictures = torch.tensor([-1.0, 0.0, 1.0]).reshape(3, 1, 1, 1)
    assert Unit().encode(pictures).flatten().tolist() == [0.0, 0.5, 1.0]
    assert Unit().decode(torch.tensor([0.25])).tolist() == [-0.5]


class TestLevels:
    def test_each_pixel_is_the_nearest_level(self) -> None:
        codec = Levels(count=5)
        pictures = torch.tensor([-1.0, -0.8, -0.7, 0.2, 0.3, 1.0, 3.0]).reshape(1, 1, 1, 7)
        states = codec.encode(pictures)
        assert states.shape == (1, 5, 1, 7) == (1, *codec.shape(1, 1, 7))
        assert states.argmax(1).flatten().tolist() == [0, 0, 1, 2, 3, 4, 4]
        assert torch.equal(states.sum(1), torch.ones(1, 1, 7))
        assert codec.decode(states).flatten().tolist() == [-1, -1, -0.5, 0, 0.5, 1, 1]

    def test_levels_and_one_picture_come_back(self) -> None:
        codec = Levels(count=8)
        pictures = torch.linspace(-1, 1, 8).reshape(1, 2, 4)
        assert torch.equal(codec.decode(codec.encode(pictures)), pictures)

    def test_a_mask_is_gray_and_probabilities_are_a_mean(self) -> None:
        codec = Levels(count=3)
        assert codec.decode(torch.zeros(1, 3, 2, 2)).abs().max() == 0
        odds = torch.tensor([0.5, 0.25, 0.25]).reshape(1, 3, 1, 1).double().requires_grad_()
        assert float(codec.decode(odds.detach())) == -0.25
        assert torch.autograd.gradcheck(codec.decode, odds)

    def test_colour_is_refused(self) -> None:
        with pytest.raises(ShapeError, match="takes gray pictures, not 3 channels"):
            Levels().shape(3, 8, 8)


def test_latents_need_their_autoencoder() -> None:
    with pytest.raises(ConfigError, match="needs an autoencoder"):
        CODECS.build(spec("latent"))
