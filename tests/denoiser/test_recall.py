"""Self-conditioning: the network that reads x0, and the denoiser that hands it on."""

from __future__ import annotations

from functools import partial
from typing import Any, cast

import pytest
import torch
from torch import Tensor, nn

import couette.networks  # noqa: F401  (fills the registry)
from couette.config import DiffusionConfig, ModelConfig, SamplingConfig, spec
from couette.contracts import Ask, Cond, Corruption, Prediction, Sizes
from couette.denoiser import recalling
from couette.errors import ConfigError
from couette.generate import pictures
from couette.guidance import GUIDANCE, Terms
from couette.model import assemble, build_network
from couette.networks.plan import count_parameters, plan
from couette.networks.recalling import Recalling
from couette.registry import NETWORKS
from worlds import draw, run, schedule

SMALL = {
    "berkeley": spec("berkeley", hidden=8, time=True),
    "unet": spec("unet", size="tiny", width=16),
    "unet2d": spec(
        "unet2d", block_out_channels=(16, 32), attention=(False, True), norm_num_groups=8
    ),
    "points": spec("points", hidden=16, depth=1),
    "tokens": spec("tokens", width=16, depth=1),
}
NAMES = [name for name in NETWORKS if NETWORKS.trait(name, "gives", "pictures") == "pictures"]


@pytest.mark.parametrize("name", NAMES)
class TestNetworks:
    def sizes(self, name: str, **more: int) -> Sizes:
        side = 1 if name == "points" else 8
        return Sizes(2, side, side, 3, **more)

    def test_can_give_other_channels_than_they_take(self, name: str) -> None:
        network = NETWORKS.build(SMALL.get(name, spec(name)), self.sizes(name, out=5)).eval()
        x = torch.randn(4, 2, *self.sizes(name)[1:3])
        label = {"label": torch.arange(4)} if network.wants else {}
        assert network(x, torch.rand(4), label).shape == (4, 5, *x.shape[2:])

    def test_can_be_told_their_last_prediction(self, name: str) -> None:
        build = partial(NETWORKS.build, SMALL.get(name, spec(name)))
        network = Recalling(build, self.sizes(name)).eval()
        for parameter in network.parameters():
            parameter.data += 0.1 * torch.randn_like(parameter)
        x, told, x0 = torch.randn(4, 2, *self.sizes(name)[1:3]), torch.rand(4), torch.ones(1)
        cond = {"label": torch.arange(4)} if "label" in network.wants else {}
        with torch.no_grad():
            nothing = network(x, told, cond)
            assert nothing.shape == x.shape
            assert torch.equal(network(x, told, {**cond, "x0": torch.zeros_like(x)}), nothing)
            some = network(x, told, {**cond, "x0": x0.expand_as(x)})
        assert bool(((some - nothing).flatten(1).abs().amax(1) > 1e-6).all())
        with pytest.raises(ConfigError, match="can't be told 'x1'"):
            network(x, told, {**cond, "x1": x})


def test_a_plan_looks_inside() -> None:
    sizes = Sizes(1, 8, 8)
    network = Recalling(partial(NETWORKS.build, SMALL["unet"]), sizes)
    rows = plan(network, sizes)
    assert sum(row.parameters for row in rows) == count_parameters(network)
    assert [row.name for row in rows][:1] == ["network.embedding"]


class Remembers:
    """Predicts one more than it was told, and keeps what it was told."""

    wants = frozenset({"x0"})

    def __init__(self) -> None:
        self.corruption = Corruption(schedule("flow"))
        self.told: list[Cond] = []

    def __call__(self, x: Tensor, t: Tensor, cond: Cond) -> Prediction:
        self.told.append(cond)
        return Prediction(cond.get("x0", torch.zeros_like(x)) + 1)


def test_every_prediction_is_told_to_the_next() -> None:
    inner, times = Remembers(), torch.linspace(1, 0, 5).double()
    steps = run("euler", recalling(inner, cast(Any, inner)), draw(2, 1, 2, 2), times)
    assert "x0" not in inner.told[0]
    assert [float(each["x0"].mean()) for each in inner.told[1:]] == [1, 2, 3]
    assert float(steps[-1].x.mean()) == 4


def test_a_network_that_does_not_read_it_is_left_alone() -> None:
    inner = Remembers()
    inner.wants = frozenset()
    assert recalling(inner, cast(Any, inner)) is inner


def test_both_passes_of_guidance_are_told_the_guided_prediction() -> None:
    inner = Remembers()
    guided = GUIDANCE["cfg"](inner, Terms(3.0, {"label": torch.full((2,), 9)}))
    denoise, t = recalling(guided, cast(Any, inner)), torch.tensor(0.5).double()
    for _ in range(2):
        denoise(torch.zeros(2, 1, 1, 1), t, {"label": torch.zeros(2, dtype=torch.int64)})
    assert inner.told[1]["x0"].shape == (4, 1, 1, 1)
    assert inner.told[1]["label"].tolist() == [0, 0, 9, 9]


def test_a_model_is_told_its_predictions_from_its_settings_alone() -> None:
    """And a picture does not depend on the batch, or on the run before."""
    config = ModelConfig(
        recipe="test", channels=2, height=1, width=1, codec=spec("symmetric"),
        diffusion=DiffusionConfig(self_conditioning=True), network=SMALL["points"],
        sampling=SamplingConfig(steps=4),
    )  # fmt: skip
    torch.manual_seed(0)
    network = build_network(config).eval()
    assert cast(Any, network).wants == {"x0"}
    nn.init.normal_(cast(Any, network).network.enter.weight)
    model = assemble(config, network)
    whole, again = (torch.cat(list(pictures(model, [Ask()] * 5, batch=size))) for size in (5, 2))
    torch.testing.assert_close(whole, again, atol=1e-5, rtol=0)
    with torch.no_grad():
        cast(Any, network).network.enter.weight[:, 2:].zero_()  # deaf to x0
    deaf = torch.cat(list(pictures(model, [Ask()] * 5)))
    assert float((whole - deaf).abs().max()) > 1e-3
