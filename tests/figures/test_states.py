from __future__ import annotations

import pytest
import torch

from couette.config import spec
from couette.discrete import KINDS
from couette.errors import ConfigError, InputError
from couette.figures import pictures, resolve, topics_for
from couette.figures.states import chain
from couette.registry import SCHEDULES
from couette.schedules import Mixture


def test_draws_pictures_matrices_and_rates() -> None:
    made = pictures(resolve("absorbing", data="digits"), "states", {"columns": 2})
    assert [each.name for each in made] == ["states", "transitions", "rates"]


@pytest.mark.parametrize("noise", list(KINDS))
def test_the_chain_ends_where_the_closed_form_does(noise: str) -> None:
    """The share of pixels that are still their own, over 16,384 of them; 4 standard errors."""
    mixture, kind = Mixture(SCHEDULES.build(spec("flow"))), KINDS[noise]
    x0 = torch.zeros(4, 4, 64, 64)
    x0[:, 1] = 1
    walk = chain(kind, x0, torch.arange(4), mixture, seed=0)
    for place in (25, 50, 100):
        level = mixture.level(torch.tensor(place / 100, dtype=torch.float64))
        share = float(kind.after(x0[:, :, :1, :1], level).states[0, 1])
        error = (share * (1 - share) / 16_384) ** 0.5
        assert float(walk[place][:, 1].mean()) == pytest.approx(share, abs=4 * error + 1e-9)


def test_states_have_no_pictures_of_added_noise() -> None:
    recipe = resolve("multinomial")
    assert "states" in topics_for(recipe, usual=True)
    assert not {"noising", "predictions"} & set(topics_for(recipe))
    assert "states" not in topics_for(resolve("ddpm", data="digits"), usual=True)
    with pytest.raises(InputError, match="Multinomial noise replaces states"):
        pictures(recipe, "noising")


def test_what_can_not_be_drawn_is_refused() -> None:
    with pytest.raises(ConfigError, match="choose flow"):
        pictures(resolve("digits"), "states", {"schedule": spec("edm")})
    with pytest.raises(InputError, match="There is no picture"):
        pictures(resolve("digits"), "states", {"first": 10**6})
