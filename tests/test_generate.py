from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from couette.config import DiffusionConfig, ModelConfig, SamplingConfig, Spec, spec
from couette.contracts import Ask, Cond, Corruption, Denoise, Prediction
from couette.errors import ConfigError, InputError, NotFinite
from couette.generate import KeyedNoise, pictures, sampling_of, steps, times_of
from couette.model import Model, assemble, build_network
from couette.networks.unet import Lower
from couette.registry import SAMPLERS
from couette.tensors import Stream, normal
from couette.validation import parse
from worlds import DOWN

HEUN = SamplingConfig(sampler=spec("heun"), grid=spec("karras"), steps=3, guidance=2.0)


def model(
    *,
    classes: tuple[str, ...] = ("a", "b", "c"),
    codec: str = "symmetric",
    sampling: SamplingConfig = HEUN,
    network: str = "unet:size=tiny,width=16",
    side: int = 8,
    **diffusion: Any,
) -> Model:
    """A real network, small, with every weight drawn at random: a fresh one would output zeros."""
    config = ModelConfig(
        recipe="test",
        channels=1 if side > 1 else 2,
        height=side,
        width=side,
        classes=classes,
        codec=spec(codec),
        diffusion=parse(DiffusionConfig, diffusion, "a test"),
        network=Spec.model_validate(network),
        sampling=sampling,
    )
    net = build_network(config)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in net.parameters():
            weight.copy_(0.1 * torch.randn(weight.shape, generator=generator))
    return assemble(config, net.eval())


@pytest.fixture(scope="module")
def small() -> Model:
    return model()


@pytest.fixture(scope="module")
def layered() -> Model:
    """One whose network has a lower level."""
    return model(side=16)


ASKED = [Ask(i % 3) if i % 4 else Ask() for i in range(64)]


def drawn(model: Model, asked: list[Ask], **given: Any) -> Tensor:
    return torch.cat(list(pictures(model, asked, **given)))


class Recorded:
    """An editor that notes what the network's input was, and at what time."""

    def __init__(self) -> None:
        self.calls: list[tuple[Tensor, float]] = []

    def __call__(self, denoise: Denoise) -> Denoise:
        calls = self.calls

        class Watched:
            @property
            def corruption(self) -> Corruption:
                return denoise.corruption

            def __call__(self, x: Tensor, t: Tensor, cond: Cond) -> Prediction:
                calls.append((x.clone(), float(t)))
                return denoise(x, t, cond)

        return Watched()


def test_a_prediction_that_is_not_finite_ends_the_run_at_its_step(small: Model) -> None:
    class Broken:
        corruption = small.denoiser.corruption

        def __call__(self, x: Tensor, t: Tensor, cond: Cond) -> Prediction:
            return Prediction(torch.full_like(x, float("nan") if t < 0.5 else 0.0))

    sampling = HEUN.model_copy(
        update={"sampler": spec("euler"), "grid": spec("uniform"), "steps": 4}
    )
    run = steps(small, ASKED[:2], sampling=sampling, editor=lambda _: Broken())
    reached = [float(next(run).t) for _ in range(3)]
    assert reached == [0.75, 0.5, 0.25]
    with pytest.raises(NotFinite, match=r"at t = 0.25 is not finite"):
        next(run)


