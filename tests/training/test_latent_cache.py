"""Latents from disk are those that encoding on the fly gives, to the rounding of float16."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from couette.codecs import Latents
from couette.config import DataConfig
from couette.contracts import Sizes
from couette.data import Dataset, open_data
from couette.data.store import stored
from couette.networks.vae import VAE
from couette.runtime import Runtime
from couette.training import LatentCache, Stream


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("COUETTE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture(scope="module")
def data() -> Dataset:
    return open_data(DataConfig(source="digits", limit=30, holdout=0.0)).train


def codec(variational: bool = True) -> Latents:
    torch.manual_seed(0)
    network = VAE(Sizes(1, 16, 16), factor=4, latent=3, width=8, variational=variational)
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    return Latents(network, torch.tensor([0.1, 0.2, 0.3]), torch.tensor([0.5, 1.0, 2.0]), Runtime())


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("variational", [False, True])
def test_the_same_latents_as_encoding_on_the_fly(
    data: Dataset, flip: bool, variational: bool
) -> None:
    held = codec(variational)
    stream = Stream(data, held, DataConfig(flip=flip), batch=12, seed=3)
    direct = [stream(step).data for step in range(6)]  # the second epoch too
    stream.latents = LatentCache(held, data, digest="x", flip=flip, seed=3, batch=7)
    for step, expected in enumerate(direct):
        found = stream(step).data
        torch.testing.assert_close(found, expected, rtol=2e-3, atol=2e-3)
    assert not torch.equal(direct[0], direct[3])


def test_it_is_encoded_once(data: Dataset) -> None:
    said: list[tuple[str, int, int]] = []

    def told(*each: object) -> None:
        said.append(each)  # type: ignore[arg-type]

    for _ in range(2):
        LatentCache(codec(), data, digest="x", flip=False, seed=0, batch=16, progress=told)
    assert said == [("encoding", 16, 30), ("encoding", 30, 30)]
    LatentCache(codec(), data, digest="y", flip=False, seed=0, batch=16, progress=told)
    assert len(said) == 4


def test_a_half_written_cache_is_not_taken(data: Dataset, cache: Path) -> None:
    class Stopped(Exception):
        pass

    def stop(what: str, done: int, of: int) -> None:
        raise Stopped

    with pytest.raises(Stopped):
        LatentCache(codec(), data, digest="x", flip=False, seed=0, batch=16, progress=stop)
    assert not list(stored("x").parent.iterdir())
    keys = torch.stack((torch.arange(4), torch.zeros(4, dtype=torch.int64)), 1)
    held = LatentCache(codec(), data, digest="x", flip=False, seed=0)
    assert held(keys).shape == (4, 3, 4, 4)
