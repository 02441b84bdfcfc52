"""Where and in what arithmetic a network runs."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from couette import runtime
from couette.config import RuntimeConfig
from couette.errors import ConfigError
from couette.runtime import Runtime, choose, evaluating


def test_what_is_asked_for_is_taken() -> None:
    chosen = choose(RuntimeConfig(device="cpu", dtype="bfloat16", threads=3))
    assert chosen == Runtime("cpu", "bfloat16", 3, False, "asked for")
    assert chosen.describe() == "cpu, 3 threads, bfloat16: asked for"


def test_without_a_probe_the_safe_choice() -> None:
    assert choose(RuntimeConfig(device="cpu")).dtype == "float32"


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has such a card")
def test_a_device_that_is_not_here() -> None:
    with pytest.raises(ConfigError, match=r"no usable 'cuda' device; leave out"):
        choose(RuntimeConfig(device="cuda"))


def test_state_comes_back() -> None:
    chosen = Runtime(dtype="bfloat16", threads=2, why="x")
    assert Runtime(**chosen.state()) == chosen


def test_place_keeps_values_and_lays_convolutions_channels_last() -> None:
    layer = nn.Conv2d(3, 4, 3)
    before = layer.weight.clone()
    placed = Runtime().place(layer)
    assert placed.weight.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(placed.weight, before)


def test_autocast_follows_the_dtype() -> None:
    layer, x = nn.Linear(4, 4), torch.randn(2, 4)
    for dtype, wanted in (("float32", torch.float32), ("bfloat16", torch.bfloat16)):
        with Runtime(dtype=dtype).autocast():  # type: ignore[arg-type]
            assert layer(x).dtype == wanted


class TestProbe:
    @pytest.fixture(autouse=True)
    def _able(self, monkeypatch: pytest.MonkeyPatch) -> None:
        able = {"avx512_bf16": True}
        monkeypatch.setattr(runtime.torch.cpu, "get_capabilities", lambda: able)

    def choose(self, loss: nn.Module) -> Runtime:
        x = torch.randn(8, 16)

        def value() -> Tensor:
            result: Tensor = loss(x).float().mean()
            return result

        return choose(RuntimeConfig(device="cpu", threads=1), lambda: (loss, value))

    def test_an_answer_that_is_off_rules_bfloat16_out(self) -> None:
        class Wrong(nn.Linear):
            def forward(self, x: Tensor) -> Tensor:
                y = super().forward(x)
                return y.square() if y.dtype == torch.float32 else 2 * y.square()

        chosen = self.choose(Wrong(16, 16))
        assert chosen.dtype == "float32"
        assert "bfloat16 was not exact enough" in chosen.why

    def test_dropout_is_no_reason_to_rule_it_out(self) -> None:
        """Both dtypes are judged on the same dropped units. The weights are fixed: of 16 random
        ones, bfloat16 is now and then too coarse for a bad draw."""
        torch.manual_seed(0)
        network = nn.Sequential(nn.Linear(16, 16), nn.Dropout(0.9))
        assert "exact" not in self.choose(network).why


def test_evaluating_gives_each_module_its_own_mode_back() -> None:
    network = nn.Sequential(nn.Dropout(), nn.BatchNorm2d(1))
    network[1].eval()
    with evaluating(network):
        assert not any(module.training for module in network.modules())
    assert [module.training for module in network.modules()] == [True, True, False]
