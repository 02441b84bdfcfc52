"""What samples are compared with: held-out pictures in a feature space, and the floor.

A judge is made once for a data set and a count, and then asked of any number of samples.
"""

from __future__ import annotations

from functools import cached_property

import torch
from torch import Tensor

from couette.data import Dataset, Progress
from couette.evaluation.distances import coverage, frechet, kernel, sliced
from couette.evaluation.features import FeatureSpace, Seen, feature_space
from couette.evaluation.report import Distances, Floor, Judged, Space
from couette.runtime import Runtime
from couette.tensors import permutation

JUDGED_ON = 10_000

FEW = 30
"""Held-out pictures; a mean over fewer is off by a fifth of their spread, or more."""


def few_held_out(test: Dataset) -> tuple[str, ...]:
    """A note where what is measured on the held-out data means little; otherwise none."""
    if len(test) >= FEW:
        return ()
    what = "points" if test.points else "pictures"
    return (f"Only {len(test)} {what} are held out: what is measured on so few means little.",)


class Judge:
    """Compares samples with held-out pictures.

    Args:
        train: what the feature network is trained on, and the floor drawn from.
        test: the held-out data.
        count: samples that will be compared; the floor is of as many training pictures.
        seed: of the choice of pictures.
        alike: each class equally often, as in samples that are asked for every class in turn.
        runtime: where the feature network runs.
        progress: called as it is trained.
    """

    def __init__(
        self,
        train: Dataset,
        test: Dataset,
        *,
        count: int,
        seed: int = 0,
        alike: bool = False,
        runtime: Runtime | None = None,
        progress: Progress | None = None,
    ) -> None:
        self.train, self.test = train, test
        self.count, self.seed, self.alike = count, seed, alike
        self.features: FeatureSpace | None = (
            None if train.points else feature_space(train, runtime, progress)
        )

    @cached_property
    def space(self) -> Space:
        """What the distances are measured in."""
        features = self.features
        if features is None:
            return Space(task="coordinates", dimensions=2)
        index = permutation(self.seed, 0, len(self.test))[:JUDGED_ON]
        return Space(
            task=features.task,
            answers=features.network.head.out_features,
            dimensions=features.network.head.in_features,
            accuracy=features.accuracy(self.test, index),
            held_out=len(index),
            weights=features.digest[:12],
            notes=features.notes,
        )

    @cached_property
    def reference(self) -> Seen:
        """The held-out pictures that samples are compared with."""
        return self._look(self.test)

    @cached_property
    def floor(self) -> Floor:
        """What as many real training pictures get: no sampler can be expected to do better."""
        real = self._look(self.train)
        judged = None
        if self._classes and self.test.labels is not None:
            judged = self._verdict(self.reference, self.test.labels[self._chosen(self.test)])
        return Floor(
            count=len(real.features),
            held_out=len(self.reference.features),
            distances=self._between(real.features),
            judged=judged,
        )

    def __call__(self, drawn: Tensor, labels: Tensor | None) -> tuple[Distances, Judged | None]:
        """How far samples (N, C, H, W) are from the held-out pictures, and what the classifier
        sees in them: None where the features were not trained to tell classes apart.

        Args:
            drawn: float32 in [-1, 1]; points as (N, 2, 1, 1).
            labels: what each sample was asked to be, (N,) int64; None for nothing.
        """
        seen = _coordinates(drawn) if self.features is None else self.features.see(drawn)
        judged = self._verdict(seen, labels) if self._classes else None
        return self._between(seen.features), judged

    @property
    def _classes(self) -> bool:
        return self.features is not None and self.features.task == "classes"

    def _chosen(self, data: Dataset) -> Tensor:
        """Which pictures stand for the data: at most `count`, each class alike where asked."""
        order = permutation(self.seed, 0, len(data))
        if self.alike and data.labels is not None:
            order = order[_rounds(data.labels[order])]
        return order[: self.count]

    def _look(self, data: Dataset) -> Seen:
        index = self._chosen(data)
        if self.features is None:
            return _coordinates(data.pictures(index))
        return self.features.see_data(data, index)

    def _between(self, found: Tensor) -> Distances:
        reference = self.reference.features
        near = kernel(found, reference)
        return Distances(
            frechet=frechet(found, reference),
            kernel=near.value,
            kernel_error=near.error,
            sliced=sliced(found, reference, seed=self.seed) if self.features is None else None,
            coverage=coverage(found, reference),
        )

    def _verdict(self, seen: Seen, labels: Tensor | None) -> Judged:
        confidence, answer = seen.probabilities.max(1)
        mean = float(confidence.mean())
        if labels is None:
            return Judged(confidence=mean)
        right = (answer == labels).double()
        by_class = {
            name: float(right[labels == label].mean())
            for label, name in enumerate(self.train.classes)
            if bool((labels == label).any())
        }
        return Judged(confidence=mean, accuracy=float(right.mean()), by_class=by_class)


def _coordinates(points: Tensor) -> Seen:
    flat = points.flatten(1).double()
    return Seen(flat, flat.new_zeros(len(flat), 0))


def _rounds(labels: Tensor) -> Tensor:
    """An order of (N,) labels that takes one of each class in turn, each class in its own order."""
    by_class = labels.argsort(stable=True)
    sizes = torch.bincount(labels)
    starts = sizes.cumsum(0) - sizes
    rank = torch.empty_like(labels)
    rank[by_class] = torch.arange(len(labels)) - starts[labels[by_class]]
    return (rank * len(sizes) + labels).argsort()
