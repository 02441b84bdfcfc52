"""A model's folder in the layout of diffusers: JSON of a closed shape, weights only as safetensors.

model_index.json     the kind of pipeline, and the class of each part
unet/ vae/ …         a part each: config.json, and its weights
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from torch import Tensor

from couette.errors import CheckpointError, CouetteError
from couette.storage import check_header, file_size, read_json, read_tensors

T = TypeVar("T")

INDEX = "model_index.json"
CONFIG = "config.json"
SCHEDULER = "scheduler_config.json"
_PICKLED = re.compile(r"(?i).*\.(ckpt|pt|pth|pkl|pickle)|.*model.*\.bin")

_WEIGHTS = re.compile(
    r"(?:diffusion_pytorch_)?model(?:\.(?P<early>\w+))?(?:-\d+-of-\d+)?(?:\.(?P<late>\w+))?"
    r"\.safetensors"
)
MOST_BLOCKS = 64
"""Blocks that a config may list."""

MOST = {
    "num_class_embeds": 100_000,
    "num_embeds_ada_norm": 100_000,
    "pos_embed_max_size": 1_024,
    "extra_ids": 10_000,
}
"""The largest that settings may be from which memory is made before any weight is compared."""

MOST_LAYERS = 1_000
"""More than any network has, and few enough to be built in no time."""

PARTS = (
    "unet",
    "transformer",
    "vae",
    "scheduler",
    "image_noising_scheduler",
    *(f"{part}{n}" for part in ("text_encoder", "tokenizer") for n in ("", "_2", "_3")),
)
"""The parts of pipelines that are used here, each in a folder of its name."""

_READ = (".json", ".safetensors")
"""How the names of files end that are read of a model's own folder."""

_REPOSITORY = "models--"
"""How the folder of a repository begins in the hub's cache: its snapshots lead to its blobs."""

_FOREIGN = ("auto_map", "quantization_config", "custom_pipelines")
"""What a config may hold to have further code imported."""


def is_pickled(name: str) -> bool:
    """Whether a file, by its name, may run code when its weights are read."""
    return bool(_PICKLED.fullmatch(name))


class Folder:
    """A model on disk.

    Args:
        path: a pipeline's folder, or that of a single network.
        given: what the user called it.

    Raises:
        CheckpointError: it leads elsewhere, holds what is no file, or has no usable config.
    """

    def __init__(self, path: Path, given: str) -> None:
        _refuse_strays(path)
        self.path, self.given = path, given
        self.single = not (path / INDEX).exists()
        self.index = fields_of(path / (CONFIG if self.single else INDEX))

    @property
    def kind(self) -> str:
        """The class of the pipeline, or of the single network, by its name."""
        return str(self.index.get("_class_name", ""))

    def part(self, name: str) -> Path:
        """The folder of a part; of a single network its own."""
        return self.path if self.single and name in ("unet", "transformer") else self.path / name

    def has(self, name: str) -> bool:
        """Whether the pipeline has this part; optional ones are listed as null."""
        return bool((self.index.get(name) or (None,))[0]) and self.part(name).is_dir()

    def config(self, name: str) -> dict[str, Any]:
        """The config of a part.

        Raises:
            CheckpointError: it is missing or damaged, or wants code of its own.
        """
        return fields_of(self.part(name) / CONFIG)

    def scheduler(self, name: str = "scheduler") -> dict[str, Any] | None:
        """The config of a scheduler; None where a single network has none beside it."""
        for path in (self.path / name / SCHEDULER, self.path / SCHEDULER):
            if path.exists() or (not self.single and path.parent.name == name):
                return fields_of(path)
        return None


def _refuse_strays(folder: Path) -> None:
    """Refuse a model whose links lead out of its folder, or that holds devices or pipes.

    Folders that are no parts of it, such as one of pictures drawn with it, may lie anywhere.
    """
    if not folder.is_dir():
        return  # whoever reads it says so
    own, seen = _real(_repository(folder) or folder), set[Path]()
    try:
        left = [p for p in folder.iterdir() if p.name in PARTS or p.suffix in _READ]
        while left:
            path = left.pop()
            real = _real(path)
            if not real.is_relative_to(own):
                raise CheckpointError(
                    f"{path} is a link that leads out of the model's folder, to {real}, so it is "
                    "not followed; put a copy of that in its place."
                )
            if real in seen:
                continue
            seen.add(real)
            if real.is_dir():
                left += real.iterdir()
            elif real.exists():
                file_size(real)
    except OSError as error:
        raise CheckpointError(f"{folder} can't be read: {error.strerror}.") from None


def _repository(folder: Path) -> Path | None:
    """The repository in the hub's cache that a snapshot, or a part of one, lies in."""
    for path in (_real(folder), folder.absolute()):
        for snapshots in path.parents:
            repository = snapshots.parent
            if snapshots.name == "snapshots" and repository.name.startswith(_REPOSITORY):
                return repository
    return None


def _real(path: Path) -> Path:
    """Where a path leads, through all links; loops among them lead nowhere."""
    return Path(os.path.realpath(path))


def fields_of(path: Path) -> dict[str, Any]:
    """A config.

    Raises:
        CheckpointError: it is missing or damaged, wants code of its own, or asks for more layers
            than any network has.
    """
    return checked(read_json(path), path)


