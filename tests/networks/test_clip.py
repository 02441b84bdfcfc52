"""Pictures and words in one space."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from couette.contracts import Sizes, TextSizes
from couette.errors import ConfigError
from couette.networks.clip import SHARPEST, Clip

SIZES = Sizes(3, 16, 16, text=TextSizes(length=7, vocabulary=30))


@pytest.fixture
def network() -> Clip:
    torch.manual_seed(0)
    return Clip(SIZES, width=16, depth=1, eye=8, embedding=12).eval()


def told(rows: int, length: int = 7, kept: int = 4) -> dict[str, Tensor]:
    mask = torch.arange(length).expand(rows, length) < kept
    generator = torch.Generator().manual_seed(1)
    text = torch.randint(3, 30, (rows, length), generator=generator)
    return {"text": text, "text_mask": mask}


def test_embeddings_are_of_unit_length(network: Clip) -> None:
    cond = told(4)
    states, words = network.read(cond["text"], cond["text_mask"])
    pictures = network.look(torch.randn(4, 3, 16, 16))
    assert states.shape == (4, 7, 16)
    assert words.shape == pictures.shape == (4, 12)
    for each in (words, pictures):
        torch.testing.assert_close(each.norm(dim=1), torch.ones(4))


def test_padding_changes_nothing(network: Clip) -> None:
    cond = told(3)
    _, words = network.read(cond["text"], cond["text_mask"])
    _, shorter = network.read(cond["text"][:, :4], cond["text_mask"][:, :4])
    torch.testing.assert_close(words, shorter, rtol=0, atol=1e-6)


def test_similarities_are_scaled_cosines(network: Clip) -> None:
    cond, x = told(3), torch.randn(3, 3, 16, 16)
    found = network(x, torch.zeros(3), cond)
    _, words = network.read(cond["text"], cond["text_mask"])
    expected = torch.nn.functional.cosine_similarity(network.look(x)[:, None], words[None], dim=2)
    torch.testing.assert_close(found, expected / 0.07)
    assert found.abs().max() <= 1 / 0.07 + 1e-4


def test_the_scale_is_clamped(network: Clip) -> None:
    with torch.no_grad():
        network.log_scale.fill_(math.log(1000.0))
    network.blunted()
    assert float(network.scale.detach()) == pytest.approx(SHARPEST)
    network.scale.backward()
    assert network.log_scale.grad is not None and float(network.log_scale.grad) > 0


@pytest.mark.parametrize("side", [(16, 16), (13, 21), (5, 5)])
def test_pictures_of_any_size(network: Clip, side: tuple[int, int]) -> None:
    assert network.look(torch.randn(2, 3, *side)).shape == (2, 12)


def test_what_it_is_not_told(network: Clip) -> None:
    x = torch.randn(1, 3, 16, 16)
    with pytest.raises(ConfigError, match="can't be told 'label'"):
        network(x, torch.zeros(1), {**told(1), "label": torch.zeros(1)})
    with pytest.raises(ConfigError, match="was told no 'text'"):
        network(x, torch.zeros(1), {})
    with pytest.raises(ConfigError, match="give data with captions"):
        Clip(Sizes(3, 16, 16))
