"""Small runs that exercise everything a resumed run must take up again."""

from __future__ import annotations

import hashlib
import os
import signal
from pathlib import Path
from typing import Any

from couette import api
from couette.recipes import Event
from couette.recipes.session import Session
from couette.runs import RunFolder
from couette.training import Progress

Settings = dict[str, Any]

FAST: Settings = {"runtime": {"dtype": "float32", "threads": 1}}
POINTS: Settings = {
    **FAST,
    "data": {"source": "moons", "limit": 64},
    "network": "points:hidden=8,depth=1",
    "training": {"batch": 16, "save_every": 3},
}


def session(out: Path, settings: Settings, *, resume: bool = False, **more: Any) -> Session:
    """A run, prepared; `more` goes to `api.begin`."""
    settings = {} if resume and not settings else {**FAST, **settings}
    data = settings.get("data", {}).get("source")
    return api.begin(data, out=out, settings=settings, resume=resume, **more)


def losses(run: Session, stop_after: int | None = None) -> dict[int, str]:
    """Pull a run's events, to the end or until a step; each step's loss to the bit."""
    found = {}
    events = run.run()
    for event in events:
        if isinstance(event, Progress):
            found[event.step] = float(event.loss).hex()
            if event.step == stop_after:
                break
    events.close()
    return found


def digests(out: Path) -> dict[str, str]:
    """SHA-256 of every tensor file of the newest checkpoint."""
    folder = RunFolder(out).newest()
    assert folder is not None
    files = sorted(folder.glob("*.safetensors"))
    assert files
    return {each.name: hashlib.sha256(each.read_bytes()).hexdigest() for each in files}


def watched(
    out: Path, log: Path, settings: Settings, kill_after: int | None, resume: bool, more: Settings
) -> None:
    """Train in this process, each step's loss to a file at once; SIGKILL after a step."""
    handle = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def watch(event: Event) -> None:
        if isinstance(event, Progress):
            os.write(handle, f"{event.step} {float(event.loss).hex()}\n".encode())
            if event.step == kill_after:
                os.kill(os.getpid(), signal.SIGKILL)

    run = session(out, settings, resume=resume, **more)
    for event in run.run():
        watch(event)


def read_log(path: Path) -> dict[int, str]:
    """What `watched` wrote; a step that was taken twice must have had the same loss both times."""
    found: dict[int, str] = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        step, loss = line.split()
        assert found.setdefault(int(step), loss) == loss
    return found


def saved(run: Path, to: Path) -> Path:
    """The model of a run, away from it."""
    to.mkdir()
    source = sorted((run / "checkpoints").iterdir())[-1]
    for name in ("model.json", "average.safetensors", "network.safetensors"):
        (to / name).write_bytes((source / name).read_bytes())
    return to
