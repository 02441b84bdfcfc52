"""From a setting to data: a registered name, a folder, or hf:owner/name of the Hugging Face hub."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from couette.config import DataConfig
from couette.data.captions import captioned
from couette.data.cifar import find_cifar, open_cifar
from couette.data.dataset import Progress, Splits, shown
from couette.data.decode import color
from couette.data.folder import open_folder
from couette.data.hub import (
    PREFIX,
    is_hub_name,
    is_saved,
    open_hub,
    open_saved,
    reads_as_hub_name,
)
from couette.data.idx import KINDS, find_idx, open_idx
from couette.errors import DataError, UnknownName, nearest
from couette.registry import DATASETS


def open_data(
    config: DataConfig, progress: Progress | None = None, *, others: bool = False
) -> Splits:
    """Open the data that `config.source` names, at the size and colour asked for.

    A registered name comes first, then `hf:owner/name` of the Hugging Face hub, then a folder.
    `limit` keeps a fixed random part of each split; where the source has no test split, `holdout`
    of the pictures is kept for evaluation. Neither choice depends on the run's seed.

    Args:
        config: the source and what is made of it.
        progress: called now and then with (what is being done, how much is done, of how much).
        others: these are other data than those that `config.captions` were written for; where they
            have captions of their own, or no classes, none are made.

    Raises:
        UnknownName: neither a name nor a folder; the nearest name is given.
        DataError: data that can't be read, or too few of them.
        ConfigError: settings that make no sense for these data.
        StorageError: the disk has no room, or refuses.
    """
    color(config.background)  # refused also where no picture turns out to be transparent
    opened = _open(config, progress)
    fits = opened.train.texts is None and bool(opened.train.classes)
    if not config.captions or (others and not fits):
        return opened
    return captioned(opened, config.captions)


def _open(config: DataConfig, progress: Progress | None) -> Splits:
    """The data themselves."""
    source = config.source
    path = Path(source).expanduser()
    if source in DATASETS:
        opened: Splits = DATASETS[source](config, progress)
        return _with_note(opened, source) if path.is_dir() else opened
    if is_hub_name(source):
        return open_hub(source, config, progress)
    if path.is_dir():
        return _open_path(path, config, progress)
    if path.exists():
        raise DataError(f"'{shown(source)}' is a file; give the folder that holds the pictures.")
    if path.is_absolute() or source.startswith((".", "~")) or "/" in source:
        raise DataError(_no_folder(source, path))
    raise UnknownName("folder or data set", shown(source), DATASETS)


def located(source: str) -> str:
    """The source as it can be opened from any working directory: a folder by its whole path.

    Names of data sets and what is no folder stay as they are.
    """
    path = Path(source).expanduser()
    if source in DATASETS or is_hub_name(source) or not path.is_dir():
        return source
    return str(path.absolute())


def is_gone(source: str) -> bool:
    """Whether `source` is a path where nothing is."""
    named = source in DATASETS or is_hub_name(source)
    return not named and not Path(source).expanduser().exists()


def _no_folder(source: str, path: Path) -> str:
    """What to say of a path that is not there: the nearest one, and how the hub is asked."""
    plain = not path.is_absolute() and not source.startswith((".", "~"))
    lost = path
    while not lost.parent.exists():
        lost = lost.parent
    try:
        beside = [
            each.name
            for each in lost.parent.iterdir()
            if not each.name.startswith(".") and each.is_dir()
        ]
    except OSError:
        beside = []
    near = nearest(lost.name, [*beside, *(DATASETS if plain and lost.parent == Path() else ())])
    hint = "check the path" if near is None else f"did you mean '{lost.parent / near}'?"
    said = f"There is no folder '{shown(source)}'; {hint}"
    if plain and reads_as_hub_name(source):
        said += f"{' A' if near else '. A'} data set of the Hugging Face hub is {PREFIX}{source}."
        return said
    return said if near else f"{said}."


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
