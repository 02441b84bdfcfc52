import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from couette.errors import ShapeError
from couette.render.pixels import enlarged, factor_for, to_rgb
from couette.render.style import NOT_A_NUMBER


def test_every_byte_survives_the_way_through_floats():
    levels = torch.arange(256, dtype=torch.uint8).reshape(1, 1, 16, 16)
    shown = to_rgb(levels.float() / 127.5 - 1)
    assert np.array_equal(shown[0, :, :, 0], levels[0, 0].numpy())
    assert np.array_equal(shown, to_rgb(levels))


def test_values_outside_the_range_are_clipped():
    shown = to_rgb(torch.tensor([-3.0, -1.0, 0.0, 1.0, 7.0]).reshape(1, 1, 1, 5))
    assert shown[0, 0, :, 0].tolist() == [0, 0, 128, 255, 255]


def test_stretching_uses_the_ends_of_the_whole_batch():
    pictures = torch.tensor([[-4.0, -2.0], [0.0, 4.0]]).reshape(2, 1, 1, 2)
    shown = to_rgb(pictures, "stretch")
    assert shown[..., 0].ravel().tolist() == [0, 64, 128, 255]


@pytest.mark.parametrize("show", ["clip", "stretch"])
def test_values_that_are_not_finite_show_in_a_colour_of_their_own(show):
    picture = torch.tensor([-1.0, float("nan"), float("inf"), 1.0]).reshape(1, 1, 1, 4)
    shown = to_rgb(picture, show)[0, 0]
    assert [tuple(pixel) for pixel in shown.tolist()] == [
        (0, 0, 0),
        NOT_A_NUMBER,
        NOT_A_NUMBER,
        (255, 255, 255),
    ]


def test_a_batch_without_a_finite_value_is_shown():
    shown = to_rgb(torch.full((1, 3, 2, 2), float("nan")), "stretch")
    assert (shown == np.array(NOT_A_NUMBER)).all()


@pytest.mark.parametrize("channels, expected", [(1, (9, 9, 9)), (3, (9, 8, 7)), (4, (9, 8, 7))])
def test_channels_become_colours(channels, expected):
    picture = torch.tensor([9, 8, 7, 6], dtype=torch.uint8)[:channels].reshape(1, channels, 1, 1)
    assert tuple(to_rgb(picture)[0, 0, 0].tolist()) == expected


def test_gray_and_colour_stand_in_one_row():
    shown = to_rgb([torch.ones(1, 2, 2), -torch.ones(3, 2, 2)])
    assert shown.shape == (2, 2, 2, 3)
    assert (shown[0] == 255).all()
    assert (shown[1] == 0).all()


def test_half_precision_is_shown():
    picture = torch.full((1, 1, 1, 1), 0.5)
    for dtype in (torch.float16, torch.bfloat16, torch.float64):
        assert to_rgb(picture.to(dtype))[0, 0, 0, 0] == round(0.75 * 255)


@pytest.mark.parametrize(
    "pictures, words",
    [
        (torch.zeros(0, 1, 4, 4), "no pictures"),
        (torch.zeros(2, 1, 0, 4), "no pictures"),
        (torch.zeros(4, 4), "(4, 4)"),
        ([torch.zeros(4, 4)], "(4, 4)"),
        ([torch.zeros(1, 4, 4), torch.zeros(1, 5, 4)], "5×4"),
    ],
)
def test_what_is_no_picture_is_refused(pictures, words):
    with pytest.raises(ShapeError, match=words.replace("(", r"\(").replace(")", r"\)")):
        to_rgb(pictures)


def test_enlarging_makes_squares():
    picture = np.arange(12, dtype=np.uint8).reshape(2, 2, 3)
    large = enlarged(picture, 3)
    assert large.shape == (6, 6, 3)
    assert np.array_equal(large[::3, ::3], picture)
    assert np.array_equal(large[2::3, 2::3], picture)


@given(st.integers(1, 2000), st.integers(1, 2000), st.integers(1, 50))
def test_the_factor_reaches_the_size_unless_there_is_no_room(height, width, across):
    factor = factor_for(height, width, least=84, across=across, room=1800)
    assert factor >= 1
    assert factor == 1 or factor * width * across <= 1800
    if factor > 1:
        assert (factor - 1) * max(height, width) < 84
    reached = factor * max(height, width) >= 84
    assert reached or (factor + 1) * width * across > 1800
