"""A trained model as its users hold it, and how it is saved and loaded.

On disk a model is a folder with `model.json` (a `ModelConfig`) and its weights as safetensors. The
network is built from the config by the closed registries, and names, shapes and dtypes of the
weights must be equal to what was built.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_parameter_registration_hook
from torch.overrides import TorchFunctionMode

import couette.codecs  # noqa: F401  (fills the registry)
from couette.conditioners import Conditioning, Words
from couette.config import (
    FORMAT,
    STATES,
    DiffusionConfig,
    ModelConfig,
    SamplingConfig,
    Spec,
    spec,
)
from couette.contracts import Codec, Sizes, TextSizes
from couette.data.tokenizer import Tokenizer
from couette.denoiser import Denoiser, NoisyClassifier, build_denoiser
from couette.errors import CheckpointError, ConfigError, ShapeError
from couette.exact import Ideal, World
from couette.networks.recalling import Recalling
from couette.registry import CODECS, NETWORKS
from couette.runtime import Runtime
from couette.storage import MAX_TENSORS, read_json, read_tensors, read_text
from couette.validation import parse

CONFIG = "model.json"
AVERAGE = "average.safetensors"
WEIGHTS = "network.safetensors"
TOKENIZER = "tokenizer.json"


@dataclass(frozen=True)
class Model:
    """From words and seeds to pictures: a denoiser, a codec, a conditioner, and what it is."""

    denoiser: Denoiser
    codec: Codec
    conditioner: Conditioning
    config: ModelConfig

    @property
    def network(self) -> nn.Module:
        return cast(nn.Module, self.denoiser.network)

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W) of what the denoiser works on."""
        config = self.config
        return self.codec.shape(config.channels, config.height, config.width)

    @property
    def is_points(self) -> bool:
        """Whether it makes 2-D points, (N, 2, 1, 1), instead of pictures."""
        return (self.config.channels, self.config.height, self.config.width) == (2, 1, 1)


@dataclass(frozen=True)
class ClassifierModel:
    """A classifier of noised pictures: log p(y | x_t), a codec, and what it is."""

    classify: NoisyClassifier
    codec: Codec
    config: ModelConfig

    @property
    def classes(self) -> tuple[str, ...]:
        return self.config.classes


_GIVES = {"classifier": "logits"}
"""What an objective needs of its network, where that is not pictures."""


def sizes_of(config: ModelConfig) -> Sizes:
    """What the network is built for.

    Raises:
        ConfigError: a codec that makes no states, for noise that replaces them.
        ShapeError: pictures that the codec can't take.
    """
    noise = config.diffusion.noise
    if noise in STATES and not CODECS.trait(config.codec.name, "states"):
        raise ConfigError(
            f"With {noise} noise pixels are states, which the codec '{config.codec}' does not "
            "make; set --codec levels:count=8."
        )
    codec = CODECS.build(config.codec)
    channels, height, width = codec.shape(config.channels, config.height, config.width)
    words = config.text
    text = TextSizes(words.length, words.vocabulary) if words.encoder == "learned" else None
    return Sizes(channels, height, width, len(config.classes), text=text)


def build_sized(network: Spec, sizes: Sizes, diffusion: DiffusionConfig) -> nn.Module:
    """A fresh network of that kind for these pictures, with what the objective asks of it: a second
    half of the output for a learned variance, x0 beside x for self-conditioning.

    Raises:
        UnknownName, ConfigError, ShapeError: as the settings deserve.
    """
    if diffusion.variance == "learned":
        sizes = sizes._replace(out=2 * sizes.channels)
    build = partial(NETWORKS.build, network)
    made: nn.Module = Recalling(build, sizes) if diffusion.self_conditioning else build(sizes)
    return made


def build_network(config: ModelConfig) -> nn.Module:
    """A fresh network as the config describes it, its weights drawn from torch's generator.

    Raises:
        UnknownName, ConfigError, ShapeError: as the config deserves.
    """
    sizes = sizes_of(config)
    gives = NETWORKS.trait(config.network.name, "gives", "pictures")
    wanted = _GIVES.get(config.objective.name, "pictures")
    if gives != wanted:
        raise ConfigError(
            f"The network '{config.network.name}' gives {gives}, and the objective "
            f"'{config.objective.name}' needs one that gives {wanted}; choose another network."
        )
    try:
        return build_sized(config.network, sizes, config.diffusion)
    except (RuntimeError, MemoryError, OverflowError) as error:
        reason = str(error).partition("\n")[0]
        raise ShapeError(
            f"The network '{config.network}' can't be built for {sizes.channels}×{sizes.height}×"
            f"{sizes.width} ({reason}); choose a smaller one."
        ) from None


class _Unfilled(TorchFunctionMode):
    """Weights are not drawn at random: they have no memory, or will be replaced.

    For those without memory torch would import its compiler, which takes longer than a picture.
    """

    _DRAWING = frozenset({"normal_", "uniform_", "trunc_normal_"})

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        if getattr(func, "__name__", "") in self._DRAWING:
            return args[0] if args else kwargs["tensor"]
        return func(*args, **(kwargs or {}))


def without_memory(config: ModelConfig) -> nn.Module:
    """The network with nothing allocated for it: to ask what it wants and how large it is.

    Raises:
        UnknownName, ConfigError, ShapeError: as `build_network`.
    """
    with torch.device("meta"), _Unfilled():
        return build_network(config)


