"""A scheduler's config says of its model what the scheduler itself computes."""

from __future__ import annotations

import inspect
from typing import Any

import pytest
import torch

from couette.errors import CheckpointError
from couette.interop.schedulers import _TABLES, scheduled
from couette.registry import GRIDS, SCHEDULES
from couette.schedules import Table

diffusers = pytest.importorskip("diffusers")


def config_of(name: str, **settings: Any) -> dict[str, Any]:
    return dict(getattr(diffusers, name)(**settings).config) | {"_class_name": name}


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"beta_schedule": "scaled_linear", "beta_start": 0.001, "beta_end": 0.013},
        {"beta_schedule": "squaredcos_cap_v2", "num_train_timesteps": 300},
        {"beta_schedule": "sigmoid"},
        {"trained_betas": [0.1, 0.2, 0.4], "num_train_timesteps": 3},
        {"rescale_betas_zero_snr": True, "beta_schedule": "scaled_linear"},
    ],
    ids=["linear", "scaled", "cosine", "sigmoid", "written", "terminal"],
)
def test_the_table_is_theirs(settings: dict[str, Any]) -> None:
    theirs = diffusers.DDPMScheduler(**settings)
    table = SCHEDULES.build(scheduled(config_of("DDPMScheduler", **settings), "it").schedule)
    assert isinstance(table, Table)
    assert torch.allclose(table.alpha_bar, theirs.alphas_cumprod.double(), rtol=2e-4, atol=1e-9)


@pytest.mark.parametrize("name", _TABLES)
def test_defaults_are_those_of_each_class(name: str) -> None:
    """Of settings that an older file leaves out."""
    made = getattr(diffusers, name)
    defaults = {key: each.default for key, each in inspect.signature(made).parameters.items()}
    whole = scheduled({**defaults, "_class_name": name}, "it")
    assert whole == scheduled({"_class_name": name}, "it")


@pytest.mark.parametrize("spacing", ["leading", "linspace", "trailing"])
def test_the_grid_is_theirs(spacing: str) -> None:
    theirs = diffusers.DDIMScheduler(timestep_spacing=spacing, steps_offset=1)
    theirs.set_timesteps(7)
    found = scheduled({**theirs.config, "_class_name": "DDIMScheduler"}, "it")
    times = GRIDS.bind(found.grid)(SCHEDULES.build(found.schedule), steps=7)
    assert (times[:-1] * 1000 - 1).round().long().tolist() == theirs.timesteps.tolist()


def test_thresholds() -> None:
    def told(**settings: Any) -> str:
        return str(scheduled(config_of("DDPMScheduler", **settings), "it").threshold)

    assert told() == "static"
    assert told(clip_sample=False) == "none"
    assert told(thresholding=True, sample_max_value=1.5) == "dynamic:percentile=0.995,most=1.5"


def test_flows() -> None:
    flow = "FlowMatchEulerDiscreteScheduler"
    plain = scheduled(config_of(flow, shift=3.0), "it")
    assert [str(each) for each in plain[:4]] == [
        "flow",
        "flow",
        "time:scale=1000.0",
        "uniform:shift=3.0",
    ]
    theirs = diffusers.FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True)
    from diffusers.pipelines.flux.pipeline_flux import calculate_shift

    theirs.set_timesteps(sigmas=[1.0, 0.75, 0.5, 0.25], mu=calculate_shift(1024))
    moved = scheduled(config_of(flow, use_dynamic_shifting=True), "it", tokens=1024)
    times = GRIDS.bind(moved.grid)(SCHEDULES.build(moved.schedule), steps=4)
    assert torch.allclose(times, theirs.sigmas.double(), atol=1e-6)


@pytest.mark.parametrize(
    ("config", "told"),
    [
        ({"_class_name": "LCMScheduler"}, "'LCMScheduler', says nothing here"),
        ({"_class_name": "UniPCMultistepScheduler", "use_flow_sigmas": True}, "says nothing here"),
        ({"_class_name": "DDPMScheduler", "trained_betas": "exec"}, "are no list of numbers"),
        ({"_class_name": "DDPMScheduler", "prediction_type": ["epsilon"]}, "has prediction_type"),
        (
            {"_class_name": "FlowMatchEulerDiscreteScheduler", "invert_sigmas": True},
            "has 'invert_sigmas', which has no counterpart here",
        ),
    ],
)
def test_what_has_no_counterpart(config: dict[str, Any], told: str) -> None:
    with pytest.raises(CheckpointError, match=told):
        scheduled(config, "it")
