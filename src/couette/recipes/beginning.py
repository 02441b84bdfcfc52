"""Beginning with what another run has learned: fine-tuning."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor, nn

from couette.config import ModelConfig, RunConfig
from couette.errors import ConfigError
from couette.model import AVERAGE, TOKENIZER, WEIGHTS, read_config, widened
from couette.recipes.fitting import AUTO
from couette.runs import find_model
from couette.storage import read_tensors

LEAST = 0.5
"""The share of a network's weights that the other's must fit."""

_ALIKE = ("schedule", "noise", "parameterization", "told", "variance", "self_conditioning")
"""What of diffusion a network is useless without, when it was trained with it."""

_PARTS = {
    "autoencoder": ("autoencoder", "--codec latent:run=RUN"),
    "reader": ("encoder of words", "--text.run RUN"),
    "pretrained": ("encoder of words", "--text.run NAME"),
}
"""Frozen parts that a network was trained to fit: in words, and the flags that name them."""


def begun_from(config: RunConfig, init: Path) -> RunConfig:
    """The settings of a run that begins with the weights of `init`: its network, where none is
    named, and its tokenizer, where captions are read and none is given.

    Raises:
        CheckpointError: there is no model.
    """
    folder = find_model(init)
    other = read_config(folder)
    if config.network.name == AUTO:
        config = config.replace(network=other.network)
    reads = config.text.encoder == "learned" and config.text.tokenizer is None
    if reads and (folder / TOKENIZER).is_file():
        config = config.replace(text={"tokenizer": str(folder / TOKENIZER)})
    return config


def take_weights(network: nn.Module, described: ModelConfig, init: Path) -> str:
    """Fill a fresh network with the weights of another that have its names and shapes.

    Those of the running average are taken, where there is one.

    Returns:
        What was taken, in words.

    Raises:
        CheckpointError: there is no model, or it is damaged.
        ConfigError: it was trained for something else, or less than half of the network fits.
    """
    folder = find_model(init)
    _same_kind(described, read_config(folder), init)
    path = folder / (AVERAGE if (folder / AVERAGE).exists() else WEIGHTS)
    own = network.state_dict()
    fitting = _fitting(own, widened(read_tensors(path)))
    there, all_ = (sum(each.numel() for each in part.values()) for part in (fitting, own))
    if there < LEAST * all_:
        raise ConfigError(
            f"Of the network's {all_:,} weights only {there:,} are like those in {init}; leave out "
            "--network, to begin with its own, or --training.init."
        )
    network.load_state_dict(fitting, strict=False)
    anew = [name for name in own if name not in fitting]
    rest = f"; {', '.join(anew[:3])}{', …' if len(anew) > 3 else ''} begin anew" if anew else ""
    return f"begins with {there:,} of its {all_:,} weights from {init}{rest}"


def _fitting(own: Mapping[str, Tensor], given: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {
        name: value
        for name, value in given.items()
        if name in own and (own[name].shape, own[name].dtype) == (value.shape, value.dtype)
    }


def _same_kind(mine: ModelConfig, other: ModelConfig, init: Path) -> None:
    """Refuse weights that were trained to answer another question.

    Raises:
        ConfigError: with what differs.
    """
    pairs: list[tuple[str, object, object]] = [
        ("objective", mine.objective.name, other.objective.name),
        ("codec", mine.codec, other.codec),
        ("text.encoder", mine.text.encoder, other.text.encoder),
    ]
    if mine.objective.name == "diffusion":
        for name in _ALIKE:
            was, now = (getattr(each.diffusion, name) for each in (other, mine))
            pairs.append((f"diffusion.{name}", now, was))
    for name, now, was in pairs:
        if now != was:
            raise ConfigError(
                f"{init} was trained with {name} {was}, and this run has {now}; a network can't go "
                f"on from there. Give --{name.replace('_', '-')} {was}, or leave out "
                "--training.init."
            )
    for part, (called, flag) in _PARTS.items():
        own, theirs = getattr(mine, part), getattr(other, part)
        if own is not None and theirs is not None and own.digest != theirs.digest:
            raise ConfigError(
                f"{init} was trained with another {called} than this run's (SHA-256 "
                f"{theirs.digest[:10]}, not {own.digest[:10]}); a network can't go on from there. "
                f"Name that one with {flag}, or leave out --training.init."
            )