class TestPictures:
    @pytest.mark.parametrize("sampler", DOWN)
    def test_a_picture_is_the_same_in_any_batch(self, small: Model, sampler: str) -> None:
        """To 1e-5: sums over a batch of another size run in another order. A Runge-Kutta step over
        which sigma falls a hundredfold makes more of that, so those methods take shorter ones."""
        steps = 8 if sampler in ("pndm", "rk4", "dpm2-ancestral", "edm") else 3
        rough = {"rtol": 0.1, "atol": 0.1} if SAMPLERS.trait(sampler, "adaptive") else {}
        sampling = HEUN.model_copy(update={"sampler": spec(sampler, **rough), "steps": steps})
        given: dict[str, Any] = {"seed": 7, "sampling": sampling}
        whole = drawn(small, ASKED, batch=64, **given)
        assert whole.shape == (64, 1, 8, 8) and whole.dtype == torch.float32
        threes = drawn(small, ASKED, batch=3, **given)
        alone = drawn(small, ASKED[:5], batch=1, **given)
        assert torch.allclose(threes, whole, rtol=0, atol=1e-5)
        assert torch.allclose(alone, whole[:5], rtol=0, atol=1e-5)
        assert float((whole[0] - whole[4]).abs().max()) > 0.1  # both unasked, on other noise

    @pytest.mark.parametrize("batch", [1, 3, 64])
    def test_its_first_noise_is_bit_equal_in_any_batch(self, small: Model, batch: int) -> None:
        seen = Recorded()
        drawn(small, ASKED, seed=7, batch=batch, editor=seen)
        start = torch.cat([x for x, t in seen.calls if t == seen.calls[0][1]])
        keys = torch.stack((torch.arange(64), torch.zeros(64, dtype=torch.int64)), 1)
        expected = normal(7, keys, Stream.SAMPLING, (1, 8, 8)) * (80**2 + 1) ** 0.5
        assert torch.allclose(start, expected, rtol=1e-6, atol=0)
        whole = Recorded()
        drawn(small, ASKED, seed=7, batch=64, editor=whole)
        assert torch.equal(start, whole.calls[0][0])

    def test_the_seed_and_the_label_matter(self, small: Model) -> None:
        zero, one = (drawn(small, [Ask(0)] * 2, seed=seed) for seed in (0, 1))
        other = drawn(small, [Ask(1)] * 2, seed=0)
        assert float((zero - one).abs().max()) > 0.1
        assert float((zero - other).abs().max()) > 1e-3
        assert torch.equal(zero, drawn(small, [Ask(0)] * 2, seed=0))

    def test_are_clamped_and_need_no_gradient(self, small: Model) -> None:
        out = drawn(small, ASKED[:4], sampling=HEUN.model_copy(update={"guidance": 40.0}))
        assert float(out.abs().max()) <= 1 and not out.requires_grad

    def test_points_are_not_clamped(self) -> None:
        points = model(classes=(), network="points:hidden=16,depth=2", side=1)
        sampling = HEUN.model_copy(update={"guidance": 1.0, "steps": 1})
        *_, last = steps(points, [Ask()] * 64, sampling=sampling)
        out = drawn(points, [Ask()] * 64, sampling=sampling)
        assert out.shape == (64, 2, 1, 1)
        assert torch.equal(out, last.x)

    def test_the_unit_codec_is_undone(self) -> None:
        unit = model(codec="unit")
        *_, last = steps(unit, ASKED[:4])
        expected = (last.x * 2 - 1).clamp(-1, 1)
        assert torch.allclose(drawn(unit, ASKED[:4]), expected, rtol=0, atol=1e-6)

    @pytest.mark.parametrize("batch", [0, -1])
    def test_a_batch_below_one_is_refused(self, small: Model, batch: int) -> None:
        with pytest.raises(InputError, match="at least one picture"):
            drawn(small, ASKED, batch=batch)


