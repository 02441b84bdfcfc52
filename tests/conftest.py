"""What every test shares: the real data, one thread, and a cache that is not the user's."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

# Workers run side by side, and so do the processes that they start: a thread each is enough.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
import torch
from hypothesis import settings

# A shared or throttled machine must not fail a property by being slow.
settings.register_profile("couette", deadline=None)
settings.load_profile("couette")

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Nothing that a test does touches the user's cache; subprocesses inherit this."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("COUETTE_CACHE", str(tmp_path_factory.mktemp("cache")))
        patch.delenv("COUETTE_DATA", raising=False)
        yield


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> Iterator[None]:
    """Small tensors gain nothing from more threads, and sums keep their order."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real data beside the repository."""
    folder = ROOT.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"needs the real data of {folder}, which is not here")
    return folder
