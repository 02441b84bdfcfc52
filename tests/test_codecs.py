from __future__ import annotations

import pytest
import torch

from couette.codecs import Symmetric, Unit
from couette.config import spec
from couette.registry import CODECS


@pytest.mark.parametrize("name", list(CODECS))
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
