import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from couette.contracts import Sizes
from couette.errors import ConfigError, ShapeError
from couette.networks.common import label, refuse_unknown, require_multiple


def test_known_keys_pass() -> None:
    row = torch.zeros(1)
    refuse_unknown({}, frozenset())
    refuse_unknown({}, frozenset({"label"}))
    refuse_unknown({"label": row}, frozenset({"label", "text"}))


def test_an_unknown_key_names_the_near_miss() -> None:
    with pytest.raises(ConfigError, match="did you mean 'label'"):
        refuse_unknown({"lable": torch.zeros(1)}, frozenset({"label"}))


def test_an_unknown_key_without_a_near_miss_says_what_is_known() -> None:
    with pytest.raises(ConfigError, match=r"nothing but the time and can't be told 'text'"):
        refuse_unknown({"text": torch.zeros(1)}, frozenset())


def test_a_missing_label_says_what_to_give() -> None:
    with pytest.raises(ConfigError, match="one per picture"):
        label({})
    assert label({"label": torch.tensor([7])}).tolist() == [7]


@given(st.integers(0, 100), st.integers(0, 100), st.integers(0, 5))
def test_sides_are_refused_exactly_where_they_do_not_divide(
    height: int, width: int, power: int
) -> None:
    multiple = 2**power
    fits = height > 0 and width > 0 and height % multiple == 0 and width % multiple == 0
    if fits:
        require_multiple(Sizes(1, height, width), multiple, "net")
    else:
        with pytest.raises(ShapeError, match=f"multiples of {multiple}"):
            require_multiple(Sizes(1, height, width), multiple, "net")


def test_the_refusal_names_the_nearest_size() -> None:
    with pytest.raises(ShapeError, match="28×36 would do"):
        require_multiple(Sizes(1, 27, 37), 4, "basic")
