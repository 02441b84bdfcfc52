"""Going on with a run: only as the run it was, and to the bit."""

from __future__ import annotations

from collections.abc import Iterable
from operator import attrgetter
from pathlib import Path

from torch import nn

from couette import storage
from couette.config import RunConfig, Spec
from couette.data import Dataset
from couette.errors import CheckpointError, ConfigError, DataError
from couette.model import WEIGHTS, load_weights, read_config
from couette.recipes.fitting import fit
from couette.recipes.journal import Journal
from couette.registry import NETWORKS
from couette.runs import STATE, RunFolder, step_of
from couette.training import Trainer

_FIXED = (
    *("objective", "network", "codec", "diffusion", "text"),
    *("training.seed", "training.batch"),
)
"""Settings that a run keeps to its end."""


def same_run(folder: RunFolder, config: RunConfig, data: Dataset, given: str) -> None:
    """Refuse to go on with other data or another model than the run was begun with.

    Args:
        folder: the run.
        config: the settings it is to go on with, fitted to the data.
        data: the training data.
        given: the data's place as it was typed.

    Raises:
        DataError, ConfigError: what differs.
    """
    if folder.facts().get("fingerprint") != data.fingerprint:
        raise DataError(
            f"The data in {given} are not those that {folder.path} was trained on; resume with the "
            "same data, or begin anew with another --out."
        )
    before = fit(folder.config(), data)
    for path in _FIXED:
        was, now = (attrgetter(path)(_unplaced(each)) for each in (before, config))
        if was != now:
            raise ConfigError(
                f"{folder.path} was begun with {path} {was}, not {now}; leave that out to go on "
                "with it, or begin anew with another --out."
            )


def _unplaced(config: RunConfig) -> RunConfig:
    """The settings without the place of another library's encoder, which is known by its weights
    wherever it lies."""
    return config.replace(text={"run": None}) if config.text.encoder == "pretrained" else config


def same_network(folder: RunFolder, config: RunConfig, checkpoint: Path) -> None:
    """Refuse a network that a hand wrote into config.yaml, before its weights are compared.

    Raises:
        ConfigError: what it is and what was trained.
    """
    now, was = config.network, NETWORKS.explicit(read_config(checkpoint).network)
    if now == was:
        return
    kept = {name: value for name, value in now.settings.items() if name in was.settings}
    other = [name for name in kept if kept[name] != was.settings[name]]
    if now.name == was.name and other:
        now, was = (
            Spec(name=each.name, **{name: each.settings[name] for name in other})
            for each in (now, was)
        )
    raise ConfigError(
        f"{folder.config_path} says network {now}, but it was trained as {was}; put that back, or "
        "begin anew with another --out."
    )


def take_up(checkpoint: Path, network: nn.Module, trainer: Trainer, journal: Journal) -> None:
    """Go on from a checkpoint, to the bit.

    Raises:
        CheckpointError: it is of another run, or damaged.
    """
    tensors = {path.stem: storage.read_tensors(path) for path in checkpoint.glob("*.safetensors")}
    averages = {name: each and each.network for name, each in trainer.averages.items()}
    for stem, module in ((Path(WEIGHTS).stem, network), *averages.items()):
        if module and stem not in tensors:
            raise CheckpointError(f"{checkpoint} holds no '{stem}'; it is of another run.")
        if module:
            load_weights(module, tensors[stem], str(checkpoint / stem))
    state = storage.read_json(checkpoint / STATE)
    try:
        trainer.load(tensors, state["trainer"])
        journal.load(state["journal"])
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"{checkpoint / STATE} is damaged ({error}).") from None


def going_on(step: int, damaged: Iterable[Path]) -> str:
    """Where a run goes on, and what is lost where newer checkpoints are damaged."""
    newer = [each for each in damaged if step_of(each) > step]
    if not newer:
        return f"going on from step {step:,}"
    names = f"{', '.join(each.name for each in newer)} {'are' if len(newer) > 1 else 'is'}"
    lost = max(map(step_of, newer)) - step
    again = "1 step is" if lost == 1 else f"{lost:,} steps are"
    return f"{names} damaged; going on from step {step:,}, {again} trained again"