def outline(config: ModelConfig) -> dict[str, Tensor]:
    """Names, shapes and dtypes of the network's weights, as tensors without memory.

    Raises:
        UnknownName, ConfigError, ShapeError: as `build_network`, or too many weights.
    """
    count = 0

    def counted(module: nn.Module, name: str, parameter: nn.Parameter | None) -> None:
        nonlocal count
        count += 1
        if count > MAX_TENSORS:
            raise ShapeError(f"The network '{config.network}' has over {MAX_TENSORS} tensors.")

    hook = register_module_parameter_registration_hook(counted)
    try:
        return without_memory(config).state_dict()
    finally:
        hook.remove()


def assemble(
    config: ModelConfig,
    network: nn.Module,
    runtime: Runtime | None = None,
    tokenizer: Tokenizer | None = None,
) -> Model:
    """A model around a network that is there already; `tokenizer` of one that reads captions."""
    denoiser = build_denoiser(config.diffusion, cast(Any, network), runtime)
    codec: Codec = CODECS.build(config.codec)
    wants: frozenset[str] = getattr(network, "wants", frozenset())
    classes = config.classes if "label" in wants else ()
    words = None if tokenizer is None else Words(tokenizer, config.text.length)
    return Model(denoiser, codec, Conditioning(classes, words), config)


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


def load_model(folder: Path, *, average: bool = True, runtime: Runtime | None = None) -> Model:
    """Load a model that makes pictures from its folder.

    Args:
        folder: holds `model.json` and weights.
        average: the running average of the weights, where there is one; else the raw weights.
        runtime: where to put it; the CPU in float32 when not given.

    Raises:
        CheckpointError, ConfigError, ShapeError: something is missing, damaged or does not fit.
    """
    config, network, runtime = _loaded(folder, "diffusion", average, runtime)
    tokenizer = None if config.text.encoder == "none" else load_tokenizer(folder, config)
    return assemble(config, network, runtime, tokenizer)


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


_USES = {
    "classifier": "a classifier; draw with a model and give it as --guider classifier:run={}",
    "diffusion": "a model that makes pictures; train a classifier with --recipe classifier",
}


def _loaded(
    folder: Path, objective: str, average: bool, runtime: Runtime | None
) -> tuple[ModelConfig, nn.Module, Runtime]:
    """A network in evaluation mode, trained with this objective, and where it runs."""
    config = read_config(folder)
    if config.objective.name != objective:
        use = _USES.get(config.objective.name, f"of the objective {config.objective}")
        raise CheckpointError(f"{folder} holds {use.format(folder)}.")
    path = folder / (AVERAGE if average and (folder / AVERAGE).exists() else WEIGHTS)
    weights = read_tensors(path)
    # Nothing is allocated for a network before the file is known to hold its weights.
    check_weights(outline(config), weights, str(path))
    with torch.random.fork_rng(devices=[]), _Unfilled():
        network = build_network(config)
    load_weights(network, weights, str(path))
    runtime = runtime or Runtime(threads=torch.get_num_threads())
    return config, runtime.place(network).eval(), runtime


def drawn_as(model: Model, sampling: SamplingConfig) -> Model:
    """The same model with another way to draw; told nothing, there is nothing to guide by."""
    if not (model.conditioner.classes or model.conditioner.words):
        sampling = sampling.model_copy(update={"guidance": 1.0})
    return replace(model, config=model.config.model_copy(update={"sampling": sampling}))


def exact_model(world: World, runtime: Runtime | None = None) -> Model:
    """A model whose denoiser is the true one of a world; sampled as by default.

    Raises:
        ConfigError: a device without float64, which exact answers are computed in.
        CouetteError: the world's data can't be opened, or its settings do not fit.
    """
    runtime = runtime or Runtime(threads=torch.get_num_threads())
    if runtime.device == "mps":
        raise ConfigError("Exact worlds need float64, which mps does not have; use --device cpu.")
    known, data = world.open()
    config = ModelConfig(
        recipe="exact",
        channels=data.channels,
        height=data.height,
        width=data.width,
        classes=data.classes,
        codec=spec("symmetric"),
        diffusion=world.diffusion,
        network=spec("exact", world=world.given),
        sampling=SamplingConfig(),
        data=data.name,
        data_fingerprint=data.fingerprint,
    )
    return assemble(config, Ideal(known).to(runtime.device), runtime)


def read_config(folder: Path) -> ModelConfig:
    """The config of a saved model.

    Raises:
        CheckpointError: it is missing, or of a later version of Couette.
        ConfigError: it is not a valid config.
    """
    fields = read_json(folder / CONFIG)
    version = fields.get("format") if isinstance(fields, dict) else None
    if isinstance(version, int) and version > FORMAT:
        raise CheckpointError(
            f"{folder} was written by a later version of Couette (format {version}, this one reads "
            f"{FORMAT}); upgrade Couette."
        )
    return parse(ModelConfig, fields, str(folder / CONFIG))


def pixel_range(codec: Codec) -> tuple[float, float] | None:
    """The range of encoded pictures, for keeping predictions in it; latents have none."""
    low, high = getattr(codec, "low", None), getattr(codec, "high", None)
    return None if low is None or high is None else (low, high)
