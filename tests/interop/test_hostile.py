"""Small files that ask for much, or lead elsewhere: refused before anything is made of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from couette.errors import CouetteError
from couette.interop import load
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
