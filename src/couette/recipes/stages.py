"""Runs that begin with other runs: what they need is trained first, in folders inside their own.

RUN/encoder and RUN/autoencoder are runs like any other: they can be looked at, measured, gone on
with, and named by other runs. RUN's own settings do not name them, so that its folder can be moved.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from couette.config import ModelConfig, RunConfig, spec
from couette.data import Splits, located, open_data
from couette.errors import Interrupted
from couette.recipes.encoding import open_for
from couette.recipes.reading import reading, refuse_idle
from couette.recipes.session import Event, Session
from couette.registry import CODECS, RECIPES
from couette.runs import AUTOENCODER, ENCODER, RunFolder, is_own
from couette.training import Trainer

SHARES = {ENCODER: 0.15, AUTOENCODER: 0.2}
"""What of the minutes each stage gets; the model has the rest."""

_FACTORS = ((32, 2), (64, 4))
"""Longest sides with the factor of an autoencoder for them; beyond, it is 8."""


@dataclass(frozen=True)
class Began:
    """A stage has begun.

    name: its folder, "" for the model itself. number, of: which of how many. notes: as those of a
    session.
    """

    name: str
    number: int
    of: int
    notes: tuple[str, ...]


def needed(config: RunConfig) -> tuple[str, ...]:
    """The stages that a run needs before it: those whose runs it does not name."""
    return tuple(name for name, run in _runs(config).items() if run is None)


def staged(config: RunConfig, out: Path) -> tuple[str, ...]:
    """The stages that a run in `out` has in its own folder, as its settings say."""
    return tuple(name for name, run in _runs(config).items() if is_own(run, out / name))


def _runs(config: RunConfig) -> dict[str, str | None]:
    """The stages that a run has, with the runs that are named for them."""
    runs = {}
    if config.text.encoder == "clip":
        runs[ENCODER] = config.text.run
    if CODECS.trait(config.codec.name, "latents"):
        runs[AUTOENCODER] = config.codec.settings.get("run")
    return runs


def sharing(stages: Sequence[str]) -> str:
    """How a run with these stages shares its length, in words."""
    shares = {name: SHARES[name] for name in stages} | {"model": model_share(stages)}
    parts = ", ".join(f"{name} {share:.0%}" for name, share in shares.items())
    return f"--minutes are shared: {parts}. --steps and --epochs are those of each stage."


def model_share(stages: Sequence[str]) -> float:
    """What of the minutes the model itself gets after these stages."""
    return 1 - sum(SHARES[name] for name in stages)


class Staged:
    """A run and the runs it needs, one after another; used as a `Session` is.

    Args:
        config: of the run itself. Stages have its data, runtime and seed, and shares of its
            minutes; where it has steps or epochs, as many.
        out: the run's folder.
        resume: go on where it was: with the first stage that is not at its end.
        tell: called with what takes long before a stage is begun.

    Raises:
        CouetteError: whatever can't be as asked; nothing has been written then.
    """

    def __init__(
        self,
        config: RunConfig,
        out: Path,
        *,
        resume: bool = False,
        tell: Callable[[str], None] = lambda text: None,
    ) -> None:
        self.folder = RunFolder(out)
        if not resume:
            self.folder.must_be_new()
            refuse_idle(config)
        self._stages = staged(config, out) if resume else needed(config)
        self._tell = tell
        self._data: Splits = open_data(
            config.data.model_copy(update={"source": located(config.data.source)})
        )
        if not resume:
            self._refuse_unreadable(config)
        if config.text.encoder == "pretrained":
            found = reading(config.text, self._data.train, self.folder.encoder).pretrained
            assert found is not None
            config = config.replace(text={"run": found.source})
        self._whole = config
        self._at = 0
        self.session = self._next()

    @property
    def config(self) -> RunConfig:
        return self.session.config

    @property
    def model_config(self) -> ModelConfig:
        return self.session.model_config

    @property
    def trainer(self) -> Trainer:
        return self.session.trainer

    def notes(self) -> list[str]:
        """What was found and decided of the first stage."""
        return [self._heading(), *self.session.notes()]

    def run(self) -> Iterator[Event | Began]:
        """Train each stage to its end, then the run itself. Errors as of `Session.run`.

        Raises:
            Interrupted: a signal came; the state was saved first.
        """
        if not self.folder.exists():
            self.folder.plan(self._whole)
        while True:
            try:
                yield from self.session.run()
            except Interrupted as stop:
                stage = f"the {self._name}" if self._name else "the model"
                raise Interrupted(
                    stop.exit_code - 128,
                    f"Stopped and saved {stage} at step {self.session.trainer.step:,}. Go on with: "
                    f"couette train --out {self.folder.path} --resume",
                ) from None
            if not self._name:
                return
            self._at += 1
            self.session = self._next()
            notes = (self._heading(), *self.session.notes())
            yield Began(self._name, self._at + 1, len(self._stages) + 1, notes)

    @property
    def _name(self) -> str:
        return self._stages[self._at] if self._at < len(self._stages) else ""

    def _heading(self) -> str:
        what = f"the {self._name}" if self._name else "the model"
        return f"Stage {self._at + 1} of {len(self._stages) + 1}: {what}."

    def _refuse_unreadable(self, config: RunConfig) -> None:
        """Refuse runs that are named and don't fit before stages are trained, not after.

        Raises:
            CheckpointError, ConfigError: they are not what they are named for.
            DataError: there are no captions to read.
        """
        data = self._data.train
        if AUTOENCODER in _runs(config) and AUTOENCODER not in self._stages:
            open_for(config, data, self.folder.autoencoder)
        if config.text.encoder == "clip" and ENCODER not in self._stages:
            reading(config.text, data, self.folder.encoder)

    def _next(self) -> Session:
        """The session of the first stage from here on that is not at its end."""
        while self._name:
            path = self.folder.path / self._name
            config = stage_config(self._name, self._whole, self._data)
            goes_on = RunFolder(path).exists()
            session = self._session(config, path, goes_on)
            if not session.trainer.plan.done(session.trainer.step):
                return session
            self._at += 1
        config = _shortened(self._whole, self._stages)
        return self._session(config, self.folder.path, self.folder.exists())

    def _session(self, config: RunConfig, path: Path, resume: bool) -> Session:
        return Session(config, path, resume=resume, tell=self._tell, data=self._data)


def stage_config(name: str, config: RunConfig, data: Splits) -> RunConfig:
    """The settings of a stage of a run."""
    recipe = {ENCODER: "clip", AUTOENCODER: "autoencoder"}[name]
    base: RunConfig = RECIPES[recipe]()
    training: dict[str, Any] = {"seed": config.training.seed}
    length = {key: getattr(config.training, key) for key in ("steps", "epochs", "minutes")}
    if length["minutes"] is not None:
        length["minutes"] = length["minutes"] * SHARES[name]
    training |= length
    if config.training.batch:
        training["batch"] = config.training.batch
    base = base.replace(
        data=config.data.model_dump(), runtime=config.runtime.model_dump(), training=training
    )
    if name == AUTOENCODER:
        side = max(data.train.height, data.train.width)
        factor = next((f for longest, f in _FACTORS if side <= longest), 8)
        return base.replace(network=spec("vae", factor=factor))
    return base.replace(text={**config.text.model_dump(), "encoder": "learned", "run": None})


def _shortened(config: RunConfig, stages: tuple[str, ...]) -> RunConfig:
    """The settings of the run itself: its own share of the minutes."""
    minutes = config.training.minutes
    if minutes is None:
        return config
    return config.replace(training={"minutes": minutes * model_share(stages)})
