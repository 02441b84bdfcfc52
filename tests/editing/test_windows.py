"""Pictures larger than the model's."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from couette.config import Spec
from couette.contracts import Cond, Corruption, Prediction
from couette.editing import Windowed, drawn, edits_of
from couette.errors import InputError
from editing.exactly import SHAPE, bumps, model_of, scene

T = torch.tensor(0.5, dtype=torch.float64)


class Local:
    """Answers with a blur of what it sees within a window, told its label."""

    corruption: Corruption = model_of(bumps()).denoiser.corruption

    def __init__(self) -> None:
        self.rows = list[int]()

    def __call__(self, x: Tensor, t: Tensor, cond: Cond) -> Prediction:
        self.rows.append(len(x))
        assert x.shape[-2:] == (4, 4)
        return Prediction(x * 2 + cond["label"].reshape(-1, 1, 1, 1))


@pytest.mark.parametrize("wrap", [False, True])
@pytest.mark.parametrize("size", [(4, 4), (4, 10), (7, 9), (12, 4)])
def test_windows_that_agree_are_their_mean(size: tuple[int, int], wrap: bool) -> None:
    x = torch.randn(3, 1, *size)
    label = torch.tensor([0, 1, 2])
    p = Windowed(Local(), (4, 4), (2, 2), wrap)(x, T, {"label": label})
    torch.testing.assert_close(p.x0, 2 * x + label.reshape(-1, 1, 1, 1))


def test_windows_run_in_batches_of_a_bounded_size() -> None:
    denoise = Local()
    Windowed(denoise, (4, 4), (1, 1), False)(
        torch.randn(20, 1, 9, 9), T, {"label": torch.zeros(20, dtype=torch.int64)}
    )
    assert max(denoise.rows) <= 64 and sum(denoise.rows) == 20 * 36


def test_a_tile_has_no_edge() -> None:
    """Where windows go round, a picture that is shifted round is answered with the shifted."""

    class Crooked(Local):
        def __call__(self, x: Tensor, t: Tensor, cond: Cond) -> Prediction:
            return Prediction(x.cumsum(-1))

    x = torch.randn(1, 1, 4, 8)
    cond = {"label": torch.zeros(1, dtype=torch.int64)}
    windowed = Windowed(Crooked(), (4, 4), (2, 2), True)
    once = windowed(x.roll(2, -1), T, cond).x0
    torch.testing.assert_close(once, windowed(x, T, cond).x0.roll(2, -1))


def test_a_window_of_the_whole_is_the_model() -> None:
    s = scene(model_of(bumps()), count=3)
    (edit,) = edits_of(s, Spec(name="panorama", width=4, height=2))
    (plain,) = edits_of(
        scene(model_of(bumps()), torch.zeros(1, *SHAPE), count=3),
        Spec(name="img2img", strength=(1.0,)),
    )
    torch.testing.assert_close(drawn(s, edit), drawn(s, plain), atol=1e-5, rtol=0)


def test_a_panorama_has_the_size_that_was_asked_for() -> None:
    s = scene(model_of(bumps()), count=2, steps=4)
    (edit,) = edits_of(s, Spec(name="panorama", width=11, height=3))
    assert drawn(s, edit).shape == (2, 1, 3, 11)
    with pytest.raises(InputError, match="at least as large"):
        edits_of(s, Spec(name="panorama", width=3))
    with pytest.raises(InputError, match="at most"):
        edits_of(s, Spec(name="panorama", width=10_000))
