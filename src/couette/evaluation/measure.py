"""The evaluation itself: in which order, on how many pictures, and what is left out when."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Collection, Mapping
from contextlib import ExitStack
from dataclasses import dataclass

import torch
from torch import Tensor

from couette.config import SamplingConfig
from couette.contracts import Ask
from couette.data import Dataset, Progress, Splits, to_float
from couette.data.shapes import KINDS
from couette.errors import CouetteError, DataError, InputError, ShapeError, UnknownName
from couette.evaluation.bits import likelihood as likelihood_of
from couette.evaluation.features import kept_at
from couette.evaluation.following import VARIED, following, variety
from couette.evaluation.judge import Judge, few_held_out
from couette.evaluation.levels import loss_by_level
from couette.evaluation.neighbours import SEARCHED, CopyRule, nearest, rule_from
from couette.evaluation.report import (
    Ahead,
    Copies,
    Followed,
    Likelihood,
    Losses,
    Pairs,
    Part,
    Report,
    Samples,
)
from couette.generate import in_turn, pictures, said
from couette.model import Model
from couette.runtime import evaluating
from couette.tensors import permutation

MOST = 2_000
"""Samples at most unless asked for: on two cores they take minutes, and the Fréchet distance of 64
features has settled."""

FEWEST = 500
"""Samples where few pictures are held out: accuracies are then known to about two per cent."""

LOSSES_ON = 512
LIKELIHOOD_ON = 128


def default_count(splits: Splits) -> int:
    """How many samples an evaluation draws unless asked otherwise: as many as are held out, from
    500 to 2,000, and no more than there are training pictures for the floor."""
    held_out = 0 if splits.test is None else len(splits.test)
    return min(MOST, len(splits.train), max(FEWEST, held_out))


def evaluate(
    models: Mapping[str, Model],
    splits: Splits,
    *,
    count: int | None = None,
    seed: int = 0,
    batch: int = 128,
    sampling: SamplingConfig | None = None,
    draw: Collection[str] | None = None,
    likelihood: bool = False,
    prompts: int = 0,
    progress: Progress | None = None,
    watch: Callable[[Part], None] | None = None,
) -> Report:
    """Measure models of one run against data.

    The floor comes first: `count` real training pictures against the held-out ones, which is what
    `count` perfect samples would get. Then each model's loss by noise level, then samples: their
    distances, what a classifier sees in them, and their nearest training pictures. A model with
    labels is asked for each class equally often, and its floor is drawn alike; one that reads words
    is told captions of held-out pictures.

    Args:
        models: of one kind, by name: "weights", "average".
        splits: the data; the held-out part is what is compared with.
        count: samples to draw, `default_count` when not given.
        seed: of samples, noise, and the choice of pictures.
        batch: pictures drawn at once.
        sampling: sampler, grid, steps, guidance; each model's own when not given.
        draw: the names of the models to sample from; when not given the last one, which is the
            average where there is one. Losses are measured for all.
        likelihood: also measure the likelihood of held-out pictures under these; it is slow.
        prompts: where the data are `shapes` and the models read words, so many of each kind are
            drawn, to see whether they are followed.
        progress: called now and then with (what is being done, how much is done, of how much).
        watch: called with what is ahead, then with each part of the report as soon as it is known,
            the floor first.

    Raises:
        DataError: nothing is held out, or too little data.
        ShapeError: data of another size than the models'.
        InputError: a count or name that can't be; settings that a model can't take.
    """
    count = default_count(splits) if count is None else count
    names = _names(models, draw)
    test = _check(models, splits, count)
    if likelihood:
        _check_likelihood(models)
    with ExitStack() as stack:
        for model in models.values():
            stack.enter_context(evaluating(model.network))
        run = _Evaluation(models, splits.train, test, count, seed, batch, progress)
        return run(names, sampling, likelihood, prompts, watch or (lambda part: None))


def _names(models: Mapping[str, Model], draw: Collection[str] | None) -> list[str]:
    if not models:
        raise InputError("There is no model to evaluate; give at least one.")
    if draw is None:
        return list(models)[-1:]
    for name in draw:
        if name not in models:
            raise UnknownName("model", name, models)
    return [name for name in models if name in draw]


def _check(models: Mapping[str, Model], splits: Splits, count: int) -> Dataset:
    """The held-out data, if all fits together."""
    train, test = splits
    if test is None or len(test) < 2:
        raise DataError(
            f"'{train.name}' has no pictures kept for evaluation; set --data.holdout to a share "
            "such as 0.1, or name other data."
        )
    if not 2 <= count <= len(train):
        sentence = (
            f"{count} samples can't be compared: give 2 to {len(train):,}, the number of training "
            "pictures, which the floor is made of."
        )
        raise InputError(" ".join((sentence, *few_held_out(test))))
    for model in models.values():
        config = model.config
        shape = config.channels, config.height, config.width
        if shape != (train.channels, train.height, train.width):
            raise ShapeError(
                f"The model draws pictures of {shape} (channels, height, width) and the data are "
                f"{(train.channels, train.height, train.width)}; evaluate on data of its size "
                "(--data.resolution, --data.color)."
            )
    return test


def _check_likelihood(models: Mapping[str, Model]) -> None:
    for model in models.values():
        if _one_step(model) or model.denoiser.corruption.noise != "normal":
            raise InputError(
                "A likelihood needs a model that makes its data from normal noise; this one is a "
                "one-step denoiser, or was trained on uniform noise: leave out --likelihood."
            )


@dataclass(frozen=True, eq=False)
class _Evaluation:
    """One evaluation's givens, and the steps that are made of them."""

    models: Mapping[str, Model]
    train: Dataset
    test: Dataset
    count: int
    seed: int
    batch: int
    progress: Progress | None

    def __call__(
        self,
        names: list[str],
        sampling: SamplingConfig | None,
        likelihood: bool,
        prompts: int,
        watch: Callable[[Part], None],
    ) -> Report:
        drawing = [name for name in names if not _one_step(self.models[name])]
        notes = self._notes(names)
        ahead = self._ahead(drawing, sampling, likelihood, prompts)
        watch(Ahead(sentence=ahead, notes=notes))
        judge = Judge(
            self.train,
            self.test,
            count=self.count,
            seed=self.seed,
            alike=self._labelled,
            runtime=next(iter(self.models.values())).denoiser.runtime,
            progress=self.progress,
        )
        watch(judge.space)
        watch(judge.floor)
        losses = {}
        for name, model in self.models.items():
            losses[name] = self._losses(name, model)
            watch(losses[name])
        likelihoods = {}
        for name in names if likelihood else ():
            likelihoods[name] = self._likelihood(name)
            watch(likelihoods[name])
        samples: dict[str, Samples] = {}
        pairs: dict[str, Pairs] = {}
        rule = None
        for name in drawing:
            drawn, seconds = self._draw(name, sampling)
            if not self.train.points:
                rule = rule or rule_from(Splits(self.train, self.test), self.seed, self.progress)
                pairs[name] = self._pairs(drawn, rule[0])
            distances, judged = judge(drawn, self._labels())
            samples[name] = Samples(
                model=name,
                count=self.count,
                sampling=said(sampling or self.models[name].config.sampling),
                distances=distances,
                floor=judge.floor.distances.frechet,
                judged=judged,
                copies=_copies(pairs[name], *rule, len(self.train)) if rule else None,
                seconds=round(seconds, 2),
            )
            watch(samples[name])
        followed = {}
        for name in names if prompts else ():
            followed[name] = self._followed(name, sampling, prompts)
            watch(followed[name])
        return Report(
            self.test.name,
            self.seed,
            judge.space,
            judge.floor,
            losses,
            samples,
            pairs,
            notes,
            likelihoods,
            followed,
        )

    def _ahead(
        self, names: list[str], sampling: SamplingConfig | None, likelihood: bool, prompts: int
    ) -> str:
        """What will be done, where these models draw."""
        parts = []
        if not self.train.points and not kept_at(self.train).exists():
            parts.append(
                f"a network to judge by is trained on the {len(self.train):,} training pictures, "
                "and kept"
            )
        parts.append("losses and likelihoods are measured" if likelihood else "losses are measured")
        prompted = len(KINDS) * prompts + math.prod(VARIED) if prompts else 0
        for name in names:
            how = said(sampling or self.models[name].config.sampling)
            parts.append(f"{self.count + prompted:,} samples of the {name} are drawn ({how})")
        return f"Next: {', then '.join(parts)}."

    def _followed(self, name: str, sampling: SamplingConfig | None, count: int) -> Followed:
        found = following(
            self.models[name],
            count=count,
            seed=self.seed,
            batch=self.batch,
            sampling=sampling,
            progress=self.progress,
        )
        own, scenes = variety(
            self.models[name],
            seed=self.seed,
            batch=self.batch,
            sampling=sampling,
            progress=self.progress,
        )
        return Followed(
            model=name,
            count=count,
            sampling=said(sampling or self.models[name].config.sampling),
            shares={
                kind: {what: each.share for what, each in tallies.items()}
                for kind, tallies in found.items()
            },
            varied=own._asdict(),
            scenes=scenes._asdict(),
        )

    @property
    def _labelled(self) -> bool:
        """Whether the models can be asked for the classes that the data have."""
        classes = {model.conditioner.classes for model in self.models.values()}
        return self.train.labels is not None and classes == {self.train.classes}

    def _losses(self, name: str, model: Model) -> Losses:
        count = min(LOSSES_ON, len(self.train), len(self.test))
        found = [
            loss_by_level(
                model,
                data,
                permutation(self.seed, 0, len(data))[:count],
                seed=self.seed,
                batch=self.batch,
            )
            for data in (self.test, self.train)
        ]
        _finite(torch.tensor([found[0].loss, found[1].loss]), f"Losses of the {name}")
        return Losses(
            model=name,
            pictures=count,
            log_snr=tuple(found[0].log_snr),
            held_out=tuple(found[0].loss),
            training=tuple(found[1].loss),
        )

    def _likelihood(self, name: str) -> Likelihood:
        index = permutation(self.seed, 0, len(self.test))[:LIKELIHOOD_ON]
        found = likelihood_of(
            self.models[name],
            self.test,
            index,
            name=name,
            seed=self.seed,
            batch=self.batch,
            progress=self.progress,
        )
        _finite(torch.tensor([found.flow.mean, found.bound.mean]), f"Likelihoods of the {name}")
        return found

    def _asked(self) -> list[Ask]:
        model = next(iter(self.models.values()))
        asked = in_turn(model, self.count) if self._labelled else [Ask()] * self.count
        texts = self.test.texts
        if not self._worded or texts is None:
            return asked
        captions = [texts[i] for i in self._described().tolist()]
        return [a._replace(words=text) for a, text in zip(asked, captions, strict=True)]

    @property
    def _worded(self) -> bool:
        """Whether the models are told the captions of held-out pictures."""
        told = all(model.conditioner.words is not None for model in self.models.values())
        return told and self.test.texts is not None

    def _described(self) -> Tensor:
        """The held-out pictures whose captions are told, (count,) int64."""
        order = permutation(self.seed, 0, len(self.test))
        return order[torch.arange(self.count) % len(order)]

    def _draw(self, name: str, sampling: SamplingConfig | None) -> tuple[Tensor, float]:
        """Samples on the CPU, and the seconds they took."""
        begun, parts, done = time.perf_counter(), [], 0
        drawn = pictures(
            self.models[name], self._asked(), seed=self.seed, batch=self.batch, sampling=sampling
        )
        for part in drawn:
            parts.append(part)
            done += len(part)
            if self.progress:
                self.progress(f"samples of the {name}", done, self.count)
        samples = torch.cat(parts)
        _finite(samples, f"Samples of the {name}")
        return samples, time.perf_counter() - begun

    def _labels(self) -> Tensor | None:
        """What each sample was asked to be: the class asked for, or that of the picture whose
        caption was told."""
        if self._labelled:
            return torch.tensor([ask.label for ask in self._asked()])
        labels = self.test.labels
        return labels[self._described()] if self._worded and labels is not None else None

    def _pairs(self, drawn: Tensor, rule: CopyRule) -> Pairs:
        searched = drawn[:SEARCHED]
        found = nearest(searched, self.train, self.progress)
        training = to_float(self.train.pictures(found.which))
        return Pairs(searched, training, found.distance, found.ratio, rule(found))

    def _notes(self, names: list[str]) -> tuple[str, ...]:
        notes = []
        if any(_one_step(self.models[name]) for name in names):
            notes.append("A one-step denoiser draws no samples; only its loss is measured.")
        known = {model.config.data_fingerprint for model in self.models.values()}
        if known != {self.train.fingerprint}:
            notes.append("The models were trained on other data than these, or on another part.")
        told = {model.conditioner.classes for model in self.models.values()} - {()}
        if told and not self._labelled:
            notes.append("The models' classes are not those of the data; no class was asked for.")
        return (*notes, *few_held_out(self.test))


def _finite(values: Tensor, what: str) -> None:
    if not bool(values.isfinite().all()):
        raise CouetteError(
            f"{what} are not finite, so nothing can be measured on them. Try another sampler or "
            "checkpoint, or train anew with a lower --training.lr."
        )


def _one_step(model: Model) -> bool:
    """Whether the model knows one noise level only, and so can't draw."""
    return model.config.diffusion.times.name == "fixed"


def _copies(pairs: Pairs, rule: CopyRule, real: Tensor, training: int) -> Copies:
    return Copies(
        searched=len(pairs.copies),
        share=float(pairs.copies.double().mean()),
        real=len(real),
        real_share=float(real.double().mean()),
        threshold=rule.threshold,
        false_alarms=rule.false_alarms,
        training=training,
        made_from=rule.made_from,
    )
