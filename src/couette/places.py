"""Where Couette keeps what it can make again, where it looks for named data sets, and where the
model lies that comes with it.

`COUETTE_CACHE` and `COUETTE_DATA` move them.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path


def cache_dir() -> Path:
    """The folder for files that can be made again: `$COUETTE_CACHE`, else the platform's place.

    It need not exist yet.
    """
    given = os.environ.get("COUETTE_CACHE")
    return Path(given).expanduser() if given else _platform_cache() / "couette"


def data_roots() -> tuple[Path, ...]:
    """The folders searched for named data sets, in order; downloads go to the first."""
    given = os.environ.get("COUETTE_DATA")
    if given:
        return (Path(given).expanduser(),)
    return cache_dir() / "data", Path("data")


STARTER = "starter"
"""The name of the model that comes with Couette: prompts about `shapes`."""


def packaged(given: str | Path) -> Path | None:
    """The folder of the model that comes with Couette, where `given` names it; None where it does
    not, or where a folder of that name holds a run or a model of the user's own."""
    if Path(given) != Path(STARTER):
        return None
    own = [Path(given) / name for name in ("config.yaml", "model.json", "checkpoints")]
    return None if any(each.exists() for each in own) else Path(__file__).parent / STARTER


def _platform_cache() -> Path:
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches"
    variable = "LOCALAPPDATA" if sys.platform == "win32" else "XDG_CACHE_HOME"
    given = os.environ.get(variable)
    return Path(given) if given else Path.home() / ".cache"
