"""What training minimises, and that it learns."""

from __future__ import annotations

import math
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from couette import api
from couette.config import DiffusionConfig, ModelConfig, TrainingConfig, spec
from couette.contracts import Batch, Sizes
from couette.denoiser import build_denoiser
from couette.discrete import KINDS, CategoricalObjective, Characters, bits
from couette.discrete.objective import objective_for
from couette.errors import ConfigError, InputError, ShapeError
from couette.generate import KeyedNoise
from couette.model import build_network
from couette.recipes import RECIPES
from couette.registry import NETWORKS, SAMPLERS
from couette.tensors import uniform
from couette.training import DiffusionObjective, Trainer
from couette.training.plan import Plan
from couette.validation import parse
from discrete.joint import Joint
from small_runs import Settings, digests, losses, session


def config(noise: str, schedule: str = "flow", **more: Any) -> DiffusionConfig:
    fields = {"noise": noise, "schedule": schedule, "parameterization": "x0", "times": "uniform"}
    return parse(DiffusionConfig, {**fields, "told": "time:scale=1", **more}, "a test")


class Exact(torch.nn.Module):
    """The world's ideal denoiser where a trained one would be."""

    def __init__(self, world: Joint) -> None:
        super().__init__()
        self.world, self.network = world, torch.nn.Identity()
        self.corruption = world.corruption

    def __call__(self, x: Tensor, t: Tensor, cond: object) -> Any:
        rows = [self.world(x[i : i + 1], t[i], {}).x0 for i in range(len(x))]
        return self.world(x[:1], t[0], {})._replace(x0=torch.cat(rows))


@pytest.mark.parametrize("schedule", ["flow", "cosine:steps=50"])
@pytest.mark.parametrize("noise", list(KINDS))
def test_the_loss_of_the_exact_denoiser_is_the_entropy(noise: str, schedule: str) -> None:
    """In continuous time its mean; a table of 50 is a little above. 4 standard errors."""
    world, n = Joint(noise), 1000
    settings = config(noise, schedule)
    world.corruption = build_denoiser(settings, torch.nn.Identity()).corruption
    objective = CategoricalObjective(Exact(world), settings, {}, seed=1)  # type: ignore[arg-type]
    index = torch.multinomial(
        world.table, n, replacement=True, generator=torch.Generator().manual_seed(5)
    )
    keys = torch.stack((torch.arange(n), torch.zeros(n, dtype=torch.int64)), 1)
    even = (uniform(1, keys, 77).double() + torch.arange(n)) / n  # stratified: less spread
    batch = Batch(world.all[index].float(), {}, keys)
    times = objective.times(world.corruption.schedule, even.clamp(1e-4, 1 - 1e-4))
    found = objective.at(batch, times)
    above = found.loss.double() + world.table[index].log() / 2
    error = float(above.std()) / math.sqrt(n)
    assert -4 * error < float(above.mean()) < 4 * error + (0 if schedule == "flow" else 0.02)
    assert torch.allclose(found.logs["bits"] * math.log(2), found.loss.float())
    assert not found.logs["bits"].requires_grad


def test_cross_entropy_is_added() -> None:
    network = NETWORKS.build(spec("tokens", width=8), Sizes(3, 1, 4))
    plain, more = (
        CategoricalObjective(build_denoiser(settings, network), settings, {}, 0)
        for settings in (config("multinomial"), config("multinomial", cross_entropy=0.5))
    )
    keys = torch.tensor([[0, 0], [1, 0]])
    x0 = torch.eye(3)[torch.tensor([[0, 1, 2, 0], [2, 2, 1, 1]])].permute(0, 2, 1)[:, :, None]
    a, b = (each(Batch(x0, {}, keys)) for each in (plain, more))
    # A fresh network says nothing: its cross-entropy is log 3 a position.
    assert torch.allclose(a.logs["error"], torch.full((2,), math.log(3)))
    assert torch.allclose(b.loss - a.loss, 0.5 * a.logs["error"])


def test_draws_depend_on_the_sample_alone() -> None:
    settings = config("absorbing")
    torch.manual_seed(0)
    network = NETWORKS.build(spec("tokens", width=8), Sizes(3, 1, 4))
    torch.nn.init.normal_(network.leave.weight)
    objective = CategoricalObjective(build_denoiser(settings, network), settings, {}, 0)
    keys = torch.stack((torch.arange(6), torch.zeros(6, dtype=torch.int64)), 1)
    x0 = torch.eye(3)[torch.arange(24).reshape(6, 4) % 3].permute(0, 2, 1)[:, :, None]
    whole = objective(Batch(x0, {}, keys)).loss
    parts = [objective(Batch(x0[i : i + 2], {}, keys[i : i + 2])).loss for i in (0, 2, 4)]
    assert torch.allclose(torch.cat(parts), whole, rtol=1e-5)


def test_gaussian_noise_keeps_its_objective() -> None:
    settings = DiffusionConfig()
    denoiser = build_denoiser(settings, torch.nn.Identity())  # type: ignore[arg-type]
    assert type(objective_for(denoiser, settings, {}, 0)) is DiffusionObjective


