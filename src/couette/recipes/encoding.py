"""How a run on latents gets its autoencoder."""

from __future__ import annotations

import hashlib
from pathlib import Path

import torch

from couette.codecs import measure_latents, some_of
from couette.config import AutoencoderConfig, ModelConfig, RunConfig
from couette.data import Dataset
from couette.errors import ConfigError
from couette.model import load_autoencoder, load_parts, read_config
from couette.networks.vae import VAE
from couette.registry import CODECS, NETWORKS
from couette.runs import find_model, needed_run
from couette.runtime import Runtime
from couette.storage import tensor_bytes


def encoding(
    config: RunConfig, data: Dataset, own: Path, checkpoint: Path | None = None
) -> tuple[AutoencoderConfig | None, VAE | None]:
    """The autoencoder of a run on latents, and what it is as data; nothing for a run on pixels.

    Args:
        config: names the autoencoder's run.
        data: the pictures to train on, whose latents are measured.
        own: where the autoencoder's run lies, unless another is named.
        checkpoint: of the run that goes on, which holds its autoencoder.

    Raises:
        ConfigError: no autoencoder is named.
        CheckpointError: what is named is none.
        ShapeError: it takes other pictures.
    """
    if not CODECS.trait(config.codec.name, "latents"):
        return None, None
    runtime = Runtime(threads=torch.get_num_threads())
    if checkpoint is not None:
        kept = read_config(checkpoint)
        return kept.autoencoder, load_parts(checkpoint, kept, runtime).autoencoder
    held, network = open_for(config, data, own)
    mean, scale = measure_latents(network, some_of(data), runtime)
    digest = hashlib.sha256(tensor_bytes(network.state_dict())).hexdigest()
    described = AutoencoderConfig(
        network=NETWORKS.explicit(held.network),
        mean=tuple(mean.tolist()),
        scale=tuple(scale.tolist()),
        digest=digest,
    )
    return described, network


def open_for(config: RunConfig, data: Dataset, own: Path) -> tuple[ModelConfig, VAE]:
    """The autoencoder that a run on latents names, for these data. Arguments and errors as of
    `encoding`."""
    run = needed_run(CODECS.check(config.codec)["run"], own)
    if run is None:
        raise ConfigError(
            "The codec 'latent' needs an autoencoder; train one with --recipe autoencoder and name "
            "its run: --codec latent:run=RUN."
        )
    runtime = Runtime(threads=torch.get_num_threads())
    held, network = load_autoencoder(find_model(run), runtime=runtime)
    if held.channels != data.channels:
        raise ConfigError(
            f"The autoencoder in {run} takes pictures of {held.channels} channels, and "
            f"'{data.name}' has {data.channels}; set --data.color, or train another one."
        )
    return held, network
