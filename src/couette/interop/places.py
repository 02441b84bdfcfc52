"""What a name means: a folder in diffusers' layout, or a model of the hub."""

from __future__ import annotations

import os
import re
from collections.abc import Container
from pathlib import Path

from couette.errors import CheckpointError
from couette.interop.folders import CONFIG, INDEX, PARTS, is_pickled
from couette.interop.hub import fetched
from couette.storage import read_json

PREFIX = "hf:"
"""What a name of the hub may begin with, so that no folder is looked for."""

_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_RUNS = "runs"
"""Where runs lie: what is looked for there and is not there was mistyped."""
_OURS = ("config.yaml", "model.json")


def is_foreign(given: str | Path) -> bool:
    """Whether this names a model of another library: a folder with `model_index.json` or the
    `config.json` of a network, `hf:owner/name`, or `owner/name` where there is neither such a path
    nor a folder `owner` that it could be in."""
    if _is_distant(given):
        return True
    path = Path(given)
    return not is_ours(path) and (_exists(path / INDEX) or _names_class(path / CONFIG))


def _is_distant(given: str | Path) -> bool:
    """Whether it names a model of the hub."""
    text = str(given)
    if text.startswith(PREFIX):
        return bool(_NAME.fullmatch(text.removeprefix(PREFIX)))
    path = Path(text)
    if not _NAME.fullmatch(text) or path.parent.name == _RUNS:
        return False
    return not _exists(path) and not _exists(path.parent)


def located(given: str | Path, parts: Container[str] = PARTS) -> Path:
    """The folder of the model, fetched first where it is one of the hub.

    Args:
        given: what it is called.
        parts: of a pipeline of the hub, those that are used.

    Raises:
        CheckpointError: the hub does not have it, or can't be reached.
        ConfigError: the package that asks the hub is missing.
    """
    if not _is_distant(given):
        return Path(given)
    return fetched(str(given).removeprefix(PREFIX), parts)


def lasting(given: str | Path) -> str:
    """The name of a model that means the same from any folder."""
    if _is_distant(given):
        return PREFIX + str(given).removeprefix(PREFIX)
    return os.path.normpath(Path(given).expanduser().absolute())


def home_of(given: str | Path) -> Path:
    """Where what is drawn of it goes unless told otherwise: `owner--name` for one of the hub, else
    its own folder."""
    if not _is_distant(given):
        return Path(given)
    return Path(str(given).removeprefix(PREFIX).replace("/", "--"))


def refuse_pickles(path: Path) -> None:
    """Refuse a file of weights, or a folder with nothing but such, that may run code when read.

    Raises:
        CheckpointError: it is one; with what to do instead.
    """
    try:
        files = [path] if path.is_file() else [each for each in path.iterdir() if each.is_file()]
    except OSError:
        return
    pickled = [each for each in files if is_pickled(each.name)]
    if pickled and not is_ours(path):
        raise CheckpointError(
            f"{pickled[0]} is a pickle, which may run code when it is read, so it is not opened; "
            "convert it to safetensors in diffusers' layout on a machine that you can spare "
            "(from_single_file, then save_pretrained), and give that folder."
        )


def is_ours(path: Path) -> bool:
    """Whether it is the folder of a run, or of a model of Couette's."""
    return any(_exists(path / name) for name in _OURS)


def _names_class(path: Path) -> bool:
    """Whether a config says which of diffusers' classes it is of."""
    try:
        fields = read_json(path)
    except (CheckpointError, ValueError):  # a null in its name is a ValueError
        return False
    return isinstance(fields, dict) and "_class_name" in fields


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except (OSError, ValueError):  # a name too long, or with a null in it
        return False