def checked(fields: Any, path: Path) -> dict[str, Any]:
    """Settings that were read from `path`, or a group of them. Raises as `fields_of`."""
    if not isinstance(fields, dict):
        raise CheckpointError(f"{path} is not a table of settings; it is damaged.")
    for key in _FOREIGN:
        if fields.get(key):
            raise CheckpointError(
                f"{path} has '{key}', which asks for code beyond the classes known here; use a "
                "copy of the model that was saved without it."
            )
    for key, value in fields.items():
        if "layers" in key and _largest(value) > MOST_LAYERS:
            raise CheckpointError(
                f"{path} asks for {key}={value}, and no network has over {MOST_LAYERS:,} layers; "
                "it is damaged."
            )
        if key in MOST and _largest(value) > MOST[key]:
            raise CheckpointError(
                f"{path} asks for {key}={value}, and no model has over {MOST[key]:,}; it is "
                "damaged."
            )
        if "block" in key and isinstance(value, list) and len(value) > MOST_BLOCKS:
            raise CheckpointError(
                f"{path} lists {len(value):,} as {key}, and no network has over {MOST_BLOCKS}; it "
                "is damaged."
            )
    layers = _largest(fields.get("layers_per_block"))
    if layers * max(1, _largest(fields.get("transformer_layers_per_block"))) > MOST_LAYERS:
        raise CheckpointError(
            f"{path} asks for more than {MOST_LAYERS:,} layers in a block; it is damaged."
        )
    return fields


def _largest(value: Any) -> float:
    """The largest number in a setting."""
    if isinstance(value, list):
        return max(map(_largest, value), default=0)
    return value if isinstance(value, int | float) else 0


def guarded(read: Callable[[], T], given: str) -> T:
    """What is read; settings of a wrong kind are a damaged file's."""
    try:
        return read()
    except (TypeError, ValueError, AttributeError, ArithmeticError, LookupError) as error:
        if isinstance(error, CouetteError):
            raise
        reason = str(error).partition("\n")[0]
        raise CheckpointError(
            f"The configs of {given} hold something that they should not ({reason}); fetch "
            "the model again."
        ) from None


def choose_weights(names: Iterable[str], where: str) -> tuple[str | None, list[str]]:
    """Which of a part's files hold its weights, and the variant they are of: plain ones before
    those in half the bytes ("fp16"), and these before any other.

    Args:
        names: of the files in its folder.
        where: that folder, for messages.

    Raises:
        CheckpointError: there are none as safetensors.
    """
    names = sorted(names)
    variants: dict[str, list[str]] = {}
    for name in names:
        if found := _WEIGHTS.fullmatch(name):
            variants.setdefault(found["early"] or found["late"] or "", []).append(name)
    if not variants:
        raise CheckpointError(_without_safetensors(names, where))
    variant = min(variants, key=lambda each: (each != "", each != "fp16", each))
    return variant or None, variants[variant]


def _without_safetensors(names: Iterable[str], where: str) -> str:
    pickled = [name for name in names if is_pickled(name)]
    if not pickled:
        return f"{where} holds no weights; fetch the whole model again."
    return (
        f"{where} has its weights only as {pickled[0]}, a pickle, which may run code when it is "
        "read, so it is not opened; take a copy with .safetensors, or convert it on a machine that "
        "you can spare: load it there with diffusers and save it with save_pretrained(…, "
        "safe_serialization=True)."
    )


def checked_weights(folder: Path) -> tuple[str | None, list[Path]]:
    """The files that hold a part's weights, their headers looked at, and their variant.

    Raises:
        CheckpointError: missing, pickled or damaged ones, or an index that names others.
    """
    try:
        names = [each.name for each in folder.iterdir() if each.is_file()]
    except OSError as error:
        raise CheckpointError(f"{folder} can't be read: {error.strerror}.") from None
    if "adapter_config.json" in names:
        raise CheckpointError(
            f"{folder} holds an adapter of another model, not a model; merge it there first."
        )
    variant, files = choose_weights(names, str(folder))
    shards: list[str] = []
    for name in names:
        if ".safetensors.index." in name and name.endswith(".json"):
            shards += _check_index(folder / name, names)
    for name in dict.fromkeys((*files, *shards)):
        try:
            check_header(folder / name)
        except OSError as error:
            raise CheckpointError(f"{folder / name} can't be read: {error.strerror}.") from None
    return variant, [folder / name for name in files]


def _check_index(path: Path, names: list[str]) -> list[str]:
    """The files that a list of shards names.

    Raises:
        CheckpointError: it is damaged, leads elsewhere, or to files that are not there.
    """
    shards = fields_of(path).get("weight_map")
    if not isinstance(shards, Mapping):
        raise CheckpointError(f"{path} is damaged; fetch the model again.")
    named = list(dict.fromkeys(map(str, shards.values())))
    for name in named:
        if name not in names or not name.endswith(".safetensors"):
            raise CheckpointError(
                f"{path} names the weights {name!r}, and there are no such safetensors beside it; "
                "fetch the model again."
            )
    return named


def tensors_of(folder: Path) -> dict[str, Tensor]:
    """All weights of a part, by name.

    Raises:
        CheckpointError: as `checked_weights`, or a damaged file.
    """
    tensors: dict[str, Tensor] = {}
    for path in checked_weights(folder)[1]:
        tensors |= read_tensors(path)
    return tensors
