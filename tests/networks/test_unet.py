from __future__ import annotations

from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from couette.contracts import Sizes
from couette.errors import ConfigError
from couette.networks.layers import ChannelNorm
from couette.networks.text import HEAD
from couette.networks.unet import (
    PRESETS,
    Attention,
    Block,
    Lower,
    UNet,
    unfold,
)


def channels_last(*shape: int) -> Tensor:
    return torch.randn(*shape).to(memory_format=torch.channels_last)


def stirred(network: nn.Module) -> nn.Module:
    """The network with its zeroed layers made to speak, laid out as the runtime does."""
    for parameter in network.parameters():
        if parameter.ndim > 1 and not parameter.any():
            nn.init.normal_(parameter, std=0.02)
    return network.to(memory_format=torch.channels_last).eval()  # type: ignore[call-overload,no-any-return]


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


@pytest.mark.parametrize("size", PRESETS)
def test_it_starts_as_zero(size: str) -> None:
    network = UNet(Sizes(1, 16, 16), size=size, width=16)  # type: ignore[arg-type]
    assert not network(torch.randn(2, 1, 16, 16), torch.randn(2), {}).any()


def test_presets_grow() -> None:
    counts = []
    for size, preset in PRESETS.items():
        # At an eighth of their widths: the largest would take seconds to draw its weights.
        network = UNet(Sizes(3, 64, 64, 10), size=size, width=preset.width // 8)  # type: ignore[arg-type]
        counts.append(sum(parameter.numel() for parameter in network.parameters()))
    assert all(large > 1.5 * small for small, large in pairwise(counts))


SMALL = UNet(Sizes(2, 16, 16), size="tiny", width=8, multiples=(1, 1, 2))


@settings(deadline=None, max_examples=30)
@given(height=st.integers(1, 40), width=st.integers(1, 40))
def test_pictures_of_any_size(height: int, width: int) -> None:
    x = torch.randn(1, 2, height, width)
    assert SMALL(x, torch.zeros(1), {}).shape == x.shape


def test_padding_is_the_same_as_a_border_of_zeros() -> None:
    network = stirred(UNet(Sizes(1, 16, 16), size="tiny", width=16))
    x = torch.randn(1, 1, 13, 15)
    with torch.no_grad():
        inside = network(F.pad(x, (0, 1, 0, 3)), torch.zeros(1), {})[..., :13, :15]
        torch.testing.assert_close(network(x, torch.zeros(1), {}), inside)


@pytest.mark.parametrize(
    ("side", "levels"), [(28, 2), (16, 2), (15, 2), (14, 1), (8, 1), (2, 1), (32, 3), (256, 3)]
)
def test_levels_too_small_are_left_out(side: int, levels: int) -> None:
    network = UNet(Sizes(1, side, side + 8), width=8, multiples=(1, 2, 3))
    assert sum(isinstance(module, Lower) for module in network.modules()) == levels - 1


def test_no_levels_is_refused() -> None:
    with pytest.raises(ConfigError, match="at least one"):
        UNet(Sizes(1, 16, 16), multiples=())


def test_settings_replace_those_of_the_preset() -> None:
    network = UNet(Sizes(1, 32, 32), patch=1, width=24, multiples=(1, 2, 3), blocks=3, attention=16)
    blocks = [module for module in network.modules() if isinstance(module, Block)]
    assert [(b.conv1.in_channels, b.attention is not None) for b in blocks] == [
        *3 * [(24, False)],
        *3 * [(48, True)],
        *6 * [(72, True)],
        *3 * [(48, True)],
        *3 * [(24, False)],
    ]
    silent = UNet(Sizes(1, 32, 32), attention=0)
    assert not any(isinstance(module, Attention) for module in silent.modules())


@pytest.mark.parametrize(("channels", "heads"), [(32, 1), (64, 1), (96, 2), (128, 2), (130, 5)])
def test_heads_are_wide_and_divide_the_channels(channels: int, heads: int) -> None:
    attention = Attention(channels)
    assert attention.heads == heads
    assert channels % heads == 0
    assert channels // heads <= HEAD


def test_attention_does_not_care_for_positions() -> None:
    attention = stirred(Attention(32))
    h = channels_last(2, 32, 4, 5)
    with torch.no_grad():
        torch.testing.assert_close(attention(h.flip(2, 3)), attention(h).flip(2, 3))


def test_unfold_is_pixel_shuffle_with_channels_innermost() -> None:
    h = channels_last(2, 12, 4, 5)
    expected = F.pixel_shuffle(h.unflatten(1, (4, 3)).transpose(1, 2).flatten(1, 2), 2)
    assert torch.equal(unfold(h), expected)
    assert unfold(h).is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_features_stay_in_one_layout_and_type(dtype: torch.dtype) -> None:
    """A layout flip or an upcast inside would cost a pass over memory in every block."""
    network = stirred(UNet(Sizes(1, 28, 28, 10)))
    seen: list[Tensor] = []

    def note(module: nn.Module, given: object, out: Tensor) -> None:
        seen.append(out)

    for module in network.modules():
        if isinstance(module, nn.Conv2d | ChannelNorm | Block | Attention | Lower):
            module.register_forward_hook(note)
    cond = {"label": torch.tensor([3, 10])}
    with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
        network(channels_last(2, 1, 28, 28), torch.zeros(2), cond)
    assert len(seen) > 40
    assert {out.dtype for out in seen} == {dtype}
    assert all(out.is_contiguous(memory_format=torch.channels_last) for out in seen)


def test_bfloat16_agrees_with_float32() -> None:
    network = stirred(UNet(Sizes(1, 28, 28, 10)))
    x, told, cond = channels_last(4, 1, 28, 28), torch.randn(4), {"label": torch.arange(4)}

    def run(fast: bool) -> tuple[Tensor, Tensor]:
        network.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=fast):
            out = network(x, told, cond)
        out.float().square().mean().backward()
        gradient = torch.cat([p.grad.flatten() for p in network.parameters() if p.grad is not None])
        return out.detach().float(), gradient

    for exact, rounded in zip(run(False), run(True), strict=True):
        assert (rounded - exact).norm() < 0.03 * exact.norm()


def test_dropout_acts_in_training_only() -> None:
    network = stirred(UNet(Sizes(1, 16, 16), size="tiny", width=16, dropout=0.5))
    x, told = torch.randn(1, 1, 16, 16), torch.zeros(1)
    with torch.no_grad():
        assert torch.equal(network(x, told, {}), network(x, told, {}))
        network.train()
        assert not torch.equal(network(x, told, {}), network(x, told, {}))
