"""What a person watching a run sees; or, as JSON lines, what a program reads."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TaskID, TextColumn

from couette.recipes import Began, Drawn, Event, Note, Saved
from couette.training import Progress as Trained

_QUIET = 5.0
"""Seconds between lines where there is no terminal to redraw."""

_GLANCE = 0.1
"""Seconds between looks at the losses."""


class Display:
    """Shows the events of a run.

    Args:
        as_json: one JSON object a line on stdout, and nothing else.
    """

    def __init__(self, as_json: bool) -> None:
        self.as_json = as_json
        self.console = Console(highlight=False, soft_wrap=True)
        self.bar = Progress(
            BarColumn(bar_width=24),
            TextColumn("{task.description}"),
            console=self.console,
            transient=True,
            disable=as_json or not self.console.is_terminal,
        )
        self._task: TaskID | None = None
        self._unread: list[Trained] = []
        self._looked = 0.0
        self._smooth: float | None = None
        self._seen = 0
        self._speed = _Speed()
        self._said = 0.0

    def __enter__(self) -> Display:
        self.bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        fault: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.bar.stop()

    def notes(self, lines: Sequence[str], path: Path) -> None:
        """What was found and decided, before the first step."""
        if self.as_json:
            self._emit(event="begin", path=str(path), notes=list(lines))
            return
        for line in lines:
            self.console.print(escape(line))
        self.console.print(f"run {escape(str(path))}")

    def show(self, event: Event | Began) -> None:
        match event:
            case Began():
                self._began(event)
            case Trained():
                self._trained(event)
            case Drawn(path, step):
                self._say(f"step {step:,}: pictures in {path}", event="drawn", path=path, step=step)
            case Saved(path, step):
                if self.as_json:
                    self._emit(event="saved", path=str(path), step=step)
            case Note(text):
                self._say(text, event="note", note=text)

    def _began(self, stage: Began) -> None:
        """A new stage: its notes, and a bar and a mean of its own."""
        self._smooth, self._seen, self._speed = None, 0, _Speed()
        if self._task is not None:
            self.bar.remove_task(self._task)
            self._task = None
        if self.as_json:
            notes = list(stage.notes)
            self._emit(
                event="stage", name=stage.name, number=stage.number, of=stage.of, notes=notes
            )
            return
        self.console.print()
        for line in stage.notes:
            self.console.print(escape(line))

    def _read(self) -> None:
        """Look at the losses since the last look, all at once: a look waits for the device."""
        for event in self._unread:
            if bool(event.applied):
                # A plain mean at first, so that the first losses, the largest, are not remembered.
                self._seen += 1
                last = self._smooth or 0.0
                self._smooth = last + max(0.05, 1 / self._seen) * (float(event.loss) - last)
        self._unread.clear()

    def _trained(self, event: Trained) -> None:
        pictures = len(event.logs["error"]) if "error" in event.logs else 0
        speed = self._speed.take(event.step * pictures)
        self._unread.append(event)
        if time.monotonic() - self._looked < _GLANCE and event.step != event.total:
            return
        self._looked = time.monotonic()
        self._read()
        if self.as_json:
            if time.monotonic() - self._said >= 1 or event.step == event.total:
                self._said = time.monotonic()
                self._emit(
                    event="step",
                    step=event.step,
                    total=event.total,
                    epoch=round(event.epoch, 4),
                    loss=float(event.loss) if bool(event.applied) else None,
                    lr=event.lr,
                    seconds=round(event.seconds, 2),
                    pictures_per_second=round(speed, 1),
                )
            return
        text = self._line(event, speed)
        if self.bar.disable:
            if time.monotonic() - self._said >= _QUIET or event.step == event.total:
                self._said = time.monotonic()
                self.console.print(text)
            return
        if self._task is None:
            self._task = self.bar.add_task(text, total=event.total)
        self.bar.update(self._task, completed=event.step, total=event.total, description=text)

    def _line(self, event: Trained, speed: float) -> str:
        total = f"/{event.total:,}" if event.total else ""
        left = ""
        if event.total and event.step:
            seconds = (event.total - event.step) * event.seconds / event.step
            left = f"  {_clock(seconds)} left"
        loss = "not finite" if self._smooth is None else f"{self._smooth:.4f}"
        rate = f"  {speed:,.0f} pictures/s" if speed else ""
        return f"step {event.step:,}{total}  loss {loss}{rate}{left}"

    def _say(self, text: str, **fields: Any) -> None:
        if self.as_json:
            self._emit(**{name: str(v) if isinstance(v, Path) else v for name, v in fields.items()})
        else:
            self.console.print(escape(text))

    def _emit(self, **fields: Any) -> None:
        print(json.dumps(fields, ensure_ascii=False), flush=True)


class Ticker:
    """What is being done, on stderr: redrawn on a terminal, else a line every `_QUIET` seconds.

    Args:
        first: what is done first.
    """

    def __init__(self, first: str) -> None:
        self.console = Console(stderr=True, highlight=False, soft_wrap=True)
        self.status = self.console.status(escape(first)) if self.console.is_terminal else None
        self._said = time.monotonic()

    def __enter__(self) -> Ticker:
        if self.status is not None:
            self.status.start()
        return self

    def __exit__(self, *fault: object) -> None:
        if self.status is not None:
            self.status.stop()

    def __call__(self, what: str, done: int, of: int) -> None:
        text = escape(f"{what}: {done:,} of {of:,}" if of else what)
        if self.status is not None:
            self.status.update(text)
        elif time.monotonic() - self._said >= _QUIET:
            self._said = time.monotonic()
            self.console.print(text)


class _Speed:
    """Pictures per second over the last few seconds."""

    def __init__(self) -> None:
        self._marks: list[tuple[float, int]] = []

    def take(self, pictures: int) -> float:
        now = time.monotonic()
        self._marks = [(t, n) for t, n in self._marks if now - t < 10] + [(now, pictures)]
        (first, before), (last, after) = self._marks[0], self._marks[-1]
        return (after - before) / (last - first) if last > first else 0.0


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(max(0, seconds)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