class TestSteps:
    def test_no_gradient_and_no_mode_left_behind(self, small: Model) -> None:
        """`no_grad` never spans a yield: the caller's mode is the caller's."""
        assert any(weight.requires_grad for weight in small.network.parameters())
        for step in steps(small, ASKED[:2]):
            assert torch.is_grad_enabled()
            assert not step.x.requires_grad and not step.x0.requires_grad

    @pytest.mark.parametrize(("codec", "low", "high"), [("symmetric", -1, 1), ("unit", 0, 1)])
    def test_a_threshold_keeps_each_prediction(self, codec: str, low: float, high: float) -> None:
        wild = HEUN.model_copy(update={"guidance": 30.0})
        free = [step.x0 for step in steps(model(codec=codec), ASKED[1:4], sampling=wild)]
        assert max(float(x0.max()) for x0 in free) > high
        for threshold in ("static", "dynamic"):
            tame = wild.model_copy(update={"threshold": spec(threshold)})
            for step in steps(model(codec=codec), ASKED[1:4], sampling=tame):
                assert low <= float(step.x0.min()) and float(step.x0.max()) <= high

    def test_guidance_one_runs_the_network_once(self, small: Model) -> None:
        rows: list[int] = []
        handle = small.network.register_forward_pre_hook(
            lambda module, args: rows.append(args[0].shape[0])
        )
        for guidance in (1.0, 2.0):
            sampling = HEUN.model_copy(update={"guidance": guidance, "steps": 1})
            list(steps(small, ASKED[:5], sampling=sampling))
        handle.remove()
        assert rows == [5, 10]

    def test_the_order_is_network_guidance_editor_threshold(self, small: Model) -> None:
        """The network has both of guidance's passes, the editor one; the clamp comes last."""
        sampling = HEUN.model_copy(update={"threshold": spec("static"), "steps": 1})
        seen: dict[str, int] = {}
        handle = small.network.register_forward_pre_hook(
            lambda module, args: seen.update(network=args[0].shape[0])
        )

        class Raised:
            def __init__(self, denoise: Denoise) -> None:
                self.denoise, self.corruption = denoise, denoise.corruption

            def __call__(self, x: Tensor, t: Tensor, cond: Cond) -> Prediction:
                seen["editor"] = x.shape[0]
                return Prediction(self.denoise(x, t, cond).x0 + 100)

        (step,) = steps(small, ASKED[1:4], sampling=sampling, editor=Raised)
        handle.remove()
        assert seen == {"network": 6, "editor": 3}
        assert float(step.x0.min()) == float(step.x0.max()) == 1

    def test_starts_at_the_power_of_its_level(self) -> None:
        """T = 300 ends at √ᾱ = 0.22: DDPM starts from N(0, 1) all the same."""
        short = model(
            schedule="linear:steps=300",
            parameterization="eps",
            told="index",
            sampling=SamplingConfig(sampler=spec("ddim"), grid=spec("strided"), steps=2),
        )
        seen = Recorded()
        list(steps(short, [Ask()] * 64, seed=3, editor=seen))
        keys = torch.stack((torch.arange(64), torch.zeros(64, dtype=torch.int64)), 1)
        expected = normal(3, keys, Stream.SAMPLING, (1, 8, 8))
        assert torch.allclose(seen.calls[0][0], expected, rtol=1e-6, atol=0)

    def test_the_toy_mix_starts_from_uniform_noise(self) -> None:
        toy = model(
            schedule="flow",
            noise="uniform",
            parameterization="x0",
            told="constant",
            codec="unit",
            sampling=SamplingConfig(sampler=spec("mix"), grid=spec("uniform"), steps=2),
        )
        seen = Recorded()
        list(steps(toy, [Ask()] * 64, editor=seen))
        start = seen.calls[0][0]
        assert 0 <= float(start.min()) < 0.01 and 0.99 < float(start.max()) < 1

    def test_sampler_draws_are_independent_of_the_start(self) -> None:
        noise = KeyedNoise(0, torch.arange(4), (1, 32, 32), "cpu")
        one = torch.tensor(1.0)
        draws = [noise(one, one) for _ in range(3)]
        for i, a in enumerate(draws):
            for b in draws[:i]:
                # Over 4096 products the mean is N(0, 1/4096); the draws are fixed.
                assert abs(float((a * b).mean())) < 4 / 64


