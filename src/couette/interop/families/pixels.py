"""UNet2DModel on pixels, with or without classes: DDPM and DDIM."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from couette.codecs import Symmetric
from couette.conditioners import Conditioning
from couette.config import ModelConfig, SamplingConfig, Spec, spec
from couette.contracts import Ask
from couette.errors import CheckpointError, ConfigError, InputError
from couette.interop.families.common import (
    Family,
    Parts,
    described,
    fields_for,
    is_learned,
    names_of,
    network_of,
    placed,
    refuse_untold,
    size_of,
)
from couette.interop.folders import Folder, tensors_of
from couette.interop.networks import Plain
from couette.interop.schedulers import scheduled
from couette.model import check_weights, load_weights
from couette.model.describing import Unfilled
from couette.networks.diffusers_config import from_diffusers_config, sizes_from_diffusers_config
from couette.networks.unet2d import UNet2D
from couette.registry import NETWORKS
from couette.runtime import Runtime


def _pixels(folder: Folder) -> ModelConfig:
    fields = fields_for(folder, "unet", "UNet2DModel")
    channels = int(fields.get("in_channels", 3))
    refuse_untold(fields, folder, num_class_embeds=fields.get("num_class_embeds"))
    found = scheduled(folder.scheduler(), folder.given)
    names, blank = _rows(folder, fields)
    way = {"sampler": spec("ddim"), "grid": spec("strided"), "threshold": found.threshold}
    if found.schedule.name == "flow":
        way |= {"sampler": spec("euler"), "grid": found.grid}
    sampling = SamplingConfig(steps=50, **way)
    return described(
        folder,
        "unet",
        (channels, *size_of(fields, folder.given)),
        found,
        sampling,
        classes=names,
        learned=is_learned(channels, fields.get("out_channels", 3), folder.given),
        drop=0.1 if blank else 0.0,
    )


def _rows(folder: Folder, fields: Mapping[str, Any]) -> tuple[tuple[str, ...], bool]:
    """The classes, and whether the last row of their embedding stands for none of them: where
    id2label names all rows but that one."""
    rows = int(fields.get("num_class_embeds") or 0)
    if not rows:
        return (), False
    names = names_of(folder, rows)
    if len(names) not in (rows, rows - 1):
        raise CheckpointError(
            f"{folder.given} names {len(names)} classes, and its network knows {rows}; name as "
            "many, or one fewer where the last one means none."
        )
    return names, len(names) == rows - 1


class Named(Conditioning):
    """Classes of a network that can't do without: nothing is told where none is named."""

    def __call__(self, asked: Sequence[Ask]) -> dict[str, Tensor]:
        """As `Labels`.

        Raises:
            InputError: a class is named for some pictures and not for others.
        """
        named = [ask for ask in asked if ask.label is not None]
        if 0 < len(named) < len(asked):
            raise InputError("This model needs a class for every picture; name one for each.")
        told = super().__call__(asked)
        return told if named else {}


def _pixel_parts(folder: Folder, config: ModelConfig, runtime: Runtime) -> Parts:
    fields = folder.config("unet")
    blank = config.diffusion.drop > 0 or not config.classes
    conditioner = Conditioning(config.classes) if blank else Named(config.classes)
    network = _own(folder, fields, runtime) if blank else None
    if network is None:
        wants = ("label",) if config.classes else ()
        network = placed(Plain(network_of(folder, "unet", runtime), wants), runtime)
    return Parts(network, Symmetric(), conditioner)


_RENAMED = {
    ".query.": ".to_q.",
    ".key.": ".to_k.",
    ".value.": ".to_v.",
    ".proj_attn.": ".to_out.0.",
}
"""What the weights of attention were called once, and are now."""


def _own(folder: Folder, fields: Mapping[str, Any], runtime: Runtime) -> nn.Module | None:
    """The network as our own class of it, which knows more tricks and needs no other library; None
    where it has settings that ours lacks.

    Raises:
        ShapeError: weights that do not fit it.
    """
    try:
        described = Spec(name="unet2d", **from_diffusers_config(fields))
        sizes = sizes_from_diffusers_config(fields)
        with torch.device("meta"), Unfilled():
            outline: UNet2D = NETWORKS.build(described, sizes)
    except ConfigError:
        return None
    weights = {}
    for name, value in tensors_of(folder.part("unet")).items():
        for old, new in _RENAMED.items():
            name = name.replace(old, new)
        weights[name] = value.float()
    # Nothing is allocated for a network before the file is known to hold its weights.
    check_weights(outline.state_dict(), weights, str(folder.part("unet")))
    with torch.random.fork_rng(devices=[]), Unfilled():
        network: UNet2D = NETWORKS.build(described, sizes)
    load_weights(network, weights, str(folder.part("unet")))
    network.requires_grad_(False)
    return runtime.recorded(runtime.place(network).eval())


PIXELS = Family(_pixels, _pixel_parts)
