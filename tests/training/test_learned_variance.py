"""A learned variance is worth having: its bound is tighter than with either fixed one."""

from __future__ import annotations

from typing import cast

import pytest
import torch

from couette.config import RunConfig
from couette.data import open_data
from couette.denoiser import bound_term
from couette.model import Parts
from couette.recipes.building import build_trainer, model_config
from couette.runtime import Runtime, evaluating
from couette.schedules import mixed
from couette.training import DiffusionObjective


@pytest.mark.slow
def test_it_beats_both_fixed_variances() -> None:
    """Sum of the bound's terms over a table, in bits per dimension, on digits held out."""
    steps = 100
    config = RunConfig().replace(
        data={"source": "digits"},
        diffusion={
            "schedule": f"cosine:steps={steps}",
            "parameterization": "eps",
            "told": "index",
            "times": "uniform",
            "variance": "learned",
            "drop": 1,
        },
        network="unet:size=tiny,width=16",
        training={"steps": 300, "batch": 64, "lr": 2e-3, "average": 0, "warmup": 20},
    )
    data = open_data(config.data)
    described = model_config(config, data.train, Parts())
    network, trainer = build_trainer(config, described, data.train, Runtime(), Parts())
    for _ in trainer.run():
        pass
    denoiser = cast(DiffusionObjective, trainer.objective).denoiser
    schedule = denoiser.corruption.schedule
    assert data.test is not None
    x0 = data.test.pictures(torch.arange(64)).float() / 127.5 - 1
    noise = torch.randn(steps, *x0.shape, generator=torch.Generator().manual_seed(1))
    bits = {"learned": 0.0, "posterior": 0.0, "beta": 0.0}
    with torch.no_grad(), evaluating(network):
        for entry in range(steps):
            t = torch.full((len(x0),), (entry + 1) / steps, dtype=torch.float64)
            x = mixed(x0, schedule.level(t[0]), noise[entry]).float()
            p = denoiser(x, t, {})
            assert p.mix is not None
            fixed = {"posterior": torch.zeros_like(x), "beta": torch.ones_like(x)}
            for name, mix in {"learned": p.mix, **fixed}.items():
                bits[name] += float(bound_term(schedule, x0, t, p._replace(mix=mix)).mean())
    assert bits["learned"] < min(bits["posterior"], bits["beta"])
