"""Tiny runs that the figures are drawn of."""

from pathlib import Path
from typing import Any

import pytest

from couette.recipes import RECIPES, Session

_SMALL = {
    "name": "unet2d",
    "block_out_channels": (8, 8),
    "attention": (False, False),
    "norm_num_groups": 4,
    "layers_per_block": 1,
}


def trained(out: Path, recipe: str, training: dict[str, Any], **groups: Any) -> Path:
    """A run of a few steps."""
    length = {"steps": None, "minutes": None, "epochs": None, "batch": 16}
    config = RECIPES[recipe]().replace(
        training={**length, **training}, runtime={"dtype": "float32", "threads": 1}, **groups
    )
    for _ in Session(config, out).run():
        pass
    return out


@pytest.fixture(scope="session")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="session")
def digits(runs: Path) -> Path:
    """Class-conditional, two epochs of 2 steps, a sheet after each."""
    data = {"source": "digits", "limit": 40}
    return trained(
        runs / "digits",
        "digits",
        {"epochs": 2, "sample_every": "epoch"},
        data=data,
        network="unet:size=tiny,width=8,blocks=1",
    )


@pytest.fixture(scope="session")
def toy(runs: Path) -> Path:
    """The course's recipe, on digits."""
    return trained(runs / "toy", "course-basic", {"steps": 3}, data={"source": "digits"})


@pytest.fixture(scope="session")
def table(runs: Path) -> Path:
    """Noise prediction along a table of 12 entries, sampled ancestrally."""
    return trained(
        runs / "table",
        "ddpm",
        {"steps": 2},
        data={"source": "digits", "resolution": None},
        network=_SMALL,
        diffusion={"schedule": "linear:steps=12"},
        sampling={"steps": 12},
    )


@pytest.fixture(scope="session")
def denoiser(runs: Path) -> Path:
    """One step at σ = 0.5, on digits."""
    return trained(
        runs / "denoiser",
        "denoiser",
        {"steps": 2},
        data={"source": "digits", "resolution": 28},
        network="berkeley:hidden=4",
    )


@pytest.fixture(scope="session")
def moons(runs: Path) -> Path:
    """Points in the plane."""
    return trained(runs / "moons", "points", {"steps": 3}, data={"source": "moons", "limit": 600})
