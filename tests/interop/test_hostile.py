"""Small files that ask for much, or lead elsewhere: refused before anything is made of them."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from couette.errors import CheckpointError, CouetteError
from couette.interop import is_foreign, load
from interop import small_pipelines as small


def changed(path: Path, **fields: Any) -> None:
    held = json.loads(path.read_text("utf-8"))
    path.write_text(json.dumps({**held, **fields}), "utf-8")


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"num_class_embeds": 10**10}, "num_class_embeds"),
        ({"layers_per_block": 1000, "transformer_layers_per_block": 1000}, "layers in a block"),
        ({"down_block_types": ["DownBlock2D"] * 1000}, "down_block_types"),
        ({"pos_embed_max_size": 20_000}, "pos_embed_max_size"),
        ({"block_out_channels": 5}, "fetch the model again|damaged|not iterable|can.t be"),
    ],
)
def test_what_asks_for_too_much(fields: dict[str, Any], said: str, tmp_path: Path) -> None:
    small.pixels(tmp_path)
    changed(tmp_path / "unet" / "config.json", **fields)
    with pytest.raises(CouetteError, match=said):
        load(tmp_path)


@pytest.mark.parametrize(
    ("part", "fields"),
    [
        ("vae", {"scaling_factor": "big"}),
        ("vae", {"scaling_factor": [1]}),
        ("text_encoder", {"vocab_size": "many"}),
    ],
)
def test_settings_of_a_wrong_kind(part: str, fields: dict[str, Any], tmp_path: Path) -> None:
    small.stable(tmp_path)
    changed(tmp_path / part / "config.json", **fields)
    with pytest.raises(CouetteError):
        load(tmp_path)


@pytest.mark.parametrize(
    "fields",
    [
        {"fast_tokenizer_files": ["/elsewhere/tokenizer.1.0.json"]},
        {"extra_ids": 10**10},
        {"auto_map": {"AutoTokenizer": ["theirs.Tokenizer", None]}},
    ],
)
def test_tokenizers_that_lead_elsewhere(fields: dict[str, Any], tmp_path: Path) -> None:
    small.stable(tmp_path)
    changed(tmp_path / "tokenizer" / "tokenizer_config.json", **fields)
    with pytest.raises(CouetteError, match=next(iter(fields))):
        load(tmp_path)


@pytest.fixture(scope="module")
def pixels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pixels")
    small.pixels(folder)
    return folder


def by_way_of(folder: Path) -> None:
    """A part that lies beside the others, and leads elsewhere from there."""
    (folder / "unet").rename(folder / "hidden")
    (folder / "unet").symlink_to("hidden")
    outside(folder, "hidden/diffusion_pytorch_model.safetensors")


def outside(folder: Path, name: str) -> None:
    """A file or a folder moved out of the model's, and linked to from there."""
    there = folder.parent / "elsewhere"
    (folder / name).rename(there)
    (folder / name).symlink_to(there)


@pytest.mark.parametrize(
    "moved",
    [
        lambda f: outside(f, "model_index.json"),
        lambda f: outside(f, "unet/config.json"),
        lambda f: outside(f, "unet/diffusion_pytorch_model.safetensors"),
        lambda f: outside(f, "scheduler"),
        by_way_of,
    ],
)
def test_links_that_lead_out(pixels: Path, tmp_path: Path, moved: Callable[[Path], None]) -> None:
    folder = Path(shutil.copytree(pixels, tmp_path / "model"))
    moved(folder)
    with pytest.raises(CheckpointError, match=r"is a link that leads out .*elsewhere.*put a copy"):
        load(folder)


def test_links_that_stay(pixels: Path, tmp_path: Path) -> None:
    """In the folder of a repository in the hub's cache, and of what is no part of the model."""
    repository = tmp_path / "models--some--model"
    folder = Path(shutil.copytree(pixels, repository / "snapshots" / "1234"))
    for number, path in enumerate(p for p in folder.rglob("*") if p.is_file()):
        blob = repository / "blobs" / str(number)
        blob.parent.mkdir(exist_ok=True)
        path.rename(blob)
        path.symlink_to(os.path.relpath(blob, path.parent))
    (tmp_path / "drawn").mkdir()
    (folder / "pictures").symlink_to(tmp_path / "drawn")
    (tmp_path / "mine").symlink_to(folder)
    assert load(tmp_path / "mine").shape == load(folder / "unet").shape == (3, 8, 8)


@pytest.mark.parametrize("name", ["model_index.json", "unet/config.json", "unet/model.safetensors"])
def test_what_is_no_file(pixels: Path, tmp_path: Path, name: str) -> None:
    folder = Path(shutil.copytree(pixels, tmp_path / "model"))
    (folder / name).unlink(missing_ok=True)
    os.mkfifo(folder / name)
    with pytest.raises(CheckpointError, match=r"is a device, a pipe or a socket.*put a file in"):
        load(folder)


def test_a_config_without_end(tmp_path: Path) -> None:
    """Is not even begun to be read, to see whose it is."""
    (tmp_path / "config.json").symlink_to("/dev/zero")
    assert not is_foreign(tmp_path)
    with pytest.raises(CheckpointError, match="leads out of the model's folder, to /dev/zero"):
        load(tmp_path)


def test_shards_have_their_headers_looked_at(tmp_path: Path) -> None:
    small.pixels(tmp_path)
    folder = tmp_path / "unet"
    many = {f"w{i}": torch.zeros(1) for i in range(20_001)}
    save_file(many, folder / "more.safetensors")
    index = {"weight_map": {"w0": "more.safetensors"}}
    name = "diffusion_pytorch_model.safetensors.index.json"
    (folder / name).write_text(json.dumps(index), "utf-8")
    with pytest.raises(CouetteError, match="tensors"):
        load(tmp_path)
