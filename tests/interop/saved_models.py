"""Saved models with random weights, none of them zero: an output of zeros would prove nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from couette import storage
from couette.config import ModelConfig, spec
from couette.model import CONFIG, WEIGHTS, build_network
from couette.validation import parse

UNET2D = (
    "unet2d:block_out_channels=(8,16),attention=(False,True),norm_num_groups=4,layers_per_block=1"
)


def saved(folder: Path, network: str, **fields: Any) -> Path:
    """A model of gray 8×8 pictures that was never trained, in a folder of its own."""
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
    made = build_network(config)
    with torch.no_grad():
        for parameter in made.parameters():
            if not bool(parameter.any()):
                parameter.normal_(std=0.1)
    files = {
        CONFIG: storage.json_bytes(config.model_dump(mode="json")),
        WEIGHTS: storage.tensor_bytes(made.state_dict()),
    }
    storage.write_folder(folder, files)
    return folder
