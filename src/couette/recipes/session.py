"""A training run from settings to a folder: what `couette train` does, without the words.

A session is prepared whole before anything is written: data opened, network built, settings
checked. Its events are then pulled by whoever shows them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from couette import storage
from couette.config import RunConfig
from couette.contracts import Ask
from couette.data import Splits, located, open_data
from couette.data.tokenizer import Tokenizer
from couette.errors import (
    CheckpointError,
    ConfigError,
    Diverged,
    InputError,
    Interrupted,
    NotFinite,
    StorageError,
)
from couette.generate import steps
from couette.model import AUTOENCODER, CONFIG, READER, TOKENIZER, Model, Parts, assemble
from couette.recipes.beginning import begun_from, take_weights
from couette.recipes.building import build_trainer, build_trial, enough, model_config
from couette.recipes.cadence import Cadence
from couette.recipes.card import card
from couette.recipes.encoding import encoding
from couette.recipes.fitting import fit
from couette.recipes.journal import Journal
from couette.recipes.preview import preview, preview_sampling
from couette.recipes.reading import reading, refuse_idle
from couette.recipes.resuming import going_on, same_network, same_run, take_up
from couette.recipes.signals import Signals
from couette.render import save
from couette.runs import STATE, RunFolder
from couette.runtime import Runtime, choose, evaluating
from couette.training import Progress


@dataclass(frozen=True)
class Note:
    """Something to tell the user."""

    text: str


@dataclass(frozen=True)
class Drawn:
    """A grid was drawn."""

    path: Path
    step: int


@dataclass(frozen=True)
class Saved:
    """A checkpoint was written."""

    path: Path
    step: int


Event = Progress | Note | Drawn | Saved


class Session:
    """One run, prepared and ready to go on.

    Args:
        config: every setting; `auto` parts are resolved from the data.
        out: the run's folder.
        resume: go on from the newest checkpoint in `out`.
        tell: called with what takes long while the run is prepared, before it is begun.
        data: the pictures, where they are open already.

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
        data: Splits | None = None,
    ) -> None:
        self.folder = RunFolder(out)
        if not resume:
            self.folder.must_be_new()
            if data is None:  # a stage has the data of the whole, captions and all
                refuse_idle(config)
        checkpoint = self._checkpoint() if resume else None
        self._given = config.data.source
        config = config.replace(data={"source": located(self._given)})
        self.data: Splits = data or open_data(config.data)
        enough(self.data.train)
        init = config.training.init if checkpoint is None else None
        if init is not None:
            config = begun_from(config, Path(init))
        read = reading(config.text, self.data.train, self.folder.encoder, checkpoint)
        self._word_notes = read.notes
        if read.tokenizer is not None:
            config = config.replace(text={"length": read.length})
        if read.pretrained is not None:
            config = config.replace(text={"run": read.pretrained.source})
        self.config = fit(config, self.data.train)
        described, autoencoder = encoding(
            self.config, self.data.train, self.folder.autoencoder, checkpoint
        )
        self.parts = Parts(read.tokenizer, autoencoder, read.reader)
        self.model_config = model_config(self.config, self.data.train, self.parts, described, read)
        if resume and self.folder.begun():
            same_run(self.folder, self.config, self.data.train, self._given)
        if checkpoint is not None:
            same_network(self.folder, self.config, checkpoint)
        self.runtime = self._runtime(checkpoint, tell)
        self.runtime.apply()
        self._network, self.trainer = build_trainer(
            self.config, self.model_config, self.data.train, self.runtime, self.parts, tell
        )
        self._begun = None
        if init is not None:
            self._begun = take_weights(self._network, self.model_config, Path(init))
        self.models = {"weights": self._model(self._network)}
        if self.trainer.average is not None:
            self.models["average"] = self._model(self.trainer.average.network)
        self._check_sampling()
        self.journal = Journal(self.folder, self.data.train, self.config.training.batch)
        if checkpoint is not None:
            take_up(checkpoint, self._network, self.trainer, self.journal)
        self._from = checkpoint
        self._stopped: int | None = None
        self._saved = self.trainer.step
        self._log_fails = False

    def notes(self) -> list[str]:
        """What was found and decided, in a few lines."""
        parameters = sum(p.numel() for p in self._network.parameters())
        training = self.config.training
        lines = [*self.data.train.describe().splitlines(), *self._word_notes]
        lines.append(f"network {self.config.network}, {parameters:,} parameters")
        lines.append(self.runtime.describe())
        lines.append(f"seed {training.seed}, batch {training.batch}, lr {training.lr:g}")
        seen = training.batch / len(self.data.train)
        if seen > 1:
            lines.append(
                f"The batch is larger than the data: a step sees a picture {seen:.3g} times."
            )
        reads = self.config.text.encoder != "none" or self.config.objective.name != "diffusion"
        if self.data.train.texts is not None and not reads:
            lines.append("The captions are not read; --recipe text-to-image does.")
        if self._begun is not None:
            lines.append(self._begun)
        if self._from is not None:
            lines.append(going_on(self.trainer.step, self._damaged))
        return lines

    def run(self) -> Iterator[Event]:
        """Train, log, draw and save, to the end of the plan.

        Raises:
            InputError: another process is training this run.
            Interrupted: SIGINT, SIGTERM or SIGHUP came; the state was saved first.
            Diverged: gradients stopped being finite.
            StorageError: the checkpoints have no room, or the last could not be written.
        """
        self._check_room()
        with self.folder.held(), Signals(self._stop):
            if not self.folder.begun():
                self.folder.begin(self.config, self._facts())
            elif self.folder.newest() == self._from:
                self.folder.write_config(self.config)
            else:
                raise InputError(
                    f"Another process has trained {self.folder.path} meanwhile; resume once more."
                )
            self.folder.sweep()
            self.folder.rewind(self.trainer.step)
            try:
                yield from self._loop()
            except (Diverged, GeneratorExit):
                # Also where whoever watched is gone: a broken pipe, an error of theirs.
                with suppress(StorageError):
                    self._save_new()
                raise

    def _check_room(self) -> None:
        """Refuse, before the first step, a disk that can't hold the checkpoints to come.

        Raises:
            StorageError: with what they need and what is free.
        """
        files = self.trainer.tensors()
        sizes = {
            name: sum(value.numel() * value.element_size() for value in tensors.values())
            for name, tensors in files.items()
        }
        # Optimizers make their two moments of each weight when they first step.
        first = sum(2 * p.numel() * p.element_size() for p in self._network.parameters())
        sizes["optimizer"] = max(sizes["optimizer"], first)
        keep = self.config.training.keep
        missing = max(1, keep + 1 - len(self.folder.numbered()))
        what = "1 checkpoint" if missing == 1 else f"{missing} checkpoints"
        storage.check_room(self.folder.checkpoints, missing * sum(sizes.values()), what)

    def _loop(self) -> Iterator[Event]:
        training = self.config.training
        per_epoch = max(1, round(len(self.data.train) / training.batch))
        draw = Cadence(training.sample_every, per_epoch, first=4.0, growth=2.0)
        keep = Cadence(training.save_every, per_epoch, first=30.0, growth=1.3)
        for progress in self.trainer.run():
            note = self._log(progress)
            if note is not None:
                yield note
            yield progress
            if self._stopped is not None:
                self._leave(self._stopped)
            if keep.due(progress.step):
                yield self._try_save()
                keep.done()
            if draw.due(progress.step):
                yield from self._draw()
                draw.done()
        yield from self._save_new()
        yield from self._draw()
        if self._stopped is not None:
            self._leave(self._stopped)

    def save(self) -> Saved:
        """Write a checkpoint and the model card.

        Raises:
            StorageError: the disk refuses; the checkpoint before is intact.
        """
        step = self.trainer.step
        with suppress(StorageError):
            self.journal.flush()
        config = self.model_config.model_copy(update={"step": step})
        state = {
            "trainer": self.trainer.state(),
            "journal": self.journal.state(),
            "runtime": self.runtime.state(),
            "seed": self.config.training.seed,
        }
        files = {
            f"{name}.safetensors": storage.tensor_bytes(tensors)
            for name, tensors in self.trainer.tensors().items()
        }
        files[CONFIG] = storage.json_bytes(config.model_dump(mode="json"))
        files[STATE] = storage.json_bytes(state)
        if isinstance(self.parts.tokenizer, Tokenizer):
            files[TOKENIZER] = self.parts.tokenizer.text.encode()
        if self.parts.autoencoder is not None:
            files[AUTOENCODER] = storage.tensor_bytes(self.parts.autoencoder.state_dict())
        if self.parts.reader is not None and self.model_config.reader is not None:
            files[READER] = storage.tensor_bytes(self.parts.reader.state_dict())
        path = self.folder.save(step, files, self.config.training.keep)
        self._saved = step
        storage.write_bytes(self.folder.card, card(self, step).encode())
        return Saved(path, step)

    def _save_new(self) -> list[Event]:
        """Save, unless this step is saved already."""
        return [self.save()] if self._saved != self.trainer.step else []

    def _try_save(self) -> Event:
        """Save; where the disk refuses, say so and train on."""
        try:
            return self.save()
        except StorageError as error:
            return Note(f"{error} Training goes on; the next checkpoint will try again.")

    def _log(self, progress: Progress) -> Note | None:
        """Log a step; where the disk refuses, say so once and train on."""
        try:
            self.journal.take(progress)
        except StorageError as error:
            first, self._log_fails = not self._log_fails, True
            return Note(f"{error} Training goes on; the log is written later.") if first else None
        self._log_fails &= self.journal.waiting
        return None

    def _draw(self) -> Iterator[Event]:
        step = self.trainer.step
        data = self.data.test or self.data.train
        path = self.folder.samples / f"step_{step:08d}.png"
        try:
            image = preview(
                self.models, data, self.config.training.seed, lambda: self._stopped is not None
            )
            if image is None:
                return
            save(image, path, text={"couette": f"{self.config.recipe}, step {step}"})
        except (NotFinite, StorageError) as error:
            yield Note(f"{error} Training goes on without this grid.")
            return
        yield Drawn(path, step)

    def _leave(self, number: int) -> None:
        """Save and stop, because a signal asked.

        Raises:
            Interrupted: always.
        """
        self._save_new()
        raise Interrupted(
            number,
            f"Stopped and saved at step {self.trainer.step:,}. Go on with: "
            f"couette train --out {self.folder.path} --resume",
        )

    def _stop(self, number: int) -> None:
        self._stopped = number

    def _runtime(self, checkpoint: Path | None, tell: Callable[[str], None]) -> Runtime:
        """As it was, for a resumed run on a like machine; else, or where asked, decided anew."""
        asked = self.config.runtime
        trial = build_trial(self.config, self.model_config, self.data.train, self.parts)
        if checkpoint is not None:
            state = storage.read_json(checkpoint / STATE)
            try:
                before = Runtime(**state["runtime"])
                used = before.asked()
            except (ConfigError, KeyError, TypeError, ValueError) as error:
                raise CheckpointError(f"{checkpoint / STATE} is damaged ({error}).") from None
            try:
                choose(used)
            except ConfigError:  # a device that this machine lacks
                return choose(asked, trial, tell)
            own = dict(used)
            if all(value in ("auto", None, own[name]) for name, value in asked if name != "mode"):
                return before
        return choose(asked, trial, tell)

    def _check_sampling(self) -> None:
        """Refuse, before anything is trained, samplers and grids that this model can't take.

        Raises:
            InputError: with what does not fit.
        """
        model = self.models["weights"]
        if model.config.objective.name != "diffusion":
            return
        if model.config.diffusion.times.name == "fixed":
            return
        steps(model, [Ask()], sampling=model.config.sampling)
        if not self.runtime.compile:
            with evaluating(model.network):
                next(steps(model, [Ask()], sampling=preview_sampling(model.config)))

    def _model(self, network: nn.Module) -> Model:
        return assemble(self.model_config, network, self.runtime, self.parts)

    def _checkpoint(self) -> Path | None:
        self.folder.config()  # raises where there is no run
        checkpoint, self._damaged = self.folder.found()
        if checkpoint is None and self._damaged:
            raise CheckpointError(self.folder.all_damaged(self._damaged))
        return checkpoint

    def _facts(self) -> dict[str, Any]:
        data = self.data.train
        return {
            "source": self._given,
            "data": list(data.notes),
            "fingerprint": data.fingerprint,
            "pictures": len(data),
            "classes": list(data.classes),
            "shape": [data.channels, data.height, data.width],
            "network": str(self.config.network),
            "parameters": sum(p.numel() for p in self._network.parameters()),
            "runtime": self.runtime.state(),
            "begun": time.strftime("%Y-%m-%d %H:%M:%S"),
        }
