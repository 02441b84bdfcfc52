"""Between pictures in [-1, 1] and what the denoiser works on. Differentiable both ways.

| file | what it holds |
|---|---|
| `pixels.py` | pictures as they are, in another range, or as states |
| `latents.py` | the latents of an autoencoder |
"""

from couette.codecs.latents import Latents, latent, measure_latents, some_of
from couette.codecs.pixels import Levels, Symmetric, Unit

__all__ = ["Latents", "Levels", "Symmetric", "Unit", "latent", "measure_latents", "some_of"]
