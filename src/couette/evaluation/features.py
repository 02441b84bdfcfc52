"""The space that distances are measured in: what a small classifier of the data sees.

The network is trained on the training pictures alone, offline, in well under a minute on two cores:
to tell their classes apart or, where they have none, by how many quarter turns a picture was
rotated (Gidaris et al. 2018). Its last features before the decision are the space; they are scaled
by one number so that over the training pictures their mean variance is 1.

It is kept in the cache, by data and settings, and named by the hash of its weights: distances are
comparable where those hashes are equal, and only there. Trained again on the same processor with as
many threads it is the same to the bit; elsewhere it may differ, so carry the cache along.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from couette.codecs import Symmetric
from couette.config import DataConfig, TrainingConfig
from couette.contracts import Batch, Losses, Objective
from couette.data import Dataset, Progress, to_float
from couette.errors import CheckpointError, ShapeError, StorageError
from couette.model import load_weights
from couette.places import cache_dir
from couette.runtime import Runtime
from couette.storage import read_tensors, tensor_bytes, write_bytes
from couette.training import Stream, Trainer
from couette.training.plan import Plan

VERSION = 1
"""Raised with every change that makes other features of the same data."""

DIMENSIONS = 64
SMALLEST, LARGEST = 8, 128
_BATCH = 500
_SCALED_ON = 5000


class FeatureNetwork(nn.Module):
    """Convolutions down to a map about 7 wide, its mean, and a linear decision.

    Args:
        channels: of the pictures.
        outputs: classes, or 4 quarter turns.
        side: pictures are brought to side × side; at least 8.
    """

    scale: Tensor

    def __init__(self, channels: int, outputs: int, side: int) -> None:
        super().__init__()
        self.side = side
        halvings = max(1, round(math.log2(side / 7)))
        widths = [max(16, DIMENSIONS >> (halvings - level)) for level in range(halvings + 1)]
        layers = [_layer(channels, widths[0])]
        for before, after in pairwise(widths):
            layers += [_layer(before, after, stride=2), _layer(after, after)]
        self.body = nn.Sequential(*layers, _layer(DIMENSIONS, DIMENSIONS))
        self.head = nn.Linear(DIMENSIONS, outputs)
        self.register_buffer("scale", torch.ones(()))

    def prepare(self, pictures: Tensor) -> Tensor:
        """Pictures of any size to (B, C, side, side), shrunk without aliasing."""
        if pictures.shape[-2:] == (self.side, self.side):
            return pictures
        return functional.interpolate(
            pictures, (self.side, self.side), mode="bilinear", antialias=True
        )

    def features(self, pictures: Tensor) -> Tensor:
        """(B, C, H, W) in [-1, 1] to (B, 64), not scaled."""
        mean: Tensor = self.body(self.prepare(pictures)).mean((2, 3))
        return mean

    def forward(self, pictures: Tensor) -> Tensor:
        """The logits, (B, outputs)."""
        logits: Tensor = self.head(self.features(pictures))
        return logits


def _layer(inputs: int, outputs: int, stride: int = 1) -> nn.Module:
    convolution = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(outputs), nn.ReLU())


class ClassifierObjective(Objective):
    """Cross-entropy of the class, or of the quarter turns where `turns` is set.

    Turned pictures are shown in all four directions; their loss is the mean over them.
    """

    def __init__(self, network: FeatureNetwork, runtime: Runtime, *, turns: bool) -> None:
        super().__init__()
        self.network, self.runtime, self.turns = network, runtime, turns

    def phases(self) -> Mapping[str, list[nn.Parameter]]:
        return {"network": list(self.network.parameters())}

    def forward(self, batch: Batch, phase: str = "network") -> Losses:
        """Losses of a batch, (B,); "correct" (B,) is 1 where the answer was right."""
        pictures, answers = batch.data, batch.cond.get("label")
        if self.turns or answers is None:
            pictures, answers = turned(self.network.prepare(pictures))
        with self.runtime.autocast():
            logits = self.network(pictures)
        loss = functional.cross_entropy(logits.float(), answers, reduction="none")
        correct = (logits.argmax(1) == answers).float()
        rows = len(batch.data)
        return Losses(
            loss.reshape(-1, rows).mean(0), {"correct": correct.reshape(-1, rows).mean(0)}
        )


def turned(pictures: Tensor) -> tuple[Tensor, Tensor]:
    """Square pictures in all four directions, (4·B, C, S, S), and their quarter turns (4·B,)."""
    answers = torch.arange(4, device=pictures.device).repeat_interleave(len(pictures))
    return torch.cat([pictures.rot90(turn, (2, 3)) for turn in range(4)]), answers


@dataclass(frozen=True)
class Seen:
    """What the network sees in N pictures: features (N, 64) float64 scaled, probabilities (N, K)
    float64 of its answers."""

    features: Tensor
    probabilities: Tensor


@dataclass(frozen=True)
class FeatureSpace:
    """A trained feature network.

    Attributes:
        task: what it was trained for.
        digest: SHA-256 of its weights, in hexadecimal.
        fresh: whether it was trained now, not found in the cache.
        notes: what the user should know, in sentences.
    """

    network: FeatureNetwork
    runtime: Runtime
    task: Literal["classes", "rotations"]
    digest: str
    fresh: bool
    notes: tuple[str, ...] = ()

    @torch.no_grad()
    def see(self, pictures: Tensor) -> Seen:
        """Look at pictures, (N, C, H, W) float32 in [-1, 1]; in float32, whatever the runtime."""
        features, probabilities = [], []
        for part in torch.split(pictures, _BATCH):
            found = self.network.features(part.to(self.runtime.device))
            features.append((found * self.network.scale).double().cpu())
            probabilities.append(self.network.head(found).double().softmax(1).cpu())
        return Seen(torch.cat(features), torch.cat(probabilities))

    def see_data(self, data: Dataset, index: Tensor) -> Seen:
        """Look at the pictures of a data set at `index` (N,) int64."""
        seen = [self.see(to_float(data.pictures(part))) for part in torch.split(index, _BATCH)]
        return Seen(
            torch.cat([each.features for each in seen]),
            torch.cat([each.probabilities for each in seen]),
        )

    @torch.no_grad()
    def accuracy(self, data: Dataset, index: Tensor) -> float:
        """The share of right answers on pictures that it was not trained on, in [0, 1]."""
        right, count = 0.0, 0
        objective = ClassifierObjective(self.network, Runtime(), turns=self.task == "rotations")
        for part in torch.split(index, _BATCH):
            pictures = to_float(data.pictures(part).to(self.runtime.device))
            known = {} if data.labels is None else {"label": data.labels[part].to(pictures.device)}
            losses = objective(Batch(pictures, known, torch.stack((part, part), 1)), "network")
            right += float(losses.logs["correct"].sum())
            count += len(part)
        return right / count


def feature_space(
    train: Dataset,
    runtime: Runtime | None = None,
    progress: Progress | None = None,
    *,
    cache: Path | None = None,
) -> FeatureSpace:
    """The feature space of a data set: from the cache, or trained now.

    Args:
        train: the pictures to train on.
        runtime: where, and in what arithmetic it is trained; the CPU in float32 when not given.
        progress: called as training goes.
        cache: the folder to keep it in; `features` in Couette's cache when not given.

    Raises:
        ShapeError: points, which need no features.
    """
    if train.points:
        raise ShapeError("Points are compared by their coordinates; they need no features.")
    runtime = runtime or Runtime(threads=torch.get_num_threads())
    task, side = _task(train), _side(train)
    settings = _settings(train, task)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        network = FeatureNetwork(train.channels, _outputs(train, task), side)
    path = kept_at(train, cache)
    notes = []
    if (train.height, train.width) != (side, side):
        notes.append(f"The features look at pictures brought to {side}×{side}.")
    fresh = not _load(network, path)
    network = runtime.place(network)  # type: ignore[assignment]
    if fresh:
        _train(network, train, task, settings, runtime, progress)
        try:
            write_bytes(path, tensor_bytes(network.state_dict()))
        except StorageError as error:
            notes.append(f"{error} The feature network is not kept, and trained anew next time.")
    digest = hashlib.sha256(tensor_bytes(network.state_dict())).hexdigest()
    return FeatureSpace(network.eval(), runtime, task, digest, fresh, tuple(notes))


def kept_at(train: Dataset, cache: Path | None = None) -> Path:
    """Where the feature network of these data is kept once it is trained."""
    task = _task(train)
    key = _key(train, task, _side(train), _settings(train, task))
    return (cache or cache_dir() / "features") / f"{key}.safetensors"


def _task(train: Dataset) -> Literal["classes", "rotations"]:
    return "classes" if len(train.classes) > 1 else "rotations"


def _side(train: Dataset) -> int:
    return min(max(train.height, train.width, SMALLEST), LARGEST)


def _outputs(train: Dataset, task: str) -> int:
    return len(train.classes) if task == "classes" else 4


def _settings(train: Dataset, task: str) -> TrainingConfig:
    """8 passes over the data, but no fewer than 6,400 and no more than 80,000 pictures."""
    batch = 128 if len(train) >= 10_000 else 64
    seen = min(max(8 * len(train), 6_400), 80_000)
    steps = max(1, seen // batch)
    if task == "rotations":
        batch //= 2  # each picture is shown four times
    return TrainingConfig(
        steps=steps,
        batch=batch,
        lr=3e-3,
        betas=(0.9, 0.99),
        weight_decay=0.01,
        warmup=max(1, steps // 10),
        decay="linear",
        average=0,
    )


def _augmentation(train: Dataset) -> DataConfig:
    """Shifts of up to a sixteenth of the shorter side."""
    return DataConfig(crop=min(8, max(1, min(train.height, train.width) // 16)))


def _key(train: Dataset, task: str, side: int, settings: TrainingConfig) -> str:
    what = {
        "version": VERSION,
        "data": train.fingerprint,
        "task": task,
        "side": side,
        "crop": _augmentation(train).crop,
        "training": settings.model_dump(mode="json"),
    }
    return hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()[:32]


def _load(network: FeatureNetwork, path: Path) -> bool:
    """Fill the network from the cache; False where nothing usable is there."""
    if not path.exists():
        return False
    try:
        load_weights(network, read_tensors(path), str(path))
    except (CheckpointError, ShapeError):
        return False
    return True


def _train(
    network: FeatureNetwork,
    train: Dataset,
    task: str,
    settings: TrainingConfig,
    runtime: Runtime,
    progress: Progress | None,
) -> None:
    objective = ClassifierObjective(network, runtime, turns=task == "rotations")
    batches = Stream(
        train,
        Symmetric(),
        _augmentation(train),
        batch=settings.batch,
        seed=settings.seed,
        device=runtime.device,
        labelled=task == "classes",
    )
    trainer = Trainer(objective, batches, settings, Plan(settings, len(train)))
    with torch.random.fork_rng(devices=[]):
        for done in trainer.run():
            if progress:
                progress("the feature network", done.step, done.total or done.step)
    network.eval()
    index = torch.arange(len(train))
    index = index[:: max(1, len(index) // _SCALED_ON)]
    bare = FeatureSpace(network, runtime, "rotations", "", True)
    variance = float(bare.see_data(train, index).features.var(0).mean())
    if variance > 0:
        network.scale.fill_(variance**-0.5)
