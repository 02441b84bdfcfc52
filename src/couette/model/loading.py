"""Models from disk, and whether what lies there is what it says it is.

On disk a model is a folder with `model.json` (a `ModelConfig`) and its weights as safetensors. The
network is built from the config by the closed registries, and names, shapes and dtypes of the
weights must be equal to what was built.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from couette.conditioners import Tokenizes
from couette.config import FORMAT, ModelConfig, PretrainedConfig
from couette.contracts import Codec
from couette.data.tokenizer import Tokenizer
from couette.denoiser import NoisyClassifier, build_denoiser
from couette.errors import CheckpointError, ConfigError, ShapeError
from couette.model.describing import (
    Unfilled,
    build_autoencoder,
    build_network,
    build_reader,
    outline,
)
from couette.model.holding import ClassifierModel, Model, Parts, assemble
from couette.networks.clip import Clip
from couette.networks.text import Reader, WordEncoder
from couette.networks.vae import VAE
from couette.registry import CODECS
from couette.runtime import Runtime
from couette.storage import read_json, read_tensors, read_text
from couette.validation import parse

CONFIG = "model.json"
AVERAGE = "average.safetensors"
SECOND = "second.safetensors"
WEIGHTS = "network.safetensors"
TOKENIZER = "tokenizer.json"
AUTOENCODER = "autoencoder.safetensors"
READER = "reader.safetensors"

OpenWords = Callable[[PretrainedConfig], tuple[Tokenizes, WordEncoder]]
"""What finds another library's encoder of words again, and its tokenizer."""


def load_weights(network: nn.Module, weights: Mapping[str, Tensor], where: str) -> None:
    """Fill a network, if names, shapes and dtypes are exactly its own.

    Raises:
        ShapeError: with the first few differences.
    """
    check_weights(network.state_dict(), weights, where)
    network.load_state_dict(dict(weights))


def check_weights(own: Mapping[str, Tensor], weights: Mapping[str, Tensor], where: str) -> None:
    """Refuse weights whose names, shapes or dtypes differ from the network's own.

    Raises:
        ShapeError: with the first few differences.
    """
    faults = [f"{name!r} is missing" for name in own if name not in weights]
    faults += [f"{name!r} is unknown" for name in weights if name not in own]
    for name in own.keys() & weights.keys():
        mine, theirs = own[name], weights[name]
        if mine.shape != theirs.shape or mine.dtype != theirs.dtype:
            faults.append(
                f"{name!r} is {tuple(theirs.shape)} {theirs.dtype}, not {tuple(mine.shape)} "
                f"{mine.dtype}"
            )
    if faults:
        more = f" and {len(faults) - 3} more" if len(faults) > 3 else ""
        raise ShapeError(
            f"The weights in {where} do not fit the network of their config: "
            f"{'; '.join(sorted(faults)[:3])}{more}. Use the config they were trained with."
        )