class TestRefused:
    @pytest.mark.parametrize(
        ("fields", "words"),
        [
            ({"noise": "absorbing"}, "set parameterization x0"),
            ({"noise": "absorbing", "parameterization": "x0", "offset": 0.1}, "leave out offset"),
            ({"noise": "absorbing", "parameterization": "x0", "loss": "pseudo-huber"}, "out loss"),
            ({"noise": "absorbing", "parameterization": "eps"}, "set parameterization x0"),
            (
                {"noise": "multinomial", "parameterization": "x0", "weighting": "edm"},
                "weighting uniform",
            ),
            ({"cross_entropy": 0.1}, "absorbing or multinomial noise alone"),
            ({"noise": "masked"}, "absorbing"),
        ],
    )
    def test_settings_that_contradict_each_other(self, fields: Any, words: str) -> None:
        with pytest.raises(ConfigError, match=words):
            parse(DiffusionConfig, fields, "a test")

    def test_a_schedule_without_shares(self) -> None:
        with pytest.raises(ConfigError, match="choose flow"):
            build_denoiser(config("absorbing", "edm"), torch.nn.Identity())  # type: ignore[arg-type]

    def test_colour(self) -> None:
        fields: dict[str, Any] = {"recipe": "absorbing", "height": 8, "width": 8}
        recipe = RECIPES["absorbing"]()
        model = ModelConfig(
            **fields,
            channels=3,
            codec=recipe.codec,
            diffusion=recipe.diffusion,
            network=spec("unet"),
            sampling=recipe.sampling,
        )
        with pytest.raises(ShapeError, match=r"--data\.color gray"):
            build_network(model)

    def test_another_sampler(self, tmp_path: Path) -> None:
        settings: Settings = {
            "data": {"source": "digits", "limit": 20},
            "network": "unet:size=tiny,width=16,blocks=1",
        }
        settings["sampling"] = {"sampler": "ddim"}
        with pytest.raises(InputError, match="'ddim' does not go with absorbing noise"):
            session(tmp_path, settings, recipe="absorbing", length={"steps": 1})


@pytest.mark.parametrize("recipe", ["absorbing", "multinomial"])
def test_a_run_dropped_and_resumed_equals_the_unbroken_one(tmp_path: Path, recipe: str) -> None:
    settings = {
        "data": {"source": "digits", "limit": 40},
        "network": "unet:size=tiny,width=16,blocks=1",
        "training": {"batch": 16, "save_every": 2},
        "sampling": {"steps": 3},
    }
    more: dict[str, Any] = {"recipe": recipe, "length": {"steps": 4}}
    whole = losses(session(tmp_path / "whole", settings, **more))
    parts = losses(session(tmp_path / "parts", settings, **more), stop_after=3)
    parts |= losses(session(tmp_path / "parts", {}, resume=True))
    assert parts == whole
    assert digests(tmp_path / "parts") == digests(tmp_path / "whole")
    drawn = api.sample(tmp_path / "whole", count=3, label="each", steps=2)
    assert drawn.shape == (3, 1, 16, 16)


class TestText:
    LINES = ("a bee sees", "bees see a", "a sea bee", "see a bee", "sea bees")

    def test_round_trip(self) -> None:
        text = Characters(self.LINES)
        assert (text.alphabet, text.length) == ([" ", "a", "b", "e", "s"], 10)
        x = text.encode(self.LINES)
        assert x.shape == (5, 5, 1, 10)
        assert [line.rstrip() for line in text.decode(x)] == list(self.LINES)
        assert text.decode(torch.zeros(1, 5, 1, 10)) == ["_" * 10]

    def test_what_it_does_not_know_is_refused(self) -> None:
        text = Characters(self.LINES)
        with pytest.raises(InputError, match="'u' is not in the alphabet"):
            text.encode(["buzz"])
        with pytest.raises(InputError, match="11 characters is longer than 10"):
            text.encode(["a" * 11])
        with pytest.raises(InputError, match="no text"):
            Characters([""])

    def test_learns_which_character_follows_which(self) -> None:
        """Lines of a grammar: consonant, vowel, consonant, vowel, … and one consonant a line."""
        generator = torch.Generator().manual_seed(0)
        picks = torch.randint(0, 3, (400, 5), generator=generator).tolist()
        lines = ["".join("bdg"[row[0]] + "aei"[each] for each in row[1:]) for row in picks]
        text = Characters(lines)
        x0, settings = text.encode(lines), config("absorbing")
        torch.manual_seed(0)
        sizes = Sizes(len(text.alphabet), 1, text.length)
        network = NETWORKS.build(spec("tokens", width=32, depth=2), sizes)
        denoiser = build_denoiser(settings, network)
        training = TrainingConfig(steps=250, batch=64, lr=3e-3, warmup=20, decay="linear")

        def batch(step: int) -> Batch:
            index = (64 * step + torch.arange(64)) % len(lines)
            keys = torch.stack((index, torch.full_like(index, step)), 1)
            return Batch(x0[index], {}, keys)

        objective = CategoricalObjective(denoiser, settings, {}, 0)
        trainer = Trainer(objective, batch, training, Plan(training, len(lines)))
        for _ in trainer.run():
            pass
        network.eval()
        count = 60
        times = torch.linspace(1, 0, 33, dtype=torch.float64)
        noise = KeyedNoise(0, torch.arange(count), x0.shape[1:], "cpu", "absorbing")
        start = KINDS["absorbing"].start(noise(times[0], times[0]))
        with torch.no_grad():
            *_, last = SAMPLERS["categorical"](denoiser, start, times, {}, noise)
        drawn = text.decode(last.x)
        pairs = Counter(line[i : i + 2] for line in drawn for i in range(0, 8, 2))
        lawful = sum(n for pair, n in pairs.items() if pair[0] in "bdg" and pair[1] in "aei")
        one = sum(len(set(line[::2])) == 1 for line in drawn)
        assert lawful >= 0.97 * sum(pairs.values())
        assert one >= 54  # by chance 1 in 27
        assert len(set(drawn)) > 40  # and not by saying one line again and again
        # The truth is log2(3^5)/8 = 0.99 bits; a model of single characters needs log2(3) = 1.58.
        found = float(bits(denoiser, x0[:count], times, {}, noise).mean())
        assert 0.97 < found < 1.15
