"""couette doctor: what this machine has, and what will be used."""

from __future__ import annotations

import json
import os
import platform
import shutil
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Annotated, Any

import tyro

from couette.cli.asking import parse_call

_PACKAGES = ("torch", "numpy", "pillow", "safetensors", "pydantic", "tyro", "matplotlib")
_EXTRAS = {
    "datasets": "couette[data]",
    "diffusers": "couette[diffusers]",
    "transformers": "couette[diffusers]",
}


def run(arguments: list[str]) -> int:
    return parse_call(doctor, "doctor", arguments)


def doctor(*, as_json: Annotated[bool, tyro.conf.arg(name="json")] = False) -> int:
    """Report what this machine has, and what will be used and why.

    Args:
        as_json: one JSON object on stdout.
    """
    return _print(examine(), as_json)


def examine() -> dict[str, Any]:
    """Versions, device, memory, disk, picture formats, and the choices that follow."""
    import torch
    from PIL import features

    from couette.config import RuntimeConfig
    from couette.places import cache_dir
    from couette.runtime import choose

    disk = shutil.disk_usage(Path.cwd())
    cards = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    able = [name for name, has in torch.cpu.get_capabilities().items() if has is True]
    return {
        "python": platform.python_version(),
        "packages": {name: _version(name) for name in _PACKAGES},
        "extras": {name: _version(name) or f"absent: {how}" for name, how in _EXTRAS.items()},
        "processor": platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "bfloat16 in hardware": "avx512_bf16" in able or "amx_bf16" in able,
        "cards": cards,
        "memory GB": _memory(),
        "disk free GB": round(disk.free / 1e9, 1),
        "cache": str(cache_dir()),
        "reads": ["PNG", "JPEG", *(["WebP"] if features.check("webp") else [])],
        "will use": choose(RuntimeConfig()).describe()
        + " (training first probes what is faster for its network)",
    }


def _print(found: dict[str, Any], as_json: bool) -> int:
    if as_json:
        print(json.dumps(found, indent=2))
        return 0
    for name, value in found.items():
        if isinstance(value, dict):
            value = ", ".join(f"{key} {each}" for key, each in value.items())
        elif isinstance(value, list):
            value = ", ".join(map(str, value)) or "none"
        print(f"{name:<22}{value}")
    return 0


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _memory() -> float | None:
    """Total memory in GB, where the system tells."""
    if sys.platform == "win32":
        return None
    try:
        return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, 1)
    except (ValueError, OSError):
        return None
