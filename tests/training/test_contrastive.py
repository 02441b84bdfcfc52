"""Which caption belongs to which picture."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn

from couette.codecs import Symmetric
from couette.conditioners import Captions, Words
from couette.config import DataConfig, TrainingConfig
from couette.contracts import Batch, Sizes, TextSizes
from couette.data.shapes import drawn
from couette.data.tokenizer import Tokenizer
from couette.errors import ConfigError
from couette.evaluation.retrieval import embed_pictures, embed_texts, recall
from couette.networks.clip import Clip
from couette.runtime import Runtime
from couette.training import ContrastiveObjective, Stream, Trainer
from couette.training.plan import Plan
from processes import child

LENGTH = 5
SIZES = Sizes(1, 8, 8, text=TextSizes(length=LENGTH, vocabulary=20))
CAPTIONS = [[4, 5], [6, 7], [4, 5], [], [8, 9, 10], [4], [], [11, 4]]


def network(dropout: float = 0.0) -> Clip:
    torch.manual_seed(0)
    return Clip(SIZES, width=16, depth=1, eye=8, multiples=(1, 2), embedding=8, dropout=dropout)


def batch(captions: list[list[int]]) -> Batch:
    text = torch.zeros(len(captions), LENGTH, dtype=torch.int64)
    mask = torch.zeros(len(captions), LENGTH, dtype=torch.bool)
    for i, each in enumerate(captions):
        row = [1, *each, 2]
        text[i, : len(row)] = torch.tensor(row)
        mask[i, : len(row)] = True
    generator = torch.Generator().manual_seed(len(captions))
    x = torch.randn(len(captions), 1, 8, 8, generator=generator)
    keys = torch.zeros(len(captions), 2, dtype=torch.int64)
    return Batch(x, {"text": text, "text_mask": mask}, keys)


def by_hand(logits: Tensor, same: Tensor) -> Tensor:
    """Both cross-entropies, each right answer with an equal share."""
    share = same / same.sum(1, keepdim=True)
    return -(share * logits.log_softmax(1)).sum(1)


def test_equal_captions_are_equally_right() -> None:
    given, made = batch(CAPTIONS[:3]), network()
    objective = ContrastiveObjective(made, Runtime(), 0)
    losses = objective(given)
    logits = made(given.data, torch.zeros(3), given.cond)
    same = torch.tensor([[1.0, 0, 1], [0, 1, 0], [1, 0, 1]])
    expected = (by_hand(logits, same) + by_hand(logits.mT, same)) / 2
    torch.testing.assert_close(losses.loss, expected)
    best = logits.argmax(1)
    assert losses.logs["error"].tolist() == [float(not same[i, best[i]]) for i in range(3)]
    torch.testing.assert_close(losses.logs["scale"], torch.full((3,), 1 / 0.07))


def test_without_a_caption_a_picture_teaches_nothing() -> None:
    """Nor is the empty caption a wrong answer for others; the mean is over those that say."""
    given, made = batch(CAPTIONS), network()
    losses = ContrastiveObjective(made, Runtime(), 0)(given)
    says = [i for i, caption in enumerate(CAPTIONS) if caption]
    alone = Batch(given.data[says], {k: v[says] for k, v in given.cond.items()}, given.keys[says])
    expected = ContrastiveObjective(made, Runtime(), 0)(alone)
    torch.testing.assert_close(losses.loss.mean(), expected.loss.mean())
    assert not losses.loss[[3, 6]].any()
    nothing = ContrastiveObjective(made, Runtime(), 0)(batch([[], []]))
    nothing.loss.mean().backward()
    assert not nothing.loss.any()
    assert all(p.grad is None or p.grad.isfinite().all() for p in made.parameters())


def test_both_towers_learn() -> None:
    made = network()
    ContrastiveObjective(made, Runtime(), 0)(batch(CAPTIONS)).loss.mean().backward()
    for name in ("enter.weight", "of_words.weight", "of_pictures.weight", "log_scale"):
        assert made.get_parameter(name).grad.abs().sum() > 0, name  # type: ignore[union-attr]


def test_another_network_is_refused() -> None:
    with pytest.raises(ConfigError, match="trains the network 'clip', not Linear"):
        ContrastiveObjective(nn.Linear(1, 1), Runtime(), 0)


def test_batches_are_never_split() -> None:
    objective = ContrastiveObjective(network(), Runtime(), 0)
    config = TrainingConfig(steps=1, batch=8, accumulate=2)
    with pytest.raises(ConfigError, match="accumulate 1"):
        Trainer(objective, lambda step: batch(CAPTIONS), config, Plan(config, 8))


def gradients(rank: int, world: int, folder: Path) -> None:
    """The mean loss and the summed gradient of this rank's share of the batch, to a file."""
    store = dist.FileStore(str(folder / "store"), world)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=world)
    whole, made = batch(CAPTIONS), network()
    here = slice(rank * len(CAPTIONS) // world, (rank + 1) * len(CAPTIONS) // world)
    part = Batch(whole.data[here], {k: v[here] for k, v in whole.cond.items()}, whole.keys[here])
    loss = ContrastiveObjective(made, Runtime(), 0)(part).loss.mean() / world
    loss.backward()
    found = torch.cat([loss.detach()[None], *(p.grad.flatten() for p in made.parameters())])  # type: ignore[union-attr]
    dist.all_reduce(found)
    np.save(folder / f"{rank}.npy", found.numpy())
    dist.destroy_process_group()


def test_two_processes_compare_with_each_other(tmp_path: Path) -> None:
    """Loss and summed gradient are those of one process with the whole batch."""
    for world in (1, 2):
        folder = tmp_path / str(world)
        folder.mkdir()
        with child(folder / "0", gradients, 0, world, folder) as first:
            if world == 2:
                with child(folder / "1", gradients, 1, world, folder) as second:
                    assert (first.wait(), second.wait()) == (0, 0), first.errors
            else:
                assert first.wait() == 0, first.errors
    one, two = (torch.from_numpy(np.load(tmp_path / str(world) / "0.npy")) for world in (1, 2))
    torch.testing.assert_close(two, one, rtol=1e-4, atol=1e-6)


def test_it_learns_to_find_captions() -> None:
    """By heart, on so few; what it finds of pictures it has not seen is for `couette eval`."""
    data = drawn(128)
    assert data.texts is not None
    tokenizer = Tokenizer.learned(data.texts, 400)
    words = Words(tokenizer, 24)
    torch.manual_seed(0)
    made = Clip(
        Sizes(3, 32, 32, text=TextSizes(24, tokenizer.size)),
        width=32, depth=1, eye=16, patch=4, embedding=32, dropout=0.0,
    )  # fmt: skip
    stream = Stream(
        data, Symmetric(), DataConfig(), batch=64, seed=0, captions=Captions(words, data.texts)
    )
    config = TrainingConfig(steps=60, batch=64, lr=3e-3, optimizer="muon", warmup=5)
    run = Trainer(ContrastiveObjective(made, Runtime(), 0), stream, config, Plan(config, 128))
    list(run.run())
    made.eval()
    pictures = embed_pictures(made, data, torch.arange(128), Runtime())
    found = recall(pictures, embed_texts(made, words, data.texts, Runtime()), data.texts)
    assert found.to_text[10] > 0.9 and found.to_picture[10] > 0.9
    assert found.chance[10] < 0.1
