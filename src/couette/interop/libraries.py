"""diffusers and transformers: imported late, their classes looked up in closed tables."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor, nn

from couette.errors import CheckpointError, ConfigError
from couette.interop.folders import CONFIG, checked_weights, fields_of
from couette.model.describing import Unfilled
from couette.runtime import Runtime

NETWORKS = {
    "UNet2DModel": "UNet2DModel",
    "UNet2DConditionModel": "UNet2DConditionModel",
    "DiTTransformer2DModel": "DiTTransformer2DModel",
    "Transformer2DModel": "DiTTransformer2DModel",
    "SD3Transformer2DModel": "SD3Transformer2DModel",
    "FluxTransformer2DModel": "FluxTransformer2DModel",
    "AutoencoderKL": "AutoencoderKL",
}
"""The class that a config may name, and the one of diffusers that is made of it."""

_CLIP_SETTINGS = (
    *("vocab_size", "hidden_size", "intermediate_size", "projection_dim", "num_hidden_layers"),
    *("num_attention_heads", "max_position_embeddings", "hidden_act", "layer_norm_eps"),
    *("pad_token_id", "bos_token_id", "eos_token_id"),
)
_T5_SETTINGS = (
    *("vocab_size", "d_model", "d_kv", "d_ff", "num_layers", "num_heads", "feed_forward_proj"),
    *("relative_attention_num_buckets", "relative_attention_max_distance", "layer_norm_epsilon"),
    *("pad_token_id", "eos_token_id"),
)
ENCODERS = {
    "CLIPTextModel": ("CLIPTextConfig", _CLIP_SETTINGS),
    "CLIPTextModelWithProjection": ("CLIPTextConfig", _CLIP_SETTINGS),
    "T5EncoderModel": ("T5Config", _T5_SETTINGS),
}
"""The encoders of words, and the class of their settings with those that are taken from a file:
none of them says what else is to be imported."""

WORDS = {
    "CLIPTextModel": "CLIPTextModel",
    "CLIPTextModelWithProjection": "CLIPTextModel",
    "CLIPModel": "CLIPTextModel",
    "T5EncoderModel": "T5EncoderModel",
    "T5Model": "T5EncoderModel",
    "T5ForConditionalGeneration": "T5EncoderModel",
}
"""The classes of models whose states words can be told by, and the encoder in each."""

_CLIP = ("CLIPTokenizer", ("tokenizer.json", "vocab.json"))
TOKENIZERS = {
    "CLIPTextModel": _CLIP,
    "CLIPTextModelWithProjection": _CLIP,
    "T5EncoderModel": ("T5Tokenizer", ("tokenizer.json", "spiece.model")),
}
"""The tokenizers that go with them, and the files of which each needs one."""

_LOGGERS = ("diffusers", "transformers", "huggingface_hub", "accelerate")


def diffusers() -> ModuleType:
    """The library.

    Raises:
        ConfigError: it is not installed.
    """
    try:
        with _unwarned():
            import diffusers
    except ImportError:
        raise ConfigError(_missing("diffusers")) from None
    return diffusers


def transformers() -> ModuleType:
    """The library.

    Raises:
        ConfigError: it is not installed.
    """
    try:
        with _unwarned():
            import transformers
    except ImportError:
        raise ConfigError(_missing("transformers")) from None
    return transformers


def _missing(package: str) -> str:
    return (
        f"This model needs the package {package}, which is not installed: "
        "pip install 'couette[diffusers]'"
    )


def dtype_of(runtime: Runtime) -> torch.dtype:
    """What frozen weights are held in: what the network computes in, since nothing trains them."""
    return torch.bfloat16 if runtime.dtype == "bfloat16" else torch.float32


def network(name: str, folder: Path, dtype: torch.dtype) -> nn.Module:
    """A network or autoencoder of diffusers, with its weights, frozen and set to evaluation.

    Args:
        name: the class that its config names; one of `NETWORKS`.
        folder: with its config and weights.
        dtype: of the weights.

    Raises:
        CheckpointError: weights that are missing, damaged or pickled, or do not fit the config.
        ConfigError: diffusers is not installed.
    """
    held, fields = checked_weights(folder), fields_of(folder / CONFIG)
    made = getattr(diffusers(), NETWORKS[name])
    network: nn.Module = _loaded(
        made, lambda: made.from_config(fields), folder, held, torch_dtype=dtype
    )
    return network


def encoder(name: str, folder: Path, fields: dict[str, Any], dtype: torch.dtype) -> Any:
    """An encoder of words of transformers, as `network`.

    Args:
        name: one of `ENCODERS`.
        folder: with its weights.
        fields: its config.
        dtype: of the weights.
    """
    held, library = checked_weights(folder), transformers()
    described, settings = ENCODERS[name]
    try:
        config = getattr(library, described)(**{k: fields[k] for k in settings if k in fields})
    except Exception as error:  # whatever a class makes of settings it can't take
        raise CheckpointError(f"{folder / CONFIG} can't be used: {_first(error)}.") from None
    made = getattr(library, name)
    arguments = {"config": config, "dtype": dtype, "attn_implementation": "sdpa"}
    return _loaded(made, lambda: made(config), folder, held, **arguments)


def tokenizer(name: str, folder: Path) -> Any:
    """The tokenizer that goes with an encoder of words.

    Raises:
        CheckpointError: it is missing or damaged.
        ConfigError: transformers is not installed.
    """
    library = transformers()
    made, files = TOKENIZERS[name]
    if not any((folder / each).is_file() for each in files):
        raise CheckpointError(
            f"{folder} holds no tokenizer ({' or '.join(files)}), so words can't be read; fetch it "
            "again."
        )
    settings = folder / "tokenizer_config.json"
    if settings.is_file() and fields_of(settings).get("fast_tokenizer_files"):
        raise CheckpointError(
            f"{settings} leads to other files (fast_tokenizer_files); fetch the model again."
        )
    try:
        with quiet():
            return getattr(library, made).from_pretrained(folder, local_files_only=True)
    except Exception as error:  # of whatever it reads the files with
        raise CheckpointError(f"{folder} holds no usable tokenizer: {_first(error)}.") from error


def _loaded(
    made: Any,
    build: Callable[[], nn.Module],
    folder: Path,
    held: tuple[str | None, list[Path]],
    **arguments: Any,
) -> Any:
    variant, files = held
    try:
        with quiet(), torch.random.fork_rng(devices=[]):
            with torch.device("meta"), Unfilled():
                outline = build().state_dict()
            _check_shapes(outline, files, folder)
            module, told = made.from_pretrained(
                folder,
                use_safetensors=True,
                local_files_only=True,
                variant=variant,
                output_loading_info=True,
                **arguments,
            )
    except CheckpointError:
        raise
    except Exception as error:  # the libraries raise many kinds on what does not fit
        raise CheckpointError(f"{folder} can't be loaded: {_first(error)}.") from error
    if missing := sorted(map(str, told["missing_keys"])):
        raise CheckpointError(
            f"The weights in {folder} lack '{missing[0]}'"
            f"{f' and {len(missing) - 1} more' if len(missing) > 1 else ''}, which its config "
            "asks for; fetch the model again."
        )
    return module.requires_grad_(False).eval()


_RENAMED = "text_model."
"""What the names of CLIP's weights began with once."""


