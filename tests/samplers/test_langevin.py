from __future__ import annotations

import pytest
import torch

from couette.contracts import Corruption
from worlds import Crooked, Gaussian, OneHot, draw, numbered, run, schedule


@pytest.mark.parametrize("on", ["linear", "edm", "flow"])
@pytest.mark.parametrize("corrections", [1, 3])
def test_is_song_written_out(on: str, corrections: int) -> None:
    """ddpm's step, then x ← x + ε·score + sqrt(2ε)·z with ε = 2·snr²·sigma²."""
    s, x, z = schedule(on), draw(3, 2), numbered(3, 2)
    times, denoise = torch.linspace(0.9, 0, 6, dtype=torch.float64), Crooked(Corruption(s))
    out = run("langevin", denoise, x, times, numbered(3, 2), corrections=corrections, snr=0.2)
    for i in range(5):
        x = run("ddpm", denoise, x, times[i : i + 2], z)[0].x
        alpha, sigma = s.level(times[i + 1])
        for _ in range(corrections if i < 4 else 0):
            score = (alpha * denoise(x, times[i + 1], {}).x0 - x) / sigma**2
            step = 2 * 0.2**2 * sigma**2
            x = x + step * score + (2 * step).sqrt() * z(times[i + 1], times[i + 1])
        assert torch.allclose(out[i].x, x, rtol=1e-9, atol=1e-9)


def test_the_step_is_songs_where_x_is_mostly_noise() -> None:
    """ε = 2·(snr·‖z‖/‖score‖)², from the norms of a batch of large pictures high up, is within 5 %
    of the one taken here."""
    denoise = Gaussian(schedule("edm"), 0.0, 0.5)
    t = torch.tensor(0.7).double()
    level = denoise.corruption.schedule.level(t)
    x = draw(8, 3, 64, 64) * denoise.variance(level).sqrt()
    score = (denoise(x, t, {}).x0 - x) / level.sigma**2
    z = draw(8, 3, 64, 64, seed=1)
    songs = 2 * (0.16 * z.flatten(1).norm(dim=1).mean() / score.flatten(1).norm(dim=1).mean()) ** 2
    assert float(songs) == pytest.approx(float(2 * 0.16**2 * level.sigma**2), rel=0.05)


def test_corrections_mend_what_a_few_steps_got_wrong() -> None:
    """The variance of N(0, 0.5²) after 30 ancestral steps on the flow: too small, and closer with
    every correction."""
    denoise = Gaussian(schedule("flow"), 0.0, 0.5)
    times, errors = torch.linspace(1, 0, 31, dtype=torch.float64), []
    for corrections in (0, 1, 4):
        x = torch.zeros(200, 1, dtype=torch.float64)
        x[0] = 1
        end = run("langevin", denoise, x, times, OneHot(x), corrections=corrections)[-1].x
        errors.append(1 - float(end.square().sum()) / 0.25)
    assert errors[0] > errors[1] > errors[2] > 0
