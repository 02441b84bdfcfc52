from __future__ import annotations

import pytest
import torch

from couette.contracts import Sizes
from couette.errors import ConfigError
from couette.networks.encoder import Encoder


def encoder(height: int = 16, width: int = 16, classes: int = 5) -> Encoder:
    torch.manual_seed(0)
    network = Encoder(Sizes(1, height, width, classes), width=16).eval()
    for parameter in network.parameters():  # residual branches begin as nothing
        parameter.data.add_(0.1 * torch.randn(parameter.shape))
    return network


@pytest.mark.parametrize("sides", [(16, 16), (28, 28), (9, 30), (1, 1)])
def test_gives_a_logit_for_each_class(sides: tuple[int, int]) -> None:
    out = encoder(*sides)(torch.randn(3, 1, *sides), torch.tensor([0.0, 0.5, 1.0]), {})
    assert out.shape == (3, 5)


def test_is_told_the_time() -> None:
    network = encoder()
    x = torch.randn(1, 1, 16, 16).expand(2, -1, -1, -1)
    with torch.no_grad():
        out = network(x, torch.tensor([-1.0, 1.0]), {})
    assert (out[0] - out[1]).abs().max() > 1e-4


def test_rows_do_not_see_each_other() -> None:
    network = encoder()
    x, told = torch.randn(3, 1, 16, 16), torch.zeros(3)
    with torch.no_grad():
        whole = network(x, told, {})
        torch.testing.assert_close(network(x[1:2], told[:1], {}), whole[1:2], rtol=1e-4, atol=1e-5)


def test_halves_while_there_is_room() -> None:
    assert [len(encoder(side, side).levels) for side in (8, 16, 32)] == [1, 2, 3]


def test_pictures_without_labels_are_refused() -> None:
    with pytest.raises(ConfigError, match="data with labels"):
        encoder(classes=0)


def test_a_label_is_refused() -> None:
    with pytest.raises(ConfigError, match="can't be told 'label'"):
        encoder()(torch.zeros(1, 1, 16, 16), torch.zeros(1), {"label": torch.zeros(1)})
