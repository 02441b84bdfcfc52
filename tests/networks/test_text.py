"""What reads words: padding counts for nothing, words do, and maps of attention can be tapped."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from couette.contracts import Sizes, TextSizes
from couette.errors import ConfigError, ShapeError
from couette.networks.dit import DiT
from couette.networks.layers import attend, head_norm, turned
from couette.networks.recalling import Recalling
from couette.networks.text import CrossAttention, Reader, tapped
from couette.networks.unet import UNet

WORDS = TextSizes(length=6, vocabulary=20)


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


def unet(text: TextSizes | None = WORDS, **settings: object) -> nn.Module:
    network = UNet(Sizes(1, 16, 16, text=text), size="tiny", width=16, **settings)  # type: ignore[arg-type]
    for parameter in network.parameters():
        if parameter.ndim > 1 and not parameter.any():
            nn.init.normal_(parameter, std=0.1)
    return network.eval()


def told(rows: int = 2, length: int = 6) -> dict[str, Tensor]:
    mask = torch.ones(rows, length, dtype=torch.bool)
    mask[0, 3:] = False
    return {"text": torch.randint(3, 20, (rows, length)), "text_mask": mask}


def test_attention_leaves_masked_tokens_out() -> None:
    q, k, v = torch.randn(3, 2, 1, 5, 4).unbind(0)
    mask = torch.tensor([True, True, False, True, False])[None, None, None]
    kept = mask[0, 0, 0]
    expected = attend(q, k[:, :, kept], v[:, :, kept])
    torch.testing.assert_close(attend(q, k, v, mask), expected)
    fused = nn.functional.scaled_dot_product_attention(q, k, v, mask)
    torch.testing.assert_close(attend(q, k, v, mask), fused)


def test_turned_products_see_distances_alone() -> None:
    """And lengths stay as they were; an odd channel is not turned."""
    q, k = torch.randn(2, 1, 1, 1, 7).double().expand(2, 1, 1, 9, 7).unbind(0)
    products = turned(q) @ turned(k).transpose(-2, -1)
    for offset in range(-8, 9):
        along = products[0, 0].diagonal(offset)
        torch.testing.assert_close(along, along[:1].expand_as(along))
    assert products[0, 0, 0].unique(sorted=True).numel() == 9
    torch.testing.assert_close(turned(q).norm(dim=-1), q.norm(dim=-1))
    assert turned(q)[..., -1].equal(q[..., -1])


def test_normed_queries_keep_attention_soft() -> None:
    """However large the weights grow, no product leaves ±√d."""
    norm = head_norm(32, 2, wanted=True)
    q, k = norm(1e4 * torch.randn(2, 3, 2, 5, 16)).unbind(0)
    assert (q @ k.transpose(-2, -1) / 4).abs().max() <= 4.001
    assert isinstance(head_norm(32, 2, wanted=False), nn.Identity)


@pytest.mark.parametrize("qk_norm", [False, True])
def test_attributes_are_soon_bound_to_their_nouns(qk_norm: bool) -> None:
    """ "a b c d": which of the adjectives a and c, in any order, stands before the noun asked for?

    With places added to the tokens, as small as they are usually begun, this took hundreds of
    steps; a model of pictures, taught far less directly, never learned it.
    """
    reader = Reader(TextSizes(length=4, vocabulary=16), 32, 2, qk_norm=qk_norm)
    leave = nn.Linear(32, 8)
    optimizer = torch.optim.Adam([*reader.parameters(), *leave.parameters()], 3e-3)
    mask = torch.ones(128, 4, dtype=torch.bool)
    right = torch.zeros(())
    for _ in range(120):
        colors = torch.randint(8, (128, 2))
        nouns = 8 + torch.rand(128, 8).argsort(1)[:, :2]
        text = torch.stack((colors[:, 0], nouns[:, 0], colors[:, 1], nouns[:, 1]), 1)
        which = torch.randint(2, (128,))
        states = reader(text, mask)[0][torch.arange(128), 1 + 2 * which]
        answer, asked = leave(states), colors[torch.arange(128), which]
        right = (answer.argmax(1) == asked).float().mean()
        optimizer.zero_grad()
        nn.functional.cross_entropy(answer, asked).backward()
        optimizer.step()
    assert right > 0.95


class TestReader:
    def test_padding_changes_nothing(self) -> None:
        reader = Reader(WORDS, 16, 2).eval()
        cond = told()
        other = cond["text"].clone()
        other[0, 3:] = 1
        states, _, gist = reader(cond["text"], cond["text_mask"])
        again, _, gist_again = reader(other, cond["text_mask"])
        torch.testing.assert_close(states[0, :3], again[0, :3])
        torch.testing.assert_close(gist, gist_again)
        shorter = reader(cond["text"][:1, :3], cond["text_mask"][:1, :3])
        torch.testing.assert_close(states[:1, :3], shorter[0])
        torch.testing.assert_close(gist[:1], shorter[2])

    def test_the_gist_is_the_mean_of_what_counts(self) -> None:
        reader = Reader(WORDS, 16, 1).eval()
        cond = told()
        states, _, gist = reader(cond["text"], cond["text_mask"])
        torch.testing.assert_close(gist[0], states[0, :3].mean(0))
        torch.testing.assert_close(gist[1], states[1].mean(0))

    def test_features_of_another_encoder(self) -> None:
        reader = Reader(TextSizes(length=6, width=8), 16, 1)
        states, mask, gist = reader(torch.randn(2, 4, 8), torch.ones(2, 4, dtype=torch.bool))
        assert (states.shape, mask.shape, gist.shape) == ((2, 4, 16), (2, 1, 1, 4), (2, 16))

    @pytest.mark.parametrize("text", [torch.zeros(2, 7, dtype=torch.int64), torch.randn(2, 4, 8)])
    def test_other_shapes_are_refused(self, text: Tensor) -> None:
        with pytest.raises(ShapeError, match="reads up to 6 tokens"):
            Reader(WORDS, 16, 1)(text, torch.ones(text.shape[:2], dtype=torch.bool))


class TestUNet:
    def test_words_matter_and_their_order_does(self) -> None:
        network, cond = unet(), told()
        x = torch.randn(2, 1, 16, 16)
        with torch.no_grad():
            plain = network(x, torch.zeros(2), cond)
            turned = {**cond, "text": cond["text"].flip(1), "text_mask": cond["text_mask"]}
            other = network(x, torch.zeros(2), turned)
        assert (plain - other).flatten(1).abs().amax(1).min() > 1e-3

    def test_the_gist_is_not_all_that_is_read(self) -> None:
        """Pictures attend to single words: with the gist's weights at 0 words still matter."""
        network, cond = unet(), told()
        nn.init.zeros_(network.embedding.gist.weight)  # type: ignore[union-attr,arg-type]
        x = torch.randn(2, 1, 16, 16)
        with torch.no_grad():
            other = {**cond, "text": (cond["text"] + 1) % 20}
            plain, changed = (network(x, torch.zeros(2), each) for each in (cond, other))
        assert (plain - changed).abs().max() > 1e-3

    def test_it_asks_for_what_it_needs(self) -> None:
        network = unet()
        assert {"text", "text_mask"} <= network.wants  # type: ignore[operator]
        with pytest.raises(ConfigError, match="was told no 'text'"):
            network(torch.randn(1, 1, 16, 16), torch.zeros(1), {})
        with pytest.raises(ConfigError, match="can't be told 'text'"):
            unet(None)(torch.randn(2, 1, 16, 16), torch.zeros(2), told())

    def test_without_words_nothing_is_built_for_them(self) -> None:
        assert not any(isinstance(part, CrossAttention) for part in unet(None).modules())

    def test_levels_with_more_positions_do_not_attend_to_words(self) -> None:
        count = [
            sum(isinstance(part, CrossAttention) for part in unet(words=most).modules())
            for most in (0, 4, 8)
        ]
        assert count == [0, 2, 4]


