"""A model on disk: built from names in closed registries, filled only with what fits it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from couette.config import DiffusionConfig, ModelConfig, SamplingConfig, Spec, spec
from couette.contracts import Sizes, TextSizes
from couette.errors import CheckpointError, ConfigError, CouetteError, ShapeError, UnknownName
from couette.model import (
    AVERAGE,
    CONFIG,
    WEIGHTS,
    assemble,
    build_network,
    load_model,
    load_weights,
    outline,
    read_config,
)
from couette.model.describing import Unfilled, build_sized
from couette.registry import NETWORKS
from couette.storage import json_bytes, tensor_bytes

TINY = spec("unet", size="tiny", width=8, multiples=(1,), blocks=1)


def config(network: Spec = TINY, side: int = 8, **more: Any) -> ModelConfig:
    fields: dict[str, Any] = {
        "recipe": "default",
        "channels": 1,
        "height": side,
        "width": side,
        "classes": ("a", "b"),
        "codec": spec("symmetric"),
        "diffusion": DiffusionConfig(),
        "network": network,
        "sampling": SamplingConfig(),
    }
    return ModelConfig(**{**fields, **more})


def weights(seed: int = 0) -> dict[str, Tensor]:
    torch.manual_seed(seed)
    return build_network(config()).state_dict()


def written(folder: Path, own: object = None, tensors: dict[str, Tensor] | None = None) -> Path:
    folder.mkdir(exist_ok=True)
    fields = config().model_dump(mode="json") if own is None else own
    (folder / CONFIG).write_bytes(json_bytes(fields))
    (folder / WEIGHTS).write_bytes(tensor_bytes(weights() if tensors is None else tensors))
    return folder


def changed(**fields: Any) -> dict[str, Any]:
    return {**config().model_dump(mode="json"), **fields}


class TestLoad:
    def test_weights_come_back_to_the_bit(self, tmp_path: Path) -> None:
        own = weights()
        model = load_model(written(tmp_path))
        assert not model.network.training
        assert model.conditioner.classes == ("a", "b")
        for name, value in model.network.state_dict().items():
            assert torch.equal(value, own[name])

    def test_the_average_is_preferred_and_the_raw_can_be_asked_for(self, tmp_path: Path) -> None:
        written(tmp_path)
        (tmp_path / AVERAGE).write_bytes(tensor_bytes(weights(seed=1)))
        name = next(name for name, value in weights().items() if value.std() > 0)
        for average, seed in ((True, 1), (False, 0)):
            found = load_model(tmp_path, average=average).network.state_dict()[name]
            assert torch.equal(found, weights(seed)[name])

    def test_torchs_generator_is_left_alone(self, tmp_path: Path) -> None:
        written(tmp_path)
        torch.manual_seed(5)
        wanted = torch.randn(3)
        torch.manual_seed(5)
        load_model(tmp_path)
        assert torch.equal(torch.randn(3), wanted)

    @pytest.mark.parametrize(
        ("change", "words"),
        [
            (lambda w: w.pop(next(iter(w))), "is missing"),
            (lambda w: w.update(evil=torch.zeros(1)), "'evil' is unknown"),
            (
                lambda w: w.update({next(iter(w)): torch.zeros(7, 7)}),
                r"\(7, 7\) torch.float32, not",
            ),
            (
                lambda w: w.update({(n := next(iter(w))): w[n].double()}),
                "torch.float64, not .* torch.float32",
            ),
            (lambda w: w.clear(), "and .* more"),
            (lambda w: w.update({"\x1b[2J": torch.zeros(1)}), r"'\\x1b\[2J' is unknown"),
        ],
    )
    def test_weights_that_do_not_fit(self, tmp_path: Path, change: Any, words: str) -> None:
        own = weights()
        change(own)
        with pytest.raises(ShapeError, match=words):
            load_model(written(tmp_path, tensors=own))
        with pytest.raises(ShapeError, match=words):
            load_weights(build_network(config()), own, "here")

    @pytest.mark.parametrize(
        "network",
        [
            {"name": "unet", "width": 10**9},
            {"name": "unet", "width": 4096, "multiples": [64, 64, 64]},
            {"name": "unet", "width": 4096, "multiples": [64] * 60},
            {"name": "unet", "width": 8, "multiples": [1] * 4000, "blocks": 32},
            {"name": "unet2d", "block_out_channels": [10**9], "attention": [False]},
            {"name": "unet2d", "block_out_channels": [32] * 3000, "attention": [False] * 3000},
            {"name": "berkeley", "hidden": 4096},
            {"name": "points", "hidden": 8192, "depth": 64},
            {"name": "unet", "blocks": 10**9},
            {"name": "unet", "dropout": 7},
            {"name": "unet", "unknown": 1},
            {"name": "no such"},
            {"name": "os.system"},
            {"name": ["unet"]},
            "unet:width",
            None,
        ],
        ids=lambda network: str(network)[:50],
    )
    def test_hostile_networks_are_refused_before_memory_is_taken(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, network: object
    ) -> None:
        """Even one that could be built: the file does not hold its weights."""
        written(tmp_path, changed(network=network))
        made: list[torch.device] = []
        real = nn.Module.register_parameter

        def seen(module: nn.Module, name: str, parameter: nn.Parameter | None) -> None:
            made.extend([] if parameter is None else [parameter.device])
            real(module, name, parameter)

        monkeypatch.setattr(nn.Module, "register_parameter", seen)
        with pytest.raises((ShapeError, ConfigError, UnknownName)):
            load_model(tmp_path)
        assert {device.type for device in made} <= {"meta"}

    @pytest.mark.parametrize(
        "fields",
        [
            {},
            [],
            1,
            changed(channels=0),
            changed(height=10**9),
            changed(classes=7),
            changed(codec={"name": "evil"}),
            changed(extra=1),
            changed(height="x"),
            changed(network=TINY.model_dump() | {"size": "vast"}),
        ],
    )
    def test_configs_that_are_none(self, tmp_path: Path, fields: object) -> None:
        with pytest.raises((ConfigError, UnknownName)):
            load_model(written(tmp_path, fields))

    def test_a_later_format(self, tmp_path: Path) -> None:
        written(tmp_path, changed(format=99, something="new"))
        with pytest.raises(CheckpointError, match=r"later version of Couette .*99.*; upgrade"):
            read_config(tmp_path)

    def test_missing_files(self, tmp_path: Path) -> None:
        with pytest.raises(CheckpointError, match=r"model\.json is missing"):
            load_model(tmp_path)
        (written(tmp_path) / WEIGHTS).unlink()
        with pytest.raises(CheckpointError, match=r"network\.safetensors is missing"):
            load_model(tmp_path)

    @settings(
        max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None
    )
    @given(
        path=st.sampled_from(
            ["channels", "height", "width", "classes", "codec", "diffusion", "network", "sampling"]
        ),
        value=st.recursive(
            st.none() | st.booleans() | st.integers(-3, 40) | st.text(max_size=4),
            lambda inner: (
                st.lists(inner, max_size=3)
                | st.dictionaries(st.sampled_from(["name", "width", "x"]), inner, max_size=3)
            ),
            max_leaves=5,
        ),
    )
    def test_any_config_loads_or_is_refused(self, tmp_path: Path, path: str, value: object) -> None:
        written(tmp_path, changed(**{path: value}))
        try:
            load_model(tmp_path)
        except CouetteError:
            return


@pytest.mark.parametrize("name", [n for n in NETWORKS if NETWORKS.trait(n, "gives") is None])
def test_the_outline_is_what_is_built(name: str) -> None:
    """Names, shapes and dtypes without memory, for every network."""
    side = 1 if name == "points" else 32
    own = config(Spec(name=name), side, channels=2 if name == "points" else 1)
    real, drawn = build_network(own).state_dict(), outline(own)
    assert {k: (v.shape, v.dtype) for k, v in drawn.items()} == {
        k: (v.shape, v.dtype) for k, v in real.items()
    }
    assert all(value.is_meta for value in drawn.values())


@pytest.mark.parametrize("name", list(NETWORKS))
def test_weights_that_a_file_replaces_are_not_drawn(name: str) -> None:
    """Drawing them took as long as reading them."""
    side = 1 if name == "points" else 32
    size = Sizes(2 if name == "points" else 1, side, side, 2, text=TextSizes(8, 100))
    torch.manual_seed(0)
    before = torch.random.get_rng_state()
    with Unfilled():
        build_sized(Spec(name=name), size, DiffusionConfig())
    assert torch.equal(torch.random.get_rng_state(), before)


def test_a_network_too_large_to_build_is_an_input_error() -> None:
    with pytest.raises((ShapeError, ConfigError)):
        build_network(config(spec("unet2d", block_out_channels=(2**40,), attention=(False,))))


def test_json_of_a_config_is_plain_data() -> None:
    fields = config().model_dump(mode="json")
    assert json.loads(json.dumps(fields)) == fields
    assert ModelConfig.model_validate(fields) == config()


@pytest.mark.parametrize(("channels", "points"), [(1, False), (2, True), (3, False)])
def test_a_picture_of_one_pixel_is_not_a_point(channels: int, points: bool) -> None:
    held = config(spec("points"), 1).model_copy(update={"channels": channels})
    assert assemble(held, build_network(held)).is_points == points
