from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from couette.cli.pictures import _files


def test_a_batchs_files_are_there_before_the_next_is_drawn(tmp_path: Path) -> None:
    def batches() -> Iterator[Tensor]:
        yield torch.full((2, 1, 4, 4), -1.0)
        assert sorted(p.name for p in tmp_path.iterdir()) == ["00000.png", "00001.png"]
        yield torch.full((1, 1, 4, 4), 1.0)

    paths = list(_files(batches(), tmp_path, lambda index: {"parameters": "Steps: 2"}))
    assert [p.name for p in paths] == ["00000.png", "00001.png", "00002.png"]
    shades, indices = [], []
    for path in paths:
        with Image.open(path) as image:
            shades.append(image.convert("L").getpixel((0, 0)))
            indices.append(image.info["couette-index"])
    assert (shades, indices) == ([0, 0, 255], ["0", "1", "2"])
