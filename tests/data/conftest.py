"""Pictures made on the spot, and a cache of the test's own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

Save = Callable[..., Path]


@pytest.fixture(autouse=True)
def own_places(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """No test reads or writes the user's cache."""
    cache = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("COUETTE_CACHE", str(cache))
    monkeypatch.delenv("COUETTE_DATA", raising=False)
    return cache


@pytest.fixture
def save(tmp_path: Path) -> Save:
    """Save a picture of random pixels below `tmp_path/"set"`; give its path."""

    def save_picture(
        name: str,
        size: tuple[int, int] = (16, 16),
        mode: str = "RGB",
        seed: int = 0,
        **options: object,
    ) -> Path:
        path = tmp_path / "set" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        noise = np.random.default_rng([seed, *name.encode()])
        channels = len(Image.new(mode, (1, 1)).getbands())
        pixels = noise.integers(0, 256, (size[1], size[0], channels), dtype=np.uint8)
        image = Image.fromarray(pixels.squeeze(2) if channels == 1 else pixels, mode=None)
        if image.mode != mode:
            image = Image.frombytes(mode, size, pixels.tobytes())
        image.save(path, **options)
        return path

    return save_picture
