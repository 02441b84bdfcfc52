"""Text to picture from nothing."""

from __future__ import annotations

from couette.config import DataConfig, RunConfig, TextConfig, spec
from couette.recipes.default import default
from couette.registry import RECIPES

STARTER = 14_000
"""Steps of the recipe starter: five minutes at an H200's 12,500 pictures a second."""


@RECIPES.register("text-to-image")
def text_to_image() -> RunConfig:
    """Pictures for words, all from captioned pictures: an encoder, an autoencoder, then the model.

    Each is a stage with a share of the minutes and a folder in the run's own; the model works on
    the autoencoder's latents and is told the encoder's states. Latent diffusion (Rombach et al.
    2022). A stage whose run is named, by --text.run or --codec latent:run=RUN, is left out.
    """
    return text_to_pixels().model_copy(
        update={
            "recipe": "text-to-image",
            "text": TextConfig(encoder="clip"),
            "codec": spec("latent"),
        }
    )


@RECIPES.register("text-to-pixels")
def text_to_pixels() -> RunConfig:
    """Pictures for words in one stage, for small pictures: on pixels, and learning to read as well.

    The default recipe, and attention to the words. Words are what a picture is known by where
    noise hides it, so that more of the levels are noisy ones.
    """
    base = default()
    return base.model_copy(
        update={
            "recipe": "text-to-pixels",
            "text": TextConfig(encoder="learned"),
            "diffusion": base.diffusion.model_copy(
                update={"times": spec("log-normal", mean=-0.2, std=1.3)}
            ),
            "training": base.training.model_copy(update={"minutes": 20.0}),
            "sampling": base.sampling.model_copy(update={"guidance": 3.0}),
        }
    )


@RECIPES.register("starter")
def starter() -> RunConfig:
    """Prompts about `shapes`, 32×32: text-to-pixels with a larger network, for a GPU to train.

    The model `starter` that comes with Couette is a run of it.
    """
    base = text_to_pixels()
    return base.model_copy(
        update={
            "recipe": "starter",
            "data": DataConfig(source="shapes", limit=100_000),
            "network": spec("unet", attention=16, width=80, multiples=(1, 2), reading=4),
            "training": base.training.model_copy(
                update={"minutes": None, "steps": STARTER, "batch": 256}
            ),
            "sampling": base.sampling.model_copy(update={"guidance": 1.5}),
        }
    )
