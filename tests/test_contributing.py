"""The examples of CONTRIBUTING.md work as they are written."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
BLOCKS = re.findall(r"```python\n(.*?)```", (ROOT / "CONTRIBUTING.md").read_text("utf-8"), re.S)
USES = {
    "half-way": """
import torch
from couette.contracts import Corruption
from worlds import Constant, schedule
denoise = Constant(Corruption(schedule("flow")), 0.25)
times = torch.linspace(1, 0, 6, dtype=torch.float64)
*_, last = SAMPLERS["half-way"](denoise, torch.ones(2, 1, 1, 1), times, {}, None)
assert torch.allclose(last.x, torch.full_like(last.x, 0.25))
""",
    "quadratic": """
levels = SCHEDULES["quadratic"]().level(torch.tensor([0.0, 1.0]))
assert levels.sigma[0] == 0 and 0.99 < levels.sigma[1] < 1
""",
    "linear": """
import torch
network = NETWORKS["linear"](Sizes(1, 8, 8), kernel=5)
assert network(torch.zeros(2, 1, 8, 8), torch.zeros(2), {}).shape == (2, 1, 8, 8)
""",
    "velocity": """
import torch
from couette.denoiser import v
level = Level(torch.tensor(0.6), torch.tensor(0.8))
assert torch.allclose(WEIGHTINGS["velocity"](level, v(level)), torch.tensor(1.0))
""",
    "flowing": """
from couette.config import spec
config = RECIPES["flowing"]()
assert config.recipe == "flowing" and config.diffusion.schedule == spec("flow")
""",
}
HOMES = {
    "half-way": "samplers",
    "quadratic": "schedules",
    "linear": "networks",
    "velocity": "denoiser",
    "flowing": "recipes",
}
"""The folders that CONTRIBUTING.md sends the examples to."""

HELD_TO = {
    "half-way": "samplers/test_every.py",
    "quadratic": "schedules/test_every.py",
    "linear": "networks/test_contract.py",
    "velocity": "denoiser/test_weightings.py",
    "flowing": "recipes/test_recipes.py",
}
"""The tests that run over every entry of a registry."""


def test_there_is_a_use_for_every_example() -> None:
    names = [re.search(r'register\("([^"]+)"', block) for block in BLOCKS]
    assert [name.group(1) for name in names if name] == list(USES)


@pytest.mark.parametrize("name", USES)
def test_example(name: str) -> None:
    """In a process of its own, so that no other test meets the example's parts."""
    block = next(block for block in BLOCKS if f'register("{name}"' in block)
    path = [str(ROOT / "tests"), *sys.path]
    code = f"import sys; sys.path[:] = {path!r}\n" + block + USES[name]
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False
    )
    assert result.returncode == 0, result.stderr


@pytest.mark.slow
@pytest.mark.parametrize("name", USES)
def test_an_installed_example_keeps_every_promise(name: str, tmp_path: Path) -> None:
    """In a copy of the tree, added as the page says: the tests over the registry hold it to all
    that they ask of a part, and the page of methods finds its equation and its use."""
    for folder in ("src", "tests", "scripts"):
        shutil.copytree(ROOT / folder, tmp_path / folder)
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    block = next(block for block in BLOCKS if f'register("{name}"' in block)
    home = tmp_path / "src" / "couette" / HOMES[name]
    (home / "added.py").write_text("from __future__ import annotations\n\n" + block, "utf-8")
    part = re.search(r"^(?:def|class) (\w+)", block, re.M)
    assert part is not None
    with (home / "__init__.py").open("a", encoding="utf-8") as init:
        init.write(f"\nfrom couette.{HOMES[name]}.added import {part.group(1)}\n")
        init.write(f'__all__ += ["{part.group(1)}"]\n')
    env = {**os.environ, "PYTHONPATH": str(tmp_path / "src")}
    given = ["-m", "pytest", "-q", "-m", "not slow", "-p", "no:cacheprovider", "-k", name]
    result = subprocess.run(
        [sys.executable, *given, f"tests/{HELD_TO[name]}"],
        cwd=tmp_path,
        env=env,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stdout[-3000:]
