"""One trainer for any objective. It knows no sampler and draws no pictures."""

from couette.registry import OBJECTIVES
from couette.training import pairings
from couette.training.autoencoder import AutoencoderObjective
from couette.training.average import PowerAverage
from couette.training.classifier import NoisyClassifierObjective
from couette.training.contrastive import ContrastiveObjective
from couette.training.diffusion import DiffusionObjective
from couette.training.latent_cache import LatentCache
from couette.training.stream import Stream
from couette.training.trainer import Progress, Trainer

__all__ = [
    "OBJECTIVES",
    "AutoencoderObjective",
    "ContrastiveObjective",
    "DiffusionObjective",
    "LatentCache",
    "NoisyClassifierObjective",
    "PowerAverage",
    "Progress",
    "Stream",
    "Trainer",
    "pairings",
]
