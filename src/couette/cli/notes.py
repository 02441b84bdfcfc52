"""What was passed over on the way: said on stderr, and kept for --json."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from couette.errors import Noted


@contextmanager
def heard() -> Iterator[list[str]]:
    """Say each `Noted` once on stderr; what was said is in the list that is given."""
    notes: list[str] = []
    with warnings.catch_warnings():
        warnings.simplefilter("always", Noted)
        others = warnings.showwarning

        def say(message: Warning | str, category: type[Warning], *rest: Any) -> None:
            if not issubclass(category, Noted):
                others(message, category, *rest)
            elif str(message) not in notes:
                notes.append(str(message))
                print(f"couette: {message}", file=sys.stderr)

        # Put back, with the filters, where `catch_warnings` ends.
        warnings.showwarning = say  # type: ignore[assignment]
        yield notes