class TestRefusals:
    """All before the network has run once."""

    @pytest.mark.parametrize(
        ("asked", "change", "message"),
        [
            ([], {}, "at least 1"),
            ([Ask(3)], {}, "knows 0 to 2"),
            ([Ask(-1)], {}, "out of range"),
            ([Ask()], {"sampler": spec("huen")}, "did you mean 'heun'"),
            ([Ask()], {"sampler": spec("heun", eta=1)}, "no setting 'eta'"),
            ([Ask()], {"sampler": spec("ddim", eta=3)}, "takes a number of 1 at most"),
            ([Ask()], {"grid": spec("karas")}, "did you mean 'karras'"),
            ([Ask()], {"grid": spec("strided")}, "needs a table"),
        ],
    )
    def test_what_cannot_be_asked(
        self, small: Model, asked: list[Ask], change: dict[str, Any], message: str
    ) -> None:
        sampling = HEUN.model_copy(update=change)
        with pytest.raises(InputError, match=message):
            steps(small, asked, sampling=sampling)
        with pytest.raises(InputError, match=message):
            next(pictures(small, asked, sampling=sampling))

    def test_guidance_and_labels_without_classes(self) -> None:
        bare = model(classes=())
        with pytest.raises(InputError, match="trained with labels"):
            steps(bare, [Ask()])
        off = HEUN.model_copy(update={"guidance": 1.0})
        with pytest.raises(InputError, match="without labels"):
            steps(bare, [Ask(0)], sampling=off)

    def test_eps_at_pure_noise(self) -> None:
        """Where alpha is 0 the noise says nothing of the picture; karras starts below that."""
        flow = model(schedule="flow", parameterization="eps", told="time")
        even = HEUN.model_copy(update={"grid": spec("uniform")})
        with pytest.raises(InputError, match="use the grid 'karras'"):
            steps(flow, [Ask()], sampling=even)
        *_, last = steps(flow, [Ask()], sampling=HEUN)
        assert bool(last.x.isfinite().all())

    @pytest.mark.parametrize("threshold", ["static", "dynamic"])
    def test_a_threshold_of_points(self, threshold: str) -> None:
        points = model(classes=(), network="points:hidden=16,depth=2", side=1)
        sampling = HEUN.model_copy(update={"guidance": 1.0, "threshold": spec(threshold)})
        with pytest.raises(InputError, match="points have none"):
            steps(points, [Ask()], sampling=sampling)

    @pytest.mark.parametrize("guidance", [0.0, 2.0])
    @pytest.mark.parametrize("guider", ["cfg", "apg", "interval"])
    def test_guidance_of_a_model_that_always_saw_its_labels(
        self, guidance: float, guider: str
    ) -> None:
        """What it says untold was never trained: guiding by it would be guiding by noise."""
        seen = model(drop=0.0)
        sampling = HEUN.model_copy(update={"guidance": guidance, "guider": (spec(guider),)})
        with pytest.raises(InputError, match="some of them hidden"):
            steps(seen, [Ask(1)], sampling=sampling)
        perturbed = sampling.model_copy(update={"guider": (spec("perturbed"),), "steps": 1})
        (last,) = steps(seen, [Ask(1)], sampling=perturbed)
        assert bool(last.x.isfinite().all())

    def test_a_network_without_attention_can_not_be_perturbed(self) -> None:
        plain = model(network="unet:size=tiny,width=16,attention=0")
        sampling = HEUN.model_copy(update={"guider": (spec("perturbed"),)})
        with pytest.raises(InputError, match="needs a network with self-attention"):
            steps(plain, [Ask(1)], sampling=sampling)

    def test_normal_noise_on_the_toy_mix(self) -> None:
        toy = model(schedule="flow", noise="uniform", parameterization="x0", told="constant")
        sampling = SamplingConfig(sampler=spec("ddpm"), grid=spec("uniform"), steps=2)
        with pytest.raises(InputError, match="trained on uniform noise"):
            next(steps(toy, [Ask()], sampling=sampling))


