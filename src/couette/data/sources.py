"""From a setting to data: a registered name, a folder, or a name of the Hugging Face hub."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from couette.config import DataConfig
from couette.data.cifar import find_cifar, open_cifar
from couette.data.dataset import Progress, Splits, shown
from couette.data.folder import open_folder
from couette.data.hub import is_hub_name, is_saved, open_hub, open_saved
from couette.data.idx import KINDS, find_idx, open_idx
from couette.errors import DataError, UnknownName
from couette.registry import DATASETS


def open_data(config: DataConfig, progress: Progress | None = None) -> Splits:
    """Open the data that `config.source` names, at the size and colour asked for.

    A registered name comes first, then a folder, then user/dataset of the Hugging Face hub.
    `limit` keeps a fixed random part of each split; where the source has no test split, `holdout`
    of the pictures is kept for evaluation. Neither choice depends on the run's seed.

    Args:
        config: the source and what is made of it.
        progress: called now and then with (what is being done, how much is done, of how much).

    Raises:
        UnknownName: neither a name nor a folder; the nearest name is given.
        DataError: data that can't be read, or too few of them.
        ConfigError: settings that make no sense for these data.
        StorageError: the disk has no room, or refuses.
    """
    source = config.source
    path = Path(source).expanduser()
    if source in DATASETS:
        opened: Splits = DATASETS[source](config, progress)
        return _with_note(opened, source) if path.is_dir() else opened
    if path.is_dir():
        return _open_path(path, config, progress)
    if path.exists():
        raise DataError(f"'{shown(source)}' is a file; give the folder that holds the pictures.")
    if path.is_absolute() or source.startswith((".", "~")) or source.count("/") > 1:
        raise DataError(f"There is no folder '{shown(source)}'; check the path.")
    if is_hub_name(source):
        return open_hub(source, config, progress)
    raise UnknownName("folder or data set", shown(source), DATASETS)


def _open_path(path: Path, config: DataConfig, progress: Progress | None) -> Splits:
    """Open a folder as what it holds."""
    if is_saved(path):
        return open_saved(path, config, progress)
    if (found := find_idx(path)) is not None:
        return open_idx(_set_name(path, found), found, config)
    if (found := find_cifar(path)) is not None:
        return open_cifar(_set_name(path, found), found, config)
    return open_folder(path, config, progress)


def _set_name(path: Path, found: Path) -> str:
    """What the data found below a folder are called: torchvision's folder says which set it is."""
    if found.name == "raw" and found.parent.name in {kind.folder for kind in KINDS.values()}:
        return found.parent.name
    return shown(path.resolve().name)


def _with_note(opened: Splits, name: str) -> Splits:
    note = f"There is also a folder '{name}' here; write ./{name} to use it."
    train = opened.train
    return opened._replace(train=replace(train, notes=(*train.notes, note)))
