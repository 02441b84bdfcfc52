"""Where Couette keeps what it can make again, and where it looks for named data sets.

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


def _platform_cache() -> Path:
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches"
    variable = "LOCALAPPDATA" if sys.platform == "win32" else "XDG_CACHE_HOME"
    given = os.environ.get(variable)
    return Path(given) if given else Path.home() / ".cache"
