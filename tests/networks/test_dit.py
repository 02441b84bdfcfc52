"""The transformer over patches: words either way, any size, and a beginning as nothing."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from couette.config import TrainingConfig
from couette.contracts import Sizes, TextSizes
from couette.networks.dit import DiT, places
from couette.networks.plan import count_parameters, plan
from couette.training.optimizers import PhaseOptimizer, matrices_of

WORDS = TextSizes(length=6, vocabulary=20)
BOTH = pytest.mark.parametrize("words", ["cross", "joint"])


def built(words: str = "cross", text: TextSizes | None = WORDS, **more: object) -> DiT:
    torch.manual_seed(0)
    return DiT(Sizes(2, 8, 8, 3, text=text), width=32, depth=2, words=words, **more).eval()  # type: ignore[arg-type]


def stirred(network: DiT) -> DiT:
    for parameter in network.parameters():
        if not parameter.any():
            nn.init.normal_(parameter, std=0.1)
    return network


def told(rows: int = 2, length: int = 6) -> dict[str, Tensor]:
    mask = torch.ones(rows, length, dtype=torch.bool)
    mask[0, 3:] = False
    generator = torch.Generator().manual_seed(1)
    text = torch.randint(3, 20, (rows, length), generator=generator)
    return {"text": text, "text_mask": mask, "label": torch.tensor([0, 3])[:rows]}


@BOTH
def test_it_begins_as_nothing(words: str) -> None:
    assert not built(words)(torch.randn(2, 2, 8, 8), torch.randn(2), told()).any()


@BOTH
def test_padding_counts_for_nothing_and_words_do(words: str) -> None:
    network, cond, x = stirred(built(words)), told(), torch.randn(2, 2, 8, 8)
    with torch.no_grad():
        plain = network(x, torch.zeros(2), cond)
        padded = cond["text"].clone()
        padded[0, 3:] = 7
        other = network(x, torch.zeros(2), {**cond, "text": padded})
        torch.testing.assert_close(plain[0], other[0])
        changed = network(x, torch.zeros(2), {**cond, "text": (cond["text"] + 1) % 20})
    assert (plain - changed).flatten(1).abs().amax(1).min() > 1e-3


@BOTH
@pytest.mark.parametrize("size", [(8, 8), (5, 12), (16, 4)])
def test_pictures_of_any_size(words: str, size: tuple[int, int]) -> None:
    x = torch.randn(2, 2, *size)
    assert stirred(built(words))(x, torch.zeros(2), told()).shape == x.shape


def test_places_tell_patches_apart() -> None:
    found = places(3, 5, torch.zeros(()), 32)
    assert found.shape == (15, 32)
    assert torch.cdist(found, found).fill_diagonal_(9).min() > 0.5


def test_where_a_patch_is_matters() -> None:
    """Without places all patches of an even picture would answer alike."""
    network = stirred(built(text=None))
    with torch.no_grad():
        out = network(torch.ones(1, 2, 8, 8), torch.zeros(1), {"label": torch.tensor([0])})
    assert out[0, 0].std() > 1e-3


def test_the_plan_counts_all_of_it() -> None:
    network = built("joint")
    rows = plan(network, Sizes(2, 8, 8, 3, text=WORDS))
    assert sum(row.parameters for row in rows) == count_parameters(network)


@BOTH
def test_muon_moves_the_matrices_and_nothing_that_modulates(words: str) -> None:
    network = built(words)
    names = {id(p): name for name, p in network.named_parameters()}
    chosen = {names[id(p)] for p in matrices_of(network)}
    assert chosen and not any("modulation" in name or "embedding" in name for name in chosen)
    assert any(name.endswith("patches.qkv.weight") for name in chosen)
    config = TrainingConfig(optimizer="muon")
    optimizer = PhaseOptimizer(list(network.parameters()), config, matrices_of(network))
    assert len(optimizer.tensors()) == 0


def test_perturbed_rows_keep_their_own_values() -> None:
    """Patches that are all alike do not notice, where no words are attended to."""
    network = stirred(built(text=None))
    block = network.blocks[0]
    h = torch.randn(2, 1, 32).expand(2, 7, 32)
    emb, rows = torch.randn(2, 32), torch.tensor([True, False])
    with torch.no_grad():
        torch.testing.assert_close(block(h, emb, None, None, rows), block(h, emb))
        other = torch.randn(2, 7, 32)
        changed = block(other, emb, None, None, rows) - block(other, emb)
    assert changed[0].abs().max() > 1e-3 and not changed[1].any()