def widened(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights that were stored in half the bytes, as float32 again."""
    half = (torch.float16, torch.bfloat16)
    return {name: w.float() if w.dtype in half else w for name, w in weights.items()}


def load_model(
    folder: Path,
    *,
    average: bool = True,
    runtime: Runtime | None = None,
    open_words: OpenWords | None = None,
) -> Model:
    """Load a model that makes pictures from its folder.

    Args:
        folder: holds `model.json` and weights.
        average: the running average of the weights, where there is one; else the raw weights.
        runtime: where to put it; the CPU in float32 when not given.
        open_words: finds another library's encoder of words, for a model that is told by one.

    Raises:
        CheckpointError, ConfigError, ShapeError: something is missing, damaged or does not fit.
    """
    config, network, runtime = _loaded(folder, "diffusion", average, runtime)
    return assemble(config, network, runtime, load_parts(folder, config, runtime, open_words))


def load_parts(
    folder: Path, config: ModelConfig, runtime: Runtime, open_words: OpenWords | None = None
) -> Parts:
    """What a saved model has beside its network; without `open_words` all but another library's
    encoder of words.

    Raises:
        CheckpointError, ConfigError, ShapeError: something is missing, damaged or does not fit.
    """
    if (config.text.encoder == "pretrained") != (config.pretrained is not None):
        raise ConfigError(
            f"{folder / CONFIG} has the text encoder '{config.text.encoder}', and "
            f"{'none' if config.pretrained is None else 'one'} of another library beside it; put "
            "back the config that was saved with the model."
        )
    tokenizer: Tokenizes | None = None
    reader: WordEncoder | None = None
    autoencoder = None
    if config.pretrained is not None:
        if open_words is not None:
            tokenizer, reader = open_words(config.pretrained)
    elif config.text.encoder != "none":
        tokenizer = load_tokenizer(folder, config)
    if config.autoencoder is not None:
        found = _filled(folder / AUTOENCODER, lambda: build_autoencoder(config))
        autoencoder = cast(VAE, runtime.place(found).eval())
    if config.reader is not None:
        found = _filled(folder / READER, lambda: build_reader(config))
        reader = cast(Reader, found.to(runtime.device).eval())
    return Parts(tokenizer, autoencoder, reader)


def _filled(path: Path, build: Callable[[], nn.Module]) -> nn.Module:
    """What was built, with the weights of a file."""
    weights = widened(read_tensors(path))
    with torch.random.fork_rng(devices=[]), Unfilled():
        network = build()
    load_weights(network, weights, str(path))
    return network


def load_encoder(
    folder: Path, *, average: bool = True, runtime: Runtime | None = None
) -> tuple[ModelConfig, Clip, Tokenizer]:
    """Load an encoder of pictures and words, what it is, and its tokenizer; as `load_model`."""
    config, network, _ = _loaded(folder, "contrastive", average, runtime)
    return config, cast(Clip, network), load_tokenizer(folder, config)


def load_autoencoder(
    folder: Path, *, average: bool = True, runtime: Runtime | None = None
) -> tuple[ModelConfig, VAE]:
    """Load an autoencoder, and what it is; arguments and errors as of `load_model`."""
    config, network, _ = _loaded(folder, "autoencoder", average, runtime)
    return config, cast(VAE, network)


def load_tokenizer(folder: Path, config: ModelConfig) -> Tokenizer:
    """The tokenizer of a saved model.

    Raises:
        CheckpointError: it is missing, damaged, or not the one the network was built for.
    """
    path = folder / TOKENIZER
    try:
        tokenizer = Tokenizer(read_text(path))
    except ConfigError as error:
        raise CheckpointError(f"{path} is damaged. {error}") from None
    if tokenizer.size != config.text.vocabulary:
        raise CheckpointError(
            f"{path} has {tokenizer.size} tokens, and the model was trained with "
            f"{config.text.vocabulary}; put back the one that was saved with it."
        )
    return tokenizer


def load_classifier(
    folder: Path, *, average: bool = True, runtime: Runtime | None = None
) -> ClassifierModel:
    """Load a classifier of noised pictures; arguments and errors as of `load_model`."""
    config, network, runtime = _loaded(folder, "classifier", average, runtime)
    reader = build_denoiser(config.diffusion, cast(Any, network), runtime)
    codec: Codec = CODECS.build(config.codec)
    return ClassifierModel(NoisyClassifier(reader), codec, config)


_KINDS = {
    "autoencoder": "an autoencoder",
    "contrastive": "an encoder of pictures and words",
    "classifier": "a classifier",
    "diffusion": "a model that makes pictures",
}
_USES = {
    "autoencoder": "train on its latents with --codec latent:run={}",
    "contrastive": "search with it: couette search {} WORDS DATA",
    "classifier": "draw with a model and give it as --guider classifier:run={}",
}
_RECIPES = {"autoencoder": "autoencoder", "contrastive": "clip", "classifier": "classifier"}


def _refuse_other(folder: Path, held: str, wanted: str) -> None:
    """Refuse what was trained with another objective than was wanted.

    Raises:
        CheckpointError: with what it is good for where a model was wanted, else with how to get
            what was wanted.
    """
    if held == wanted:
        return
    kind = _KINDS.get(held, f"what the objective {held} makes")
    if wanted in _RECIPES:
        advice = f", not {_KINDS[wanted]}; train one with --recipe {_RECIPES[wanted]}"
    else:
        advice = f"; {_USES[held].format(folder)}" if held in _USES else ""
    raise CheckpointError(f"{folder} holds {kind}{advice}.")


def _loaded(
    folder: Path, objective: str, average: bool, runtime: Runtime | None
) -> tuple[ModelConfig, nn.Module, Runtime]:
    """A network in evaluation mode, trained with this objective, and where it runs."""
    config = read_config(folder)
    _refuse_other(folder, config.objective.name, objective)
    path = folder / (AVERAGE if average and (folder / AVERAGE).exists() else WEIGHTS)
    weights = widened(read_tensors(path))
    # Nothing is allocated for a network before the file is known to hold its weights.
    check_weights(outline(config), weights, str(path))
    with torch.random.fork_rng(devices=[]), Unfilled():
        network = build_network(config)
    load_weights(network, weights, str(path))
    runtime = runtime or Runtime(threads=torch.get_num_threads())
    return config, runtime.recorded(runtime.place(network).eval()), runtime


def read_config(folder: Path) -> ModelConfig:
    """The config of a saved model.

    Raises:
        CheckpointError: it is missing, or of a later version of Couette.
        ConfigError: it is not a valid config.
    """
    fields = read_json(folder / CONFIG)
    if isinstance(fields, dict) and "graphs" in fields:
        raise CheckpointError(
            f"{folder} holds a model as ONNX, for other programs; give the run it was written from."
        )
    version = fields.get("format") if isinstance(fields, dict) else None
    if isinstance(version, int) and version > FORMAT:
        raise CheckpointError(
            f"{folder} was written by a later version of Couette (format {version}, this one reads "
            f"{FORMAT}); upgrade Couette."
        )
    return parse(ModelConfig, fields, str(folder / CONFIG))