class TestGuiders:
    @pytest.mark.parametrize("guider", ["apg", "cfg-zero", "perturbed", "interval"])
    def test_a_picture_is_the_same_in_any_batch(self, small: Model, guider: str) -> None:
        """What a method remembers is of one run, and of each picture alone."""
        sampling = HEUN.model_copy(update={"guider": (spec(guider),)})
        whole = drawn(small, ASKED[:12], batch=12, sampling=sampling)
        parts = drawn(small, ASKED[:12], batch=5, sampling=sampling)
        assert torch.allclose(parts, whole, rtol=0, atol=1e-5)

    def test_passes_together_or_apart(self, small: Model) -> None:
        rows: list[int] = []
        handle = small.network.register_forward_pre_hook(
            lambda module, args: rows.append(args[0].shape[0])
        )
        found = [
            drawn(small, ASKED[:5], sampling=HEUN.model_copy(update={"passes": passes, "steps": 1}))
            for passes in ("together", "apart")
        ]
        handle.remove()
        assert rows == [10, 5, 5]
        assert torch.allclose(*found, rtol=0, atol=1e-5)

    @pytest.mark.parametrize("guider", ["cfg", "apg", "interval"])
    def test_features_are_shared_by_as_many_evaluations_as_asked(
        self, layered: Model, guider: str
    ) -> None:
        """The lower level runs in every other evaluation, and the pictures stay near."""
        lower = next(part for part in layered.network.modules() if isinstance(part, Lower))
        ran: list[int] = []
        handle = lower.level.register_forward_hook(lambda *_: ran.append(1))
        settings = {"steps": 12, "sampler": spec("euler"), "guider": (spec(guider),)}
        found, counts = [], []
        for reuse in (1, 2):
            ran.clear()
            sampling = HEUN.model_copy(update={**settings, "reuse": reuse})
            found.append(drawn(layered, ASKED[:5], sampling=sampling))
            counts.append(len(ran))
        handle.remove()
        assert counts[0] == 12
        assert 6 <= counts[1] <= 7  # two numbers of rows where guidance is limited to an interval
        assert lower.reuse is None
        error = (found[0] - found[1]).square().mean().sqrt()
        assert 1e-6 < error < 0.2

    def test_the_network_is_free_between_steps(self, layered: Model) -> None:
        """Whoever pulls the steps may draw something else meanwhile, with features of its own."""
        sampling = HEUN.model_copy(update={"reuse": 3})
        alone = [step.x for step in steps(layered, ASKED[:2], sampling=sampling)]
        mixed = []
        for step in steps(layered, ASKED[:2], sampling=sampling):
            mixed.append(step.x)
            drawn(layered, ASKED[2:4], sampling=sampling)
        assert all(map(torch.equal, alone, mixed))

    def test_shared_features_do_not_depend_on_the_batch(self, layered: Model) -> None:
        sampling = HEUN.model_copy(update={"reuse": 2})
        whole = drawn(layered, ASKED[:6], batch=6, sampling=sampling)
        parts = drawn(layered, ASKED[:6], batch=4, sampling=sampling)
        assert torch.allclose(parts, whole, rtol=0, atol=1e-5)

    def test_features_that_cannot_be_shared(self, small: Model) -> None:
        with pytest.raises(ConfigError, match="leave passes together"):
            sampling_of(small, reuse=2, passes="apart")
        with pytest.raises(InputError, match=r"no lower levels .* leave out --reuse"):
            drawn(small, ASKED[:1], sampling=HEUN.model_copy(update={"reuse": 2}))

    def test_a_chain_is_checked_and_made_explicit(self, small: Model) -> None:
        sampling = sampling_of(small, guider=(spec("interval"), spec("apg", eta="0.5")))
        assert [str(each) for each in sampling.guider] == [
            "interval:low=0.28,high=2.9",
            "apg:momentum=-0.5,eta=0.5",
        ]
        with pytest.raises(InputError, match="did you mean 'momentum'"):
            sampling_of(small, guider=(spec("apg", momentun=1),))

    def test_one_method_may_be_given_bare_and_old_files_may_clip(self) -> None:
        assert SamplingConfig(guider="apg").guider == (spec("apg"),)  # type: ignore[arg-type]
        old = parse(SamplingConfig, {"clip": True}, "a file")
        assert old.threshold == spec("static")
        assert parse(SamplingConfig, {"clip": False}, "a file").threshold == spec("none")


def test_times_of_the_settings(small: Model) -> None:
    sampling = HEUN.model_copy(update={"grid": spec("uniform"), "steps": 4})
    assert times_of(small, sampling).tolist() == [1.0, 0.75, 0.5, 0.25, 0.0]
