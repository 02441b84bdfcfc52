"""Autoencoders, and runs on their latents: what is kept, what is drawn, what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from couette import api
from couette.codecs import Latents
from couette.config import DataConfig, RunConfig, spec
from couette.data import open_data, to_float
from couette.errors import CheckpointError, ConfigError, ShapeError
from couette.evaluation.reconstruction import reconstruction
from couette.model import AUTOENCODER, load_autoencoder, load_model
from couette.recipes.encoding import encoding
from couette.runs import RunFolder, find_model
from small_runs import digests, losses, session

DATA = {"source": "digits", "limit": 64}
VAE: dict[str, Any] = {
    "data": DATA,
    "network": "vae:factor=4,latent=3,width=8",
    "training": {"batch": 8, "save_every": 3},
}
TINY: dict[str, Any] = {
    "data": DATA,
    "network": "unet:size=tiny,width=16,patch=1",
    "training": {"batch": 8, "save_every": 3},
    "sampling": {"steps": 2},
}


@pytest.fixture(scope="module")
def autoencoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("latents") / "autoencoder"
    losses(session(out, VAE, recipe="autoencoder", length={"steps": 4}))
    return out


def on_latents(out: Path, autoencoder: Path, steps: int = 4) -> Any:
    settings = {**TINY, "codec": spec("latent", run=str(autoencoder))}
    return session(out, settings, length={"steps": steps})


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, autoencoder: Path) -> Path:
    out = tmp_path_factory.mktemp("latents") / "run"
    losses(on_latents(out, autoencoder))
    return out


class TestAutoencoder:
    def test_its_log_and_its_pictures(self, autoencoder: Path) -> None:
        rows = [row for row in RunFolder(autoencoder).metrics() if "loss" in row]
        assert {"error", "mse", "kl"} <= rows[0].keys()
        assert list((autoencoder / "samples").glob("step_*.png"))
        assert "An autoencoder" in (autoencoder / "README.md").read_text(encoding="utf-8")

    def test_resumed_to_the_bit(self, autoencoder: Path, tmp_path: Path) -> None:
        losses(session(tmp_path, VAE, recipe="autoencoder", length={"steps": 4}), stop_after=3)
        losses(session(tmp_path, {}, resume=True))
        assert digests(tmp_path) == digests(autoencoder)

    def test_with_a_critic_too(self, tmp_path: Path) -> None:
        settings = {**VAE, "objective": "autoencoder:critic=0.01,critic_after=1"}
        whole, part = tmp_path / "whole", tmp_path / "part"
        losses(session(whole, settings, recipe="autoencoder", length={"steps": 4}))
        losses(session(part, settings, recipe="autoencoder", length={"steps": 4}), stop_after=3)
        losses(session(part, {}, resume=True))
        assert digests(part) == digests(whole)

    def test_it_draws_nothing_by_itself(self, autoencoder: Path) -> None:
        with pytest.raises(CheckpointError, match=r"holds an autoencoder; train on its latents"):
            api.load(autoencoder)

    def test_another_network_is_refused(self, tmp_path: Path) -> None:
        for objective, network in (("autoencoder", "unet"), ("diffusion", "vae")):
            with pytest.raises(ConfigError, match="choose another network"):
                session(tmp_path, {"data": DATA, "objective": objective, "network": network})


class TestOnLatents:
    def test_the_model_holds_its_autoencoder(self, run: Path, autoencoder: Path) -> None:
        """It can be moved away from the run that it was trained on."""
        checkpoint = find_model(run)
        assert (checkpoint / AUTOENCODER).exists()
        model = load_model(checkpoint)
        assert isinstance(model.codec, Latents)
        assert model.shape == (3, 4, 4)
        _, network = load_autoencoder(find_model(autoencoder))
        kept = model.codec.network.state_dict()
        assert all(torch.equal(value, kept[name]) for name, value in network.state_dict().items())
        assert str(autoencoder) not in (checkpoint / "model.json").read_text(encoding="utf-8")

    def test_latents_have_mean_0_and_scale_1(self, run: Path) -> None:
        made = on_latents(run.parent / "fresh", Path(RunFolder(run).config().codec.settings["run"]))
        model = made.models["weights"]
        data = made.data.train
        index = torch.arange(len(data))
        keys = torch.stack((index, index), 1)
        z = model.codec.encode(to_float(data.pictures(index)), keys)
        torch.testing.assert_close(z.mean((0, 2, 3)), torch.zeros(3), rtol=0, atol=0.15)
        torch.testing.assert_close(z.std((0, 2, 3)), torch.ones(3), rtol=0, atol=0.15)
        found = reconstruction(model.codec, data, index)
        assert found.count == len(data) and found.psnr > 3

    def test_samples_are_pictures(self, run: Path) -> None:
        drawn = api.sample(run, count=3, label="each", seed=4)
        assert drawn.shape == (3, 1, 16, 16) and drawn.abs().max() <= 1
        torch.testing.assert_close(
            api.sample(run, count=3, label="each", seed=4, batch=1), drawn, rtol=0, atol=1e-4
        )

    def test_resumed_to_the_bit_without_the_autoencoders_run(
        self, run: Path, autoencoder: Path, tmp_path: Path
    ) -> None:
        moved = tmp_path / "autoencoder"
        moved.symlink_to(autoencoder)
        losses(on_latents(tmp_path / "part", moved), stop_after=3)
        moved.unlink()
        losses(session(tmp_path / "part", {}, resume=True))
        assert digests(tmp_path / "part") == digests(run)

    def test_what_is_refused(self, autoencoder: Path, run: Path, tmp_path: Path) -> None:
        def begun(**settings: Any) -> None:
            session(tmp_path / "run", {**TINY, **settings}, length={"steps": 1})

        config = RunConfig(codec=spec("latent"))
        with pytest.raises(ConfigError, match="needs an autoencoder; train one with --recipe"):
            encoding(config, open_data(DataConfig(**DATA)).train, tmp_path / "none")
        with pytest.raises(CheckpointError, match="makes pictures"):
            begun(codec=spec("latent", run=str(run)))
        with pytest.raises(ConfigError, match="takes pictures of 1 channels"):
            begun(codec=spec("latent", run=str(autoencoder)), data={**DATA, "color": "rgb"})
        with pytest.raises(ShapeError, match="multiples of 4"):
            begun(codec=spec("latent", run=str(autoencoder)), data={**DATA, "resolution": 18})
        assert not (tmp_path / "run").exists()

    def test_weights_of_another_autoencoder(self, run: Path, tmp_path: Path) -> None:
        copy = tmp_path / "model"
        copy.mkdir()
        for path in find_model(run).iterdir():
            (copy / path.name).write_bytes(path.read_bytes())
        (copy / AUTOENCODER).write_bytes((copy / "network.safetensors").read_bytes())
        with pytest.raises(ShapeError, match="do not fit"):
            load_model(copy)
        (copy / AUTOENCODER).unlink()
        with pytest.raises(CheckpointError, match="is missing"):
            load_model(copy)
