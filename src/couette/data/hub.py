"""Hugging Face `datasets`: `hf:owner/name`, or a folder that `save_to_disk` wrote.

The library only finds and lists the pictures; their bytes go through our own decoder.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from couette.config import DataConfig
from couette.data.dataset import Progress, Splits
from couette.data.decode import BadPicture
from couette.data.layout import TEST, TRAIN, VALIDATION, Entry, Layout
from couette.data.pictures import load_pictures
from couette.errors import ConfigError, DataError

PREFIX = "hf:"
"""What a name of the hub begins with here, so that no mistyped folder is looked for there."""

_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_SECONDS = 10.0
"""How long the hub is waited for."""
_CAPTIONS = ("text", "caption", "captions", "prompt")


def is_hub_name(source: str) -> bool:
    """Whether `source` asks for a data set of the Hugging Face hub: `hf:owner/name`."""
    return source.startswith(PREFIX)


def reads_as_hub_name(source: str) -> bool:
    """Whether `source` is what `hf:` could stand before: owner/name."""
    return bool(_NAME.fullmatch(source))


def is_saved(folder: Path) -> bool:
    """Whether `save_to_disk` of Hugging Face datasets wrote this folder."""
    single = (folder / "state.json").is_file() and (folder / "dataset_info.json").is_file()
    return single or (folder / "dataset_dict.json").is_file()


def open_hub(source: str, config: DataConfig, progress: Progress | None = None) -> Splits:
    """Fetch a data set of the Hugging Face hub (or take it from that library's own cache).

    Args:
        source: `hf:owner/name`.
        config: what is made of it.
        progress: told how far the reading is.

    Raises:
        ConfigError: the package `datasets` is missing.
        DataError: it can't be fetched, or has no pictures.
    """
    name = source.removeprefix(PREFIX)
    if not reads_as_hub_name(name):
        raise DataError(f"'{source}' names no data set of the hub; write hf:owner/name.")
    datasets = _library(source)
    try:
        with _quiet(), _without_waiting(datasets, name):
            found = datasets.load_dataset(name)
    except Exception as error:  # the library raises many kinds, its network layer more
        reason = str(error).strip().partition("\n")[0].rstrip(".") or type(error).__name__
        raise DataError(
            f"'{source}' could not be had from the Hugging Face hub ({reason}); check the name and "
            "the network, or give a folder."
        ) from error
    return open_tables(name, found, config, progress)


@contextmanager
def _quiet() -> Iterator[None]:
    """The libraries' own messages silenced: what matters of them is in our errors."""
    loggers = [logging.getLogger(name) for name in ("datasets", "huggingface_hub")]
    before = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        for logger, level in zip(loggers, before, strict=True):
            logger.setLevel(level)


@contextmanager
def _without_waiting(datasets: Any, name: str) -> Iterator[None]:
    """Ask the hub once; where it does not answer, only that library's cache is looked at, instead
    of trying again for half a minute.

    Raises:
        DataError: the hub answers that it has no such data set.
    """
    import huggingface_hub

    constants: tuple[Any, ...] = (datasets.config, huggingface_hub.constants)
    before = [each.HF_HUB_OFFLINE for each in constants]
    try:
        if not any(before):
            huggingface_hub.HfApi().dataset_info(name, timeout=_SECONDS)
    except huggingface_hub.errors.RepositoryNotFoundError:
        raise DataError("it has no such data set, or none that is open to you") from None
    except Exception:  # of whatever library it rests on: no network, or an answer for it to judge
        for each in constants:
            each.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        for each, value in zip(constants, before, strict=True):
            each.HF_HUB_OFFLINE = value


def open_saved(folder: Path, config: DataConfig, progress: Progress | None = None) -> Splits:
    """Open a folder that `save_to_disk` wrote.

    Raises:
        ConfigError: the package `datasets` is missing.
        DataError: it is damaged, or has no pictures.
    """
    datasets = _library(str(folder))
    try:
        found = datasets.load_from_disk(str(folder))
    except Exception as error:  # the library raises many kinds on damaged files
        raise DataError(f"'{folder}' can't be read as a saved data set: {error}") from error
    return open_tables(folder.resolve().name, found, config, progress)


def open_tables(
    name: str, found: Any, config: DataConfig, progress: Progress | None = None
) -> Splits:
    """Open a `datasets.Dataset` or `DatasetDict`: the first column of pictures, a label, a caption.

    Raises:
        DataError: no pictures, or fewer than two that can be used.
    """
    tables: dict[str, Any] = dict(found) if isinstance(found, dict) else {"train": found}
    train = _first(tables, TRAIN) or next(iter(tables))
    test = _first(tables, TEST) or _first(tables, VALIDATION)
    unused = [split for split in tables if split not in (train, test)]
    layout = Layout(train=_entries(name, train, tables[train]))
    layout.notes.append(f"The pictures to train on are the split '{train}'.")
    if test and test != train:
        layout.test = _entries(name, test, tables[test])
    if unused:
        layout.notes.append(f"Splits that were not used: {', '.join(unused)}.")
    identity = " ".join(str(getattr(table, "_fingerprint", "")) for table in tables.values())
    return load_pictures(name, layout, config, progress, identity)


def _library(wanted: str) -> Any:
    try:
        import datasets
    except ImportError:
        raise ConfigError(
            f"'{wanted}' needs the package datasets: pip install couette[data]"
        ) from None
    return datasets


def _first(tables: dict[str, Any], names: frozenset[str]) -> str | None:
    return next((split for split in tables if split.lower() in names), None)


def _entries(name: str, split: str, table: Any) -> list[Entry]:
    import datasets

    features = table.features
    pictures = [c for c, kind in features.items() if isinstance(kind, datasets.Image)]
    if not pictures:
        raise DataError(
            f"'{name}' has no column of pictures in its split '{split}', "
            f"only {', '.join(features)}; give a data set of pictures."
        )
    raw = table.cast_column(pictures[0], datasets.Image(decode=False))
    labels = _labels(table, datasets.ClassLabel)
    texts = _texts(table)
    return [
        Entry(f"{split}[{row}]", _reader(raw, pictures[0], row), label, text)
        for row, (label, text) in enumerate(zip(labels, texts, strict=True))
    ]


def _reader(table: Any, column: str, row: int) -> Callable[[], bytes]:
    """What gives the bytes of one picture. Paths that a table names are not followed."""

    def read() -> bytes:
        content = (table[row][column] or {}).get("bytes")
        if not isinstance(content, bytes):
            raise BadPicture("has no bytes in the table")
        return content

    return read


def _labels(table: Any, class_label: Any) -> Sequence[str | None]:
    """The names of the classes, from the first column of class labels, else one named label."""
    for column, kind in table.features.items():
        if isinstance(kind, class_label):
            names = kind.names
            known = range(len(names))
            return [names[v] if v is not None and v in known else None for v in table[column]]
    if "label" not in table.features:
        return [None] * len(table)
    return [str(v) if isinstance(v, (int, str)) else None for v in table["label"]]


def _texts(table: Any) -> Sequence[str | None]:
    for column in _CAPTIONS:
        if column in table.features:
            values = list(table[column])
            if any(isinstance(value, str) for value in values):
                return [value if isinstance(value, str) else None for value in values]
    return [None] * len(table)
