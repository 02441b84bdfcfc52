"""What a run's open settings become once the data are known."""

from __future__ import annotations

from couette.config import ModelConfig, RunConfig, Spec, spec
from couette.data import Dataset
from couette.errors import ConfigError, ShapeError
from couette.model import without_memory
from couette.registry import CHAINS, CODECS, NETWORKS, PARTS
from couette.runtime import device_of

AUTO = "auto"


def fit(config: RunConfig, data: Dataset) -> RunConfig:
    """Size an `auto` network and a batch of 0 from the data, and write out every part's settings.

    What was asked for stands. A fitted config is left as it is.

    Raises:
        ShapeError: a network of pictures for points.
        UnknownName, ConfigError: a part or a setting that does not exist, or settings given to
            the network `auto`, which has none.
    """
    if config.network.name == AUTO:
        if config.network.settings:
            given = ", ".join(config.network.settings)
            raise ConfigError(
                "The network 'auto' is sized from the data and takes no settings; name a network "
                f"to set {given}, for instance --network unet."
            )
        latent = bool(CODECS.trait(config.codec.name, "latents"))
        config = config.replace(network=network_for(data, latent=latent))
    elif data.points and not NETWORKS.trait(config.network.name, "points"):
        raise ShapeError(
            f"The network '{config.network.name}' is for pictures, and '{data.name}' holds points "
            "in the plane; leave out --network."
        )
    if not config.training.batch:
        minutes, card = config.training.minutes, device_of(config.runtime.device) != "cpu"
        config = config.replace(training={"batch": batch_for(data, None if card else minutes)})
    for path, registry in PARTS.items():
        group, _, name = path.rpartition(".")
        explicit = registry.explicit(getattr(getattr(config, group) if group else config, name))
        config = config.replace(**({group: {name: explicit}} if group else {name: explicit}))
    for path, registry in CHAINS.items():
        group, _, name = path.rpartition(".")
        chain = tuple(map(registry.explicit, getattr(getattr(config, group), name)))
        config = config.replace(**{group: {name: chain}})
    return config


FEW = ((2.0, 32), (6.0, 64))
"""Minutes of a processor, and the largest batch that makes enough steps in them."""


def batch_for(data: Dataset, minutes: float | None = None) -> int:
    """The default batch for these data: few pictures are passed so often that more, smaller steps
    serve them better, and so do they where a processor has few minutes for all of them."""
    batch = 32 if len(data) < 1_000 else 64 if len(data) < 10_000 else 128
    if minutes is None:
        return batch
    return min([batch, *(most for limit, most in FEW if minutes <= limit)])


def network_for(data: Dataset, *, latent: bool = False) -> Spec:
    """The default network for these data, or for latents of them."""
    if data.points:
        return spec("points")
    side = max(data.height, data.width)
    if latent:  # a latent is a patch of pixels already
        return spec("unet", size="tiny" if side <= 64 else "small", patch=1)
    return spec("unet", size="tiny" if side <= 32 else "small" if side <= 64 else "base")


def unlabelled(config: ModelConfig) -> ModelConfig:
    """The model without its classes, if its network has no use for them; there is nothing to
    guide by then. A classifier's are what it answers."""
    if config.objective.name == "classifier":
        return config
    wants: frozenset[str] = getattr(without_memory(config), "wants", frozenset())
    if config.text.encoder != "none" and "text" not in wants:
        raise ConfigError(
            f"The network '{config.network.name}' reads no captions; leave out --text.encoder, or "
            "choose the network unet."
        )
    if "text" in wants or (config.classes and "label" in wants):
        return config if "label" in wants else config.model_copy(update={"classes": ()})
    off = {"guidance": 1.0, "guider": (spec("cfg"),)}
    sampling = config.sampling.model_copy(update=off)
    return config.model_copy(update={"classes": (), "sampling": sampling})
