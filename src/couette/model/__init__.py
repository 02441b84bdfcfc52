"""A trained model as its users hold it, and how it is saved and loaded.

| file | what it holds |
|---|---|
| `describing.py` | from what a model is, as data, to its network |
| `holding.py` | `Model`: a denoiser with its codec and its conditioner |
| `loading.py` | models from disk |
"""

from couette.model.describing import (
    build_network,
    build_sized,
    outline,
    sizes_of,
    without_memory,
)
from couette.model.holding import (
    ClassifierModel,
    Model,
    Parts,
    assemble,
    codec_of,
    drawn_as,
    exact_model,
    pixel_range,
)
from couette.model.loading import (
    AUTOENCODER,
    AVERAGE,
    CONFIG,
    READER,
    SECOND,
    TOKENIZER,
    WEIGHTS,
    OpenWords,
    check_weights,
    load_autoencoder,
    load_classifier,
    load_encoder,
    load_model,
    load_parts,
    load_weights,
    read_config,
    widened,
)

__all__ = [
    "AUTOENCODER",
    "AVERAGE",
    "CONFIG",
    "READER",
    "SECOND",
    "TOKENIZER",
    "WEIGHTS",
    "ClassifierModel",
    "Model",
    "OpenWords",
    "Parts",
    "assemble",
    "build_network",
    "build_sized",
    "check_weights",
    "codec_of",
    "drawn_as",
    "exact_model",
    "load_autoencoder",
    "load_classifier",
    "load_encoder",
    "load_model",
    "load_parts",
    "load_weights",
    "outline",
    "pixel_range",
    "read_config",
    "sizes_of",
    "widened",
    "without_memory",
]
