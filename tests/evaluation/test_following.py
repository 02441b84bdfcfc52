"""Prompts followed: a network that knows the answers gets all of it right, an untrained one not."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from couette.conditioners import Words
from couette.config import DiffusionConfig, ModelConfig, SamplingConfig, TextConfig, spec
from couette.contracts import Cond
from couette.data.shapes import KINDS, SEEN, compose, draw, drawn, prompts
from couette.data.tokenizer import Tokenizer
from couette.evaluation.following import following, varied, variety
from couette.evaluation.report import Followed
from couette.model import Model, Parts, assemble, build_network

SIDE, COUNT, LENGTH = 32, 12, 32
TOKENIZER = Tokenizer.learned(drawn(200).texts or (), 500)


class Knowing(nn.Module):
    """Answers every prompt that it was shown with a scene of which it is true, at any noise."""

    wants = frozenset({"text", "text_mask"})

    def __init__(self, wrong: str | None = None) -> None:
        super().__init__()
        words, self.known = Words(TOKENIZER, LENGTH), dict[tuple[int, ...], Tensor]()
        for kind in KINDS:
            asked = prompts(kind, COUNT)
            scenes = [each.scene for each in asked]
            if kind == wrong:  # each prompt is answered with the picture of the next
                scenes = scenes[1:] + scenes[:1]
            pictures = draw(scenes, SIDE).permute(0, 3, 1, 2) / 127.5 - 1
            for row, picture in zip(
                words([each.text for each in asked])["text"], pictures, strict=True
            ):
                self.known[tuple(row.tolist())] = picture

    def forward(self, x: Tensor, told: Tensor, cond: Cond) -> Tensor:
        blank = torch.zeros_like(x[0])
        return torch.stack([self.known.get(tuple(r.tolist()), blank) for r in cond["text"]])


def model(network: nn.Module | None = None) -> Model:
    config = ModelConfig(
        recipe="text-to-image",
        channels=3,
        height=SIDE,
        width=SIDE,
        codec=spec("symmetric"),
        diffusion=DiffusionConfig(
            schedule=spec("flow"), parameterization=spec("x0"), told=spec("time")
        ),
        text=TextConfig(encoder="learned", vocabulary=TOKENIZER.size, length=LENGTH),
        network=spec("unet", size="tiny", width=16, reading=1),
        sampling=SamplingConfig(sampler=spec("euler"), grid=spec("uniform"), steps=2),
    )
    torch.manual_seed(0)
    return assemble(config, network or build_network(config).eval(), None, Parts(TOKENIZER))


def test_all_of_it_is_right_where_the_answers_are_known() -> None:
    found = following(model(Knowing()), count=COUNT)
    assert list(found) == list(KINDS)
    for tallies in found.values():
        assert tallies["right"] == (COUNT, COUNT)
        assert {"color", "shape", "both", "number"} <= tallies.keys()
    assert found["relation"]["relation"].asked == COUNT


def test_the_answers_of_other_prompts_are_wrong() -> None:
    found = following(model(Knowing(wrong="relation")), count=COUNT, kinds=("one", "relation"))
    assert found["one"]["right"].share == 1
    assert found["relation"]["both"].share < 0.4


def test_an_untrained_network_follows_nothing() -> None:
    found = following(model(), count=COUNT, kinds=("two",))
    assert found["two"]["both"].right == 0


def test_a_batch_makes_no_difference() -> None:
    one, all_ = (
        following(model(Knowing()), count=5, kinds=("seen",), batch=batch) for batch in (2, 5)
    )
    assert one == all_


def test_it_says_itself() -> None:
    found = Followed(
        model="average", count=200, sampling="heun", shares={"two": {"color": 0.99, "both": 0.875}}
    )
    assert found.lines() == [
        "Prompts followed by the average (200 of each; heun):",
        "  two: color 99%, both 88%.",
    ]
    open_ = {"background": 0.5, "size": 0.25, "place": 0.125}
    more = found.model_copy(update={"varied": open_, "scenes": open_})
    assert more.lines()[-1].startswith("  Pictures of one prompt differ in background in 50% of")


def test_variety_is_counted_by_pairs_of_one_prompt() -> None:
    one = [("black", "small", 0.2, 0.2), ("black", "large", 0.2, 0.6), ("navy", "large", 0.5, 0.2)]
    found = varied([one, [("white", None, 0.5, 0.5)]])
    assert found.background == pytest.approx(2 / 3)
    assert found.size == pytest.approx(2 / 3)
    assert found.place == pytest.approx((0.4 + 0.3 + 0.5) / 3)
    assert varied([one[:1]]) == (0, 0, 0)


def test_a_model_that_knows_one_picture_of_a_prompt_has_no_variety() -> None:
    network = Knowing()
    for number, (color, shape) in enumerate(SEEN[::25][:2]):
        (scene,) = compose(range(number, number + 1), kind="one", pairs=[(color, shape)])
        row = Words(TOKENIZER, LENGTH)([f"a {color} {shape}"])["text"][0]
        picture = draw([scene], SIDE).permute(0, 3, 1, 2)[0] / 127.5 - 1
        network.known[tuple(row.tolist())] = picture
    own, scenes = variety(model(network), count=2, each=8)
    assert own == (0, 0, 0)
    assert scenes.background > 0.5 and scenes.size > 0.4 and scenes.place > 0.2
    untrained, _ = variety(model(), count=2, each=4)
    assert untrained == (0, 0, 0)