class TestTapped:
    def test_maps_are_seen_and_sum_to_one(self) -> None:
        network, cond, seen = unet(), told(), {}

        def look(where: str, weights: Tensor) -> Tensor:
            seen[where] = weights
            return weights

        x = torch.randn(2, 1, 16, 16)
        with torch.no_grad():
            plain = network(x, torch.zeros(2), cond)
            with tapped(network, look):
                tapped_out = network(x, torch.zeros(2), cond)
            after = network(x, torch.zeros(2), cond)
        torch.testing.assert_close(plain, tapped_out)
        assert torch.equal(plain, after)
        assert len(seen) == 4
        for weights in seen.values():
            torch.testing.assert_close(weights.sum(-1), torch.ones(weights.shape[:-1]))
            assert not weights[0, :, :, 3:].any()

    def test_a_changed_map_changes_the_picture(self) -> None:
        network, cond = unet(), told()
        x = torch.randn(2, 1, 16, 16)
        with torch.no_grad():
            plain = network(x, torch.zeros(2), cond)
            with tapped(network, lambda where, weights: weights * 0):
                changed = network(x, torch.zeros(2), cond)
        assert (plain - changed).abs().max() > 1e-3


@pytest.mark.parametrize("kind", ["unet", "dit", "joint", "recalling"])
def test_words_read_before_give_the_same_picture(kind: str) -> None:
    """To the bit, and without the reader."""
    sizes = Sizes(1, 16, 16, text=WORDS)
    network: nn.Module
    if kind == "unet":
        network = unet()
    elif kind == "recalling":
        network = Recalling(lambda sizes: UNet(sizes, size="tiny", width=16), sizes)
    else:
        words = "joint" if kind == "joint" else "cross"
        network = DiT(sizes, patch=4, width=32, depth=2, words=words)
    for parameter in network.parameters():
        if parameter.ndim > 1 and not parameter.any():
            nn.init.normal_(parameter, std=0.1)
    network.eval()
    x, times, cond = torch.randn(2, 1, 16, 16), torch.zeros(2), told()
    with torch.no_grad():
        expected = network(x, times, cond)
        read = network.read_once(cond)
        for parameter in (p for name, p in network.named_parameters() if "reader" in name):
            parameter.fill_(torch.nan)
        found = network(x, times, {**cond, **read})
    assert torch.equal(found, expected)


def test_a_network_that_reads_no_words_has_nothing_to_remember() -> None:
    assert unet(text=None).read_once({}) == {}
