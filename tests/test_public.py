"""What `import couette` offers, and what it costs."""

from __future__ import annotations

import inspect
import os
import subprocess
import sys

import pytest

import couette
from couette import api

NAMES = [
    "CouetteError",
    "edit",
    "evaluate",
    "exact",
    "lab",
    "load",
    "sample",
    "search",
    "steps",
    "train",
]
HEAVY = ["torch", "numpy", "PIL", "matplotlib", "sklearn", "pydantic", "tyro"]


def in_a_new_process(code: str) -> str:
    """What a fresh interpreter prints on standard output."""
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_exported_names() -> None:
    assert sorted(couette.__all__) == NAMES
    assert dir(couette) == sorted([*NAMES, "__version__"])


def test_every_exported_name_is_there_and_documented() -> None:
    for name in couette.__all__:
        assert inspect.getdoc(getattr(couette, name)), name


def test_functions_are_the_facades() -> None:
    for name in set(NAMES) - {"CouetteError", "exact"}:
        assert getattr(couette, name) is getattr(api, name)


def test_other_names_are_attribute_errors() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'trian'"):
        _ = couette.trian


def test_importing_loads_nothing_heavy() -> None:
    code = f"import sys, couette; print([m for m in {HEAVY} if m in sys.modules])"
    assert in_a_new_process(code).strip() == "[]"


@pytest.mark.parametrize("arguments", [["--help"], ["-h"], ["--version"], []])
def test_help_loads_nothing_heavy(arguments: list[str]) -> None:
    code = f"""
import sys
from couette.cli import main
try:
    main({arguments})
except SystemExit as stop:
    assert not stop.code, stop.code
print([m for m in {HEAVY} if m in sys.modules])
"""
    printed = in_a_new_process(code).splitlines()
    assert printed[0].startswith("couette 0" if "--version" in arguments else "Couette")
    assert printed[-1] == "[]"
