"""Layers that several networks share."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from couette.networks.layers import AT_ONCE, MANY, ChannelNorm, GroupNorm, attend


def channels_last(*shape: int) -> Tensor:
    return torch.randn(*shape).to(memory_format=torch.channels_last)


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


def test_products_equal_the_fused_kernel() -> None:
    q, k, v = torch.randn(3, 2, 4, 9, 16).unbind()
    expected = F.scaled_dot_product_attention(q, k, v)
    torch.testing.assert_close(attend(q, k, v), expected)


def test_many_tokens_are_not_paired_in_memory() -> None:
    q = torch.randn(1, 1, MANY + 1, 8, requires_grad=True)
    kept: list[int] = []
    with torch.autograd.graph.saved_tensors_hooks(
        lambda t: kept.append(t.numel()) or t, lambda t: t
    ):
        out = attend(q, q, q)
    assert max(kept) <= q.numel()
    weights = torch.softmax(q * 8**-0.5 @ q.mT, dim=-1)
    torch.testing.assert_close(out, weights @ q)


def test_a_few_rows_at_a_time_are_all_rows_with_their_gradients() -> None:
    """In bfloat16 on a processor, judged by float32, where the fused kernel takes all at once."""
    heads, tokens = 8, 100
    rows = 2 * AT_ONCE // (heads * tokens**2) + 1  # the last part is shorter
    given = torch.randn(3, rows, heads, tokens, 8).bfloat16()
    found, exact = given.clone().requires_grad_(), given.float().requires_grad_()
    into = torch.randn(rows, heads, tokens, 8)
    y, expected = attend(*found.unbind()), attend(*exact.unbind())
    error = (y.float() - expected).norm() / expected.norm()
    assert error < 0.01
    (one,) = torch.autograd.grad(y, found, into.bfloat16())
    (other,) = torch.autograd.grad(expected, exact, into)
    assert (one.float() - other).norm() / other.norm() < 0.02


def test_norm_by_hand() -> None:
    h = 3 * channels_last(2, 8, 3, 5) + 1
    centred = h - h.mean(1, keepdim=True)
    expected = centred / (centred.square().mean(1, keepdim=True) + 1e-5).sqrt()
    torch.testing.assert_close(ChannelNorm(8)(h), expected)


class TestGroupNorm:
    @pytest.mark.parametrize(("groups", "channels"), [(1, 8), (4, 8), (8, 8), (32, 64)])
    @pytest.mark.parametrize("side", [3, 5, 14])
    def test_it_is_torchs_with_its_gradients(self, groups: int, channels: int, side: int) -> None:
        """In float32, to float32's rounding; judged by torch's in float64."""
        ours, exact = GroupNorm(groups, channels), nn.GroupNorm(groups, channels).double()
        with torch.no_grad():
            for name, parameter in ours.named_parameters():
                parameter.normal_()
                exact.get_parameter(name).copy_(parameter)
        h = (2 * channels_last(3, channels, side, side) + 1).requires_grad_()
        twin = h.detach().double().requires_grad_()
        mine, theirs = ours(h), exact(twin)
        torch.testing.assert_close(mine.double(), theirs, rtol=1e-4, atol=1e-4)
        into = torch.randn_like(mine)
        found = torch.autograd.grad(mine, [h, *ours.parameters()], into)
        expected = torch.autograd.grad(theirs, [twin, *exact.parameters()], into.double())
        for one, other in zip(found, expected, strict=True):
            torch.testing.assert_close(one.double(), other, rtol=1e-3, atol=1e-3)

    def test_gradients_in_bfloat16_are_near(self) -> None:
        """To bfloat16's rounding, judged by torch's in float64; parameters and theirs stay
        float32."""
        ours, exact = GroupNorm(4, 16), nn.GroupNorm(4, 16).double()
        with torch.no_grad():
            for name, parameter in ours.named_parameters():
                parameter.normal_()
                exact.get_parameter(name).copy_(parameter)
        h = (2 * channels_last(3, 16, 9, 9) + 1).bfloat16().requires_grad_()
        twin = h.detach().double().requires_grad_()
        with torch.autocast("cpu", torch.bfloat16):
            mine = ours(h)
        into = torch.randn_like(mine)
        found = torch.autograd.grad(mine, [h, *ours.parameters()], into)
        expected = torch.autograd.grad(exact(twin), [twin, *exact.parameters()], into.double())
        assert [each.dtype for each in found] == [torch.bfloat16, torch.float32, torch.float32]
        for one, other in zip(found, expected, strict=True):
            assert (one.double() - other).norm() / other.norm() < 0.02

    def test_its_map_stays_channels_last(self) -> None:
        y = GroupNorm(2, 8)(channels_last(2, 8, 6, 6))
        assert y.is_contiguous(memory_format=torch.channels_last)

    def test_a_large_mean_costs_no_more_than_torch_loses(self) -> None:
        h = channels_last(2, 32, 14, 14) + 100
        exact = F.group_norm(h.double(), 32)
        ours, theirs = GroupNorm(32, 32)(h), F.group_norm(h, 32)
        error = (ours - exact).abs().max()
        assert error < 0.02
        assert error <= (theirs - exact).abs().max()

    def test_a_constant_map_is_the_shift(self) -> None:
        h = torch.full((1, 4, 3, 3), 7.3).to(memory_format=torch.channels_last)
        assert float(GroupNorm(2, 4)(h).detach().abs().max()) < 0.02

    def test_bfloat16_keeps_its_dtype_and_three_digits(self) -> None:
        h = channels_last(2, 8, 6, 6).bfloat16()
        with torch.autocast("cpu", torch.bfloat16):
            y = GroupNorm(2, 8)(h)
        assert y.dtype == torch.bfloat16
        torch.testing.assert_close(y.float(), F.group_norm(h.float(), 2), rtol=0.02, atol=0.02)
