"""Saved models with random weights, none of them zero: an output of zeros would prove nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from couette import storage
from couette.config import ModelConfig, spec
from couette.data.tokenizer import Tokenizer
from couette.model import AUTOENCODER, CONFIG, READER, TOKENIZER, WEIGHTS, build_network
from couette.model.describing import build_autoencoder, build_reader
from couette.validation import parse

UNET2D = (
    "unet2d:block_out_channels=(8,16),attention=(False,True),norm_num_groups=4,layers_per_block=1"
)


WORDS = Tokenizer.learned(["a red circle", "a blue square on a red circle"] * 2, 300)


def saved(folder: Path, network: str, **fields: Any) -> Path:
    """A model of gray 8×8 pictures that was never trained, in a folder of its own.

    Args:
        folder: a new one.
        network: as a spec.
        fields: of the model's config; captions are read by `WORDS`.
    """
    given = {
        "recipe": "none",
        "channels": 1,
        "height": 8,
        "width": 8,
        "codec": spec("symmetric"),
        "diffusion": {},
        "sampling": {},
        "network": network,
        **fields,
    }
    config = parse(ModelConfig, given, "the test's model")
    torch.manual_seed(7)
    parts = {WEIGHTS: build_network(config)}
    if config.autoencoder is not None:
        parts[AUTOENCODER] = build_autoencoder(config)
    if config.reader is not None:
        parts[READER] = build_reader(config)
    files = {CONFIG: storage.json_bytes(config.model_dump(mode="json"))}
    if config.text.encoder != "none":
        files[TOKENIZER] = WORDS.text.encode()
    for name, part in parts.items():
        with torch.no_grad():
            for parameter in part.parameters():
                if not bool(parameter.any()):
                    parameter.normal_(std=0.1)
        files[name] = storage.tensor_bytes(part.state_dict())
    storage.write_folder(folder, files)
    return folder
