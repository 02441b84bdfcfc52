"""What a run's open settings become once the data are known."""

from __future__ import annotations

from couette.config import RunConfig, Spec, spec
from couette.data import Dataset
from couette.errors import ConfigError


def fit(config: RunConfig, data: Dataset) -> RunConfig:
    """Resolve `auto` parts from the data; what was asked for stands.

    Raises:
        ConfigError: settings given to the network `auto`, which has none.
    """
    if config.network.name != "auto":
        return config
    if config.network.settings:
        given = ", ".join(config.network.settings)
        raise ConfigError(
            f"The network 'auto' is sized from the data and takes no settings; name a network to "
            f"set {given}, for instance --network unet."
        )
    return config.replace(network=network_for(data))


def network_for(data: Dataset) -> Spec:
    """The default network for these data."""
    if data.points:
        return spec("points")
    side = max(data.height, data.width)
    return spec("unet", size="tiny" if side <= 32 else "small" if side <= 64 else "base")