def _check_shapes(outline: Mapping[str, Tensor], files: Iterable[Path], folder: Path) -> None:
    """Refuse weights of other shapes than the config asks for, before any memory is taken for them:
    the libraries look only then, and without accelerate only when they have filled it.

    Raises:
        CheckpointError: with both shapes.
    """
    for path in files:
        with safe_open(path, "pt") as file:
            for name in sorted(file.keys()):
                own = outline.get(name, outline.get(name.removeprefix(_RENAMED)))
                found = tuple(file.get_slice(name).get_shape())
                if own is not None and found != tuple(own.shape):
                    raise CheckpointError(
                        f"The weights in {folder} do not fit its config: '{name}' is of the shape "
                        f"{found}, and the config asks for {tuple(own.shape)}; use the config that "
                        "they were trained with."
                    )


def _first(error: Exception) -> str:
    """What went wrong, in a line."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0].rstrip(".")[:300] if lines else type(error).__name__


@contextmanager
def quiet() -> Iterator[None]:
    """The libraries' own messages and bars silenced: what matters of them is in our errors."""
    loggers = [logging.getLogger(name) for name in _LOGGERS]
    before = [each.level for each in loggers]
    for each in loggers:
        each.setLevel(logging.CRITICAL)
    try:
        with _unwarned(), _without_bars():
            yield
    finally:
        for each, level in zip(loggers, before, strict=True):
            each.setLevel(level)


@contextmanager
def _unwarned() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@contextmanager
def _without_bars() -> Iterator[None]:
    """No progress bars while weights are read."""
    import sys

    held = [
        library.utils.logging
        for name in ("diffusers", "transformers")
        if (library := sys.modules.get(name)) is not None
    ]
    shown = [each for each in held if each.is_progress_bar_enabled()]
    for each in shown:
        each.disable_progress_bar()
    try:
        yield
    finally:
        for each in shown:
            each.enable_progress_bar()
