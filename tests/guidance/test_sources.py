"""Where the two answers come from: a worse model, a blinded network, a classifier."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from couette.config import spec
from couette.contracts import Cond, Prediction
from couette.errors import InputError
from couette.guidance import Terms, gradient, guide
from couette.samplers import SAMPLERS
from guidance.labelled_mixture import LABEL, NONE, POINTS, SCHEDULES, Untold, at, mixture, terms

SCALES = [-1.0, 0.0, 0.5, 2.0, 7.0]
LEVELS = [0.05, 0.7, 6.0]


class TestClassifier:
    """With the exact p(y | x_t), Bayes' rule turns one exact answer into the other."""

    @pytest.mark.parametrize("noise", LEVELS)
    @pytest.mark.parametrize("text", SCHEDULES)
    def test_without_labels_scale_one_is_the_exact_conditional(
        self, text: str, noise: float
    ) -> None:
        """x0_u + sigma²/alpha·∇ log p(y | x_t) = x0_c."""
        world = mixture(text)
        t = at(noise, world.corruption)
        told = Terms(1.0, {}, classifier=lambda path: world.log_p)
        got = guide(Untold(world), told, [spec("classifier", run="a")])(POINTS, t, LABEL).x0
        torch.testing.assert_close(got, world(POINTS, t, LABEL).x0, rtol=1e-9, atol=1e-9)

    @pytest.mark.parametrize("scale", SCALES)
    @pytest.mark.parametrize("text", SCHEDULES)
    @pytest.mark.parametrize("labelled", [True, False])
    def test_either_kind_of_model_gives_what_classifier_free_gives(
        self, labelled: bool, text: str, scale: float
    ) -> None:
        """p(x)·p(y | x)^scale, whether the first power is the model's own or the classifier's."""
        world = mixture(text)
        t = at(0.8, world.corruption)
        given = Terms(scale, NONE if labelled else {}, classifier=lambda path: world.log_p)
        denoise = world if labelled else Untold(world)
        got = guide(denoise, given, [spec("classifier", run="a")])(POINTS, t, LABEL).x0
        free = guide(world, terms(scale, world), [spec("cfg")])(POINTS, t, LABEL).x0
        torch.testing.assert_close(got, free, rtol=1e-8, atol=1e-8)

    def test_a_whole_run_lands_where_the_conditional_lands(self) -> None:
        world = mixture("edm")
        times = torch.stack([at(noise, world.corruption) for noise in (8.0, 3.0, 1.0, 0.3, 0.1)])
        told = Terms(1.0, {}, classifier=lambda path: world.log_p)
        guided = guide(Untold(world), told, [spec("classifier", run="a")])
        x = 8 * POINTS
        ends = [list(SAMPLERS["heun"](d, x, times, LABEL, None))[-1].x for d in (guided, world)]
        torch.testing.assert_close(ends[0], ends[1], rtol=1e-8, atol=1e-8)

    def test_unasked_pictures_are_left_alone(self) -> None:
        """The number of classes itself means none."""
        world = mixture()
        t = at(1.0, world.corruption)
        told = Terms(3.0, {}, classifier=lambda path: world.log_p)
        mixed = {"label": torch.tensor([2, 1, 2, 1, 1])}
        got = guide(Untold(world), told, [spec("classifier", run="a")])(POINTS, t, mixed).x0
        nothing = world(POINTS, t, NONE).x0
        torch.testing.assert_close(got[[0, 2]], nothing[[0, 2]])
        assert float((got[3:] - nothing[3:]).abs().max()) > 0.1

    def test_works_where_gradients_are_off_and_leaves_none(self) -> None:
        world = mixture()
        t = at(1.0, world.corruption)
        told = Terms(3.0, {}, classifier=lambda path: world.log_p)
        with torch.no_grad():
            got = guide(Untold(world), told, [spec("classifier", run="a")])(POINTS, t, LABEL).x0
            assert not torch.is_grad_enabled()
        assert not got.requires_grad and not POINTS.requires_grad

    def test_the_gradient_is_that_of_the_log_probability(self) -> None:
        world = mixture()
        t, step = at(1.0, world.corruption), 1e-6
        slope = gradient(world.log_p, POINTS, t, LABEL["label"])
        for axis in range(2):
            along = torch.zeros_like(POINTS)
            along[:, axis] = step
            ends = [world.log_p(POINTS + s * along, t) for s in (1, -1)]
            rise = (ends[0] - ends[1]).gather(1, LABEL["label"][:, None])[:, 0] / (2 * step)
            torch.testing.assert_close(slope[:, axis, 0, 0], rise, rtol=1e-6, atol=1e-6)

    def test_pure_noise_is_refused(self) -> None:
        world = mixture("flow")
        told = Terms(3.0, {}, classifier=lambda path: world.log_p)
        guided = guide(Untold(world), told, [spec("classifier", run="a")])
        with pytest.raises(InputError, match="use the grid 'karras'"):
            guided(POINTS, torch.tensor(1.0, dtype=torch.float64), LABEL)

    def test_uniform_noise_is_refused(self) -> None:
        """The rule is Bayes' for normal noise only."""
        world = mixture("flow")
        world.corruption = world.corruption._replace(noise="uniform")
        with pytest.raises(InputError, match="holds for normal noise"):
            guide(world, terms(2, world), [spec("classifier", run="a")])


class TestAuto:
    @pytest.mark.parametrize("scale", SCALES)
    def test_is_the_formula(self, scale: float) -> None:
        world, worse = mixture(), mixture(shifted=0.4)
        t = at(1.0, world.corruption)
        got = guide(world, terms(scale, world, worse), [spec("auto", run="a")])(POINTS, t, LABEL)
        good, bad = (each(POINTS, t, LABEL).x0 for each in (world, worse))
        torch.testing.assert_close(got.x0, bad + scale * (good - bad), rtol=1e-12, atol=1e-12)

    @pytest.mark.parametrize("scale", SCALES)
    def test_by_itself_it_is_the_identity(self, scale: float) -> None:
        world = mixture()
        t = at(1.0, world.corruption)
        got = guide(world, terms(scale, world), [spec("auto", run="a")])(POINTS, t, LABEL)
        assert torch.equal(got.x0, world(POINTS, t, LABEL).x0)


class TestPerturbed:
    def test_is_the_formula(self) -> None:
        """Ahn et al.: eps + s·(eps − eps_p), s = scale − 1."""
        world = mixture()

        class Blinded:
            corruption = world.corruption

            def __call__(self, x: Tensor, t: Tensor, cond: Cond) -> Prediction:
                x0 = world(x, t, cond).x0
                return Prediction(torch.where(cond["perturb"].reshape(-1, 1, 1, 1), 0.5 * x0, x0))

        t = at(1.0, world.corruption)
        got = guide(Blinded(), Terms(3.0, NONE), [spec("perturbed")])(POINTS, t, LABEL).x0
        x0 = world(POINTS, t, LABEL).x0
        torch.testing.assert_close(got, x0 + 2 * (x0 - 0.5 * x0), rtol=1e-12, atol=1e-12)
