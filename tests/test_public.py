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


def test_a_picture_for_words_needs_neither_a_compiler_nor_a_plotter() -> None:
    """Each takes longer to import than a picture takes to draw."""
    code = """
import sys
from couette import api
from couette.render import grid
drawn = api.sample("starter", prompt="a red circle", count=1, steps=2)
grid(drawn, labels=["a red circle"])
print([name for name in ("torch._dynamo", "matplotlib", "sklearn") if name in sys.modules])
"""
    assert in_a_new_process(code).split() == ["[]"]


@pytest.mark.parametrize("network", ["unet", "unet:positions=learned", "dit", "tokens", "points"])
def test_networks_without_memory_need_no_compiler(network: str) -> None:
    code = f"""
import sys, torch
from couette.config import DiffusionConfig, spec
from couette.contracts import Sizes, TextSizes
from couette.model.describing import Unfilled, build_sized
network = {network!r}
text = TextSizes(8, 100) if network.startswith(("unet", "dit")) else None
channels, side = (2, 1) if network == "points" else (3, 16)
name, _, positions = network.partition(":positions=")
part = spec(name, positions=positions) if positions else spec(name)
with torch.device("meta"), Unfilled():
    build_sized(part, Sizes(channels, side, side, 10, None, text), DiffusionConfig())
print("torch._dynamo" in sys.modules)
"""
    assert in_a_new_process(code).split() == ["False"]
