"""Autoencoders, for models on latents."""

from __future__ import annotations

from couette.config import RunConfig, TrainingConfig, spec
from couette.registry import RECIPES


@RECIPES.register("autoencoder")
def autoencoder() -> RunConfig:
    """An autoencoder, for models that work on latents: `--codec latent:run=RUN`; no samples."""
    return RunConfig(
        recipe="autoencoder",
        objective=spec("autoencoder"),
        network=spec("vae"),
        training=TrainingConfig(
            minutes=5, batch=0, optimizer="muon", lr=2e-3, warmup=50, decay="linear", average=0.05
        ),
    )
