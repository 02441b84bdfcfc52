"""Text to picture from nothing."""

from __future__ import annotations

from couette.config import RunConfig, TextConfig, spec
from couette.recipes.default import default
from couette.registry import RECIPES


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

    The default recipe, and attention to the words.
    """
    base = default()
    return base.model_copy(
        update={
            "recipe": "text-to-pixels",
            "text": TextConfig(encoder="learned"),
            "training": base.training.model_copy(update={"minutes": 20.0}),
            "sampling": base.sampling.model_copy(update={"guidance": 3.0}),
        }
    )
