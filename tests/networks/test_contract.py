"""What every registered network must do, whatever it is made of."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import couette.networks
from couette.config import spec
from couette.contracts import Sizes
from couette.errors import InputError
from couette.registry import NETWORKS

SMALL: dict[str, dict[str, Any]] = {
    "berkeley": {"hidden": 8, "time": True},
    "unet": {"size": "tiny", "width": 16},
    "unet2d": {
        "block_out_channels": (16, 32),
        "attention": (False, True),
        "norm_num_groups": 8,
        "layers_per_block": 1,
    },
    "points": {"hidden": 16, "depth": 2},
    "tokens": {"width": 16, "depth": 2},
    "dit": {"width": 32, "depth": 2},
}
CLASSES = 3
NAMES = [name for name in NETWORKS if NETWORKS.trait(name, "gives", "pictures") == "pictures"]
"""Those that give pictures; what tells classes apart has tests of its own."""


def sides(name: str) -> list[tuple[int, int]]:
    return [(1, 1)] if name == "points" else [(16, 16), (8, 24)]


CASES = [(name, h, w) for name in NAMES for h, w in sides(name)]


def build(name: str, height: int, width: int, classes: int = CLASSES) -> nn.Module:
    torch.manual_seed(0)
    sizes = Sizes(2, height, width, classes)
    network = NETWORKS.build(spec(name, **SMALL.get(name, {})), sizes)
    assert isinstance(network, nn.Module)
    return network


def stirred(network: nn.Module) -> nn.Module:
    """The network with no weight at zero, so that nothing is silent by its initial value."""
    generator = torch.Generator().manual_seed(1)
    for parameter in network.parameters():
        noise = torch.randn(parameter.shape, generator=generator)
        parameter.data.add_(0.2 * noise)
    return network.eval()


LABELLED = [name for name in NAMES if "label" in build(name, *sides(name)[0]).wants]


def inputs(network: nn.Module, height: int, width: int) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    generator = torch.Generator().manual_seed(2)
    x = torch.randn(4, 2, height, width, generator=generator)
    told = torch.tensor([0.1, 0.4, 0.7, 1.0])
    label = torch.tensor([0, 1, 2, CLASSES])
    return x, told, {"label": label} if "label" in network.wants else {}


def test_registry_holds_every_network_of_the_package() -> None:
    exported = {
        value
        for value in vars(couette.networks).values()
        if isinstance(value, type) and issubclass(value, nn.Module)
    }
    assert exported == {NETWORKS[name] for name in NAMES}


@pytest.mark.parametrize(("name", "height", "width"), CASES)
def test_output_has_the_shape_of_the_input(name: str, height: int, width: int) -> None:
    network = build(name, height, width).eval()
    x, told, cond = inputs(network, height, width)
    out = network(x, told, cond)
    assert out.shape == x.shape
    assert out.dtype == torch.float32


@pytest.mark.parametrize("name", NAMES)
def test_autocast_gives_nearly_the_same(name: str) -> None:
    height, width = sides(name)[0]
    network = stirred(build(name, height, width))
    x, told, cond = inputs(network, height, width)
    with torch.no_grad():
        exact = network(x, told, cond)
        with torch.autocast("cpu", torch.bfloat16):
            rounded = network(x, told, cond)
    assert (rounded - exact).abs().mean() < 0.1 * exact.abs().mean()


@pytest.mark.parametrize("name", NAMES)
def test_weights_in_bfloat16_give_nearly_the_same(name: str) -> None:
    height, width = sides(name)[0]
    network = stirred(build(name, height, width))
    x, told, cond = inputs(network, height, width)
    with torch.no_grad():
        exact = network(x, told, cond)
        rounded = network.bfloat16()(x.bfloat16(), told, cond)
    assert rounded.dtype == torch.bfloat16
    assert (rounded - exact).abs().mean() < 0.1 * exact.abs().mean()


@pytest.mark.parametrize(("name", "height", "width"), CASES)
def test_gradient_reaches_every_weight(name: str, height: int, width: int) -> None:
    network = stirred(build(name, height, width))
    x, told, cond = inputs(network, height, width)
    network(x, told, cond).square().sum().backward()
    for key, parameter in network.named_parameters():
        assert parameter.grad is not None, key
        assert parameter.grad.isfinite().all(), key
        if parameter.ndim > 1:  # some biases stand before a norm or in a softmax and cancel
            assert parameter.grad.abs().max() > 1e-8, key


@pytest.mark.parametrize("name", NAMES)
def test_gradient_reaches_the_input(name: str) -> None:
    height, width = sides(name)[0]
    network = stirred(build(name, height, width))
    x, told, cond = inputs(network, height, width)
    x.requires_grad_()
    network(x, told, cond)[..., height // 2, width // 2].sum().backward()
    assert x.grad is not None
    assert x.grad.abs().max() > 0


@pytest.mark.parametrize("name", NAMES)
def test_rows_do_not_see_each_other(name: str) -> None:
    height, width = sides(name)[0]
    network = stirred(build(name, height, width))
    x, told, cond = inputs(network, height, width)
    with torch.no_grad():
        together = network(x, told, cond)
        for row in range(len(x)):
            part = slice(row, row + 1)
            alone = network(x[part], told[part], {k: v[part] for k, v in cond.items()})
            torch.testing.assert_close(alone, together[part], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_told_matters_except_to_the_blind(name: str) -> None:
    height, width = sides(name)[0]
    network = stirred(build(name, height, width))
    x, told, cond = inputs(network, height, width)
    with torch.no_grad():
        changed = (network(x, told, cond) - network(x, told + 0.5, cond)).abs().amax((1, 2, 3))
    assert bool((changed > 1e-6).all()) != NETWORKS.trait(name, "blind", False)


def test_all_networks_of_the_package_but_basic_are_told_classes() -> None:
    own = [name for name in NAMES if NETWORKS[name].__module__.startswith("couette.networks.")]
    assert set(own) - set(LABELLED) == {"basic"}


@pytest.mark.parametrize("name", LABELLED)
def test_each_class_and_none_differ(name: str) -> None:
    height, width = sides(name)[0]
    network = stirred(build(name, height, width))
    assert network.wants - {"perturb"} == {"label"}
    x, told, _ = inputs(network, height, width)
    x, told = x[:1].expand(4, -1, -1, -1), told[:1].expand(4)
    with torch.no_grad():
        out = network(x, told, {"label": torch.tensor([0, 1, 2, CLASSES])})
    distances = torch.cdist(out.flatten(1), out.flatten(1)) + torch.eye(4)
    assert distances.min() > 1e-4


@pytest.mark.parametrize("name", NAMES)
def test_without_classes_a_label_is_refused(name: str) -> None:
    height, width = sides(name)[0]
    network = build(name, height, width, classes=0).eval()
    assert network.wants <= {"perturb"}
    x = torch.zeros(1, 2, height, width)
    network(x, torch.zeros(1), {})
    with pytest.raises(InputError, match="label"):
        network(x, torch.zeros(1), {"label": torch.zeros(1, dtype=torch.int64)})


@pytest.mark.parametrize("name", NAMES)
def test_an_unknown_key_is_refused(name: str) -> None:
    height, width = sides(name)[0]
    network = build(name, height, width)
    x, told, cond = inputs(network, height, width)
    with pytest.raises(InputError, match="lable"):
        network(x, told, {**cond, "lable": torch.zeros(4)})


@pytest.mark.parametrize("name", LABELLED)
def test_a_missing_label_is_refused(name: str) -> None:
    height, width = sides(name)[0]
    network = build(name, height, width)
    x, told, _ = inputs(network, height, width)
    with pytest.raises(InputError, match="label"):
        network(x, told, {})


@pytest.mark.parametrize("name", NAMES)
def test_one_seed_gives_one_network(name: str) -> None:
    height, width = sides(name)[0]
    first, second = build(name, height, width).eval(), build(name, height, width).eval()
    for key, value in first.state_dict().items():
        assert torch.equal(value, second.state_dict()[key]), key
    x, told, cond = inputs(first, height, width)
    with torch.no_grad():
        assert torch.equal(first(x, told, cond), second(x, told, cond))


ATTENDING = [name for name in NAMES if "perturb" in build(name, *sides(name)[0]).wants]


def test_the_default_networks_attend() -> None:
    assert {"unet", "unet2d"} <= set(ATTENDING)


@pytest.mark.parametrize("name", ATTENDING)
def test_perturbed_rows_are_those_without_attention(name: str) -> None:
    """A row that is not perturbed is as without the key; one that is sees no other position."""
    height, width = sides(name)[0]
    network = stirred(build(name, height, width))
    x, told, cond = inputs(network, height, width)
    perturb = torch.tensor([False, True, False, True])
    with torch.no_grad():
        plain = network(x, told, cond)
        mixed = network(x, told, {**cond, "perturb": perturb})
    torch.testing.assert_close(mixed[~perturb], plain[~perturb], rtol=1e-5, atol=1e-6)
    assert (mixed[perturb] - plain[perturb]).abs().amax((1, 2, 3)).min() > 1e-4


@pytest.mark.parametrize("name", [name for name in ATTENDING if name != "dit"])
def test_alike_tokens_do_not_miss_attention(name: str) -> None:
    """Where every token has the same value, a map of attention and the identity give the same; of
    `dit`, whose blocks take no maps, in its own tests."""
    network = stirred(build(name, *sides(name)[0]))
    attention = next(m for m in network.modules() if type(m).__name__ == "Attention")
    norm = next(m for m in attention.modules() if "Norm" in type(m).__name__)
    width = getattr(norm, "num_channels", None) or norm.normalized_shape[0]
    flat = torch.randn(2, width, 1, 1).expand(2, width, 3, 3)
    rows = torch.tensor([True, True])
    with torch.no_grad():
        torch.testing.assert_close(attention(flat, rows), attention(flat, None))


@pytest.mark.parametrize("name", [name for name in NAMES if name not in ATTENDING])
def test_without_attention_there_is_nothing_to_perturb(name: str) -> None:
    height, width = sides(name)[0]
    network = build(name, height, width).eval()
    x, told, cond = inputs(network, height, width)
    with pytest.raises(InputError, match="perturb"):
        network(x, told, {**cond, "perturb": torch.zeros(4, dtype=torch.bool)})
