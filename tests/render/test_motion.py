import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from couette.errors import InputError, ShapeError
from couette.render.files import save_gif
from couette.render.motion import filmstrip, reverse_frames, spread


@given(st.integers(1, 500), st.integers(2, 40))
def test_spread_keeps_both_ends_and_is_even(count, shown):
    chosen = spread(count, shown)
    assert chosen[0] == (0 if count > 1 else count - 1)
    assert chosen[-1] == count - 1
    assert len(chosen) == min(count, shown)
    gaps = np.diff(chosen)
    assert gaps.size == 0 or gaps.max() - gaps.min() <= 1


def test_one_moment_is_the_last():
    assert spread(10, 1) == [9]
    assert spread(0, 5) == []


def moments(count, pictures=4):
    return [torch.full((pictures, 1, 3, 3), i / count) for i in range(count)]


def test_frames_are_of_one_size_and_become_a_gif(tmp_path):
    titles = ["t = 1", "a title that is much longer than the sheet is wide", ""]
    frames = reverse_frames(moments(3), titles=titles, scale=2)
    assert len({frame.size for frame in frames}) == 1
    save_gif(frames, tmp_path / "a.gif", fps=5, hold_last=3)
    with Image.open(tmp_path / "a.gif") as image:
        assert image.n_frames == 3


def test_a_filmstrip_shows_the_moments_in_columns():
    sheet = np.asarray(filmstrip(moments(11, pictures=2), shown=3, scale=4))
    values = [round((v + 1) / 2 * 255) for v in (0, 5 / 11, 10 / 11)]
    across = [int(sheet[8, 6 + i * 16, 0]) for i in range(3)]
    assert across == values
    assert [int(v) for v in sheet[8 + 16, 6::16, 0][:3]] == values


def test_what_does_not_fit_is_refused():
    with pytest.raises(ShapeError, match="at least one"):
        reverse_frames([])
    with pytest.raises(ShapeError, match="as many pictures"):
        filmstrip([torch.zeros(2, 1, 3, 3), torch.zeros(3, 1, 3, 3)])
    with pytest.raises(InputError, match="2 titles for 3"):
        filmstrip(moments(3), titles=["a", "b"])
    with pytest.raises(InputError, match="4 titles for 3"):
        reverse_frames(moments(3), titles=list("abcd"))
