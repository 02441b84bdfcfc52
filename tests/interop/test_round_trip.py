"""A model written for diffusers and opened again is the model that it was."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from couette import api
from interop.saved_models import UNET2D, saved

TABLE = {"schedule": "linear:steps=40,beta_max=0.05", "told": "index"}
LEARNED = {"sampler": "ddpm:variance=learned", "grid": "leading", "steps": 6}


@pytest.mark.parametrize(
    ("diffusion", "sampling"),
    [
        ({**TABLE, "parameterization": "eps"}, {"sampler": "ddim", "grid": "strided"}),
        ({**TABLE, "parameterization": "v"}, {"sampler": "dpmpp-2m", "grid": "karras"}),
        ({**TABLE, "parameterization": "x0"}, {"sampler": "ddim", "threshold": "static"}),
        ({**TABLE, "parameterization": "v", "variance": "learned"}, LEARNED),
        (
            {"schedule": "flow", "parameterization": "flow", "told": "time"},
            {"sampler": "euler", "grid": "uniform"},
        ),
    ],
    ids=["eps", "v", "x0", "learned", "flow"],
)
def test_a_pipeline_of_ours(tmp_path: Path, diffusion: Any, sampling: Any) -> None:
    run = saved(tmp_path / "run", UNET2D, diffusion=diffusion, sampling=sampling)
    out = api.export(run, tmp_path / "out", format="diffusers")
    settings = {"steps": 6, "grid": "strided", **sampling}
    own, again = (
        api.sample(api.load(each, device="cpu"), count=2, seed=3, **settings) for each in (run, out)
    )
    assert float(own.std()) > 0.1
    torch.testing.assert_close(again, own, rtol=0, atol=1e-5)
    assert api.sample(api.load(out, device="cpu"), count=1, steps=3).isfinite().all()
