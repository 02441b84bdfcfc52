import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from couette.codecs import Unit
from couette.contracts import Ask
from couette.errors import InputError
from couette.figures import draw, journal, pictures, resolve
from couette.figures.asked import asks, moments, walk_of
from couette.figures.dye import stirred
from couette.figures.forward import corruption_of, even_times
from couette.figures.predictions import compared, look, sweep
from couette.figures.reverse import matching
from couette.figures.schedule import levels_of
from couette.generate import finished, steps
from couette.networks.plan import count_parameters
from couette.render import read_text, to_rgb
from couette.runs import RunFolder
from couette.schedules import EDM, Linear


def names(target: str | None, topic: str, **settings: object) -> list[str]:
    return [picture.name for picture in pictures(resolve(target), topic, settings)]


def test_noising_draws_its_parts_and_naive_one_more() -> None:
    assert names("digits", "noising", schedule="linear:steps=20") == ["noising", "clipped", "chain"]
    wrong = pictures(resolve("digits"), "noising", {"schedule": "linear", "naive": True})[-1]
    assert wrong.name == "naive"
    assert "Only the last row is q(x_t | x_0)" in wrong.notes[0]


def test_the_toy_mix_has_no_chain(toy: Path) -> None:
    assert names(str(toy), "noising") == ["noising", "clipped"]


def test_a_table_that_ends_early_is_marked() -> None:
    said = [note for each in pictures(resolve(None), "schedule") for note in each.notes]
    assert any("T = 300 ends at √ᾱ = 0.22" in note for note in said)
    first = pictures(resolve("digits"), "noising", {"schedule": "linear:steps=300"})[0]
    assert "√ᾱ = 0.22" in first.notes[1]


def test_schedules_without_signal_at_their_end_are_drawn() -> None:
    asked = ("zero-terminal", "gvp", "shifted:schedule=(linear:steps=30,beta_max=0.1),shift=2")
    assert names(None, "schedule", schedules=asked) == ["bounded", "mix", "beta"]
    assert names(None, "schedule", schedules=("ve", "betas:values=(0.1,0.9,1)")) == [
        "bounded",
        "exploding",
        "mix",
    ]


def test_levels_are_drawn_where_they_are() -> None:
    levels = levels_of(Linear(steps=10))
    assert levels.beta is not None and len(levels.t) == 10  # type: ignore[arg-type]
    power = torch.as_tensor(levels.alpha).square() + torch.as_tensor(levels.sigma).square()
    torch.testing.assert_close(power, torch.ones(10).double())
    assert float(torch.as_tensor(levels_of(EDM()).sigma)[0]) == pytest.approx(1e-3)


def test_a_sweep_adds_sigma_eps_in_the_unit_range() -> None:
    index = torch.arange(2)
    x0 = torch.rand(2, 1, 4, 4)
    none, half, whole = sweep(x0, index, (0.0, 0.5, 1.0), seed=0)
    torch.testing.assert_close(none, x0)
    torch.testing.assert_close(half - x0, (whole - x0) / 2)


def test_a_denoiser_is_swept_beyond_what_it_learned(denoiser: Path) -> None:
    made = pictures(resolve(str(denoiser)), "sigmas", {"rows": 2, "sigmas": (0.0, 0.5)})
    assert [each.name for each in made] == ["sigmas", "denoised"]
    assert "σ = 0.5 alone" in made[1].notes[0]
    assert names("digits", "sigmas") == ["sigmas"]


def test_predictions_are_the_models_on_the_noised_input(toy: Path) -> None:
    target = resolve(str(toy))
    seen = look(target, target, 4, 0, seed=0)
    assert seen.titles == ["amount 0.00", "amount 0.33", "amount 0.67", "amount 1.00"]
    torch.testing.assert_close(seen.noised[0], seen.clean[0])
    unit = Unit()
    with torch.no_grad():
        t = torch.linspace(0, 1, 4, dtype=torch.float64)
        x0 = target.model.denoiser(unit.encode(seen.noised), t, {}).x0
    torch.testing.assert_close(unit.encode(seen.predicted), x0, atol=1e-5, rtol=1e-4)


def test_two_runs_are_compared_on_the_same_noise(toy: Path, digits: Path) -> None:
    twin = resolve(str(toy), average=False)
    rows, _ = compared([resolve(str(toy)), twin], 3, 0, seed=0)
    assert len(rows) == 3  # one name, given twice, is one row
    made = pictures(resolve(str(toy)), "compare", {"beside": str(toy), "columns": 3, "steps": 1})
    assert [each.name for each in made] == ["predictions", "sheets"]
    with pytest.raises(InputError, match="another corruption"):
        pictures(resolve(str(toy)), "compare", {"beside": str(digits)})
    with pytest.raises(InputError, match="the data set 'moons' is none"):
        pictures(resolve(str(toy)), "compare", {"beside": "moons"})


def test_moments_hold_every_input_with_its_prediction(toy: Path) -> None:
    model = resolve(str(toy)).model
    sampling = walk_of(model, 3)
    walk = list(moments(model, [Ask()] * 2, sampling, seed=5))
    assert [float(each.t) for each in walk] == pytest.approx([1, 2 / 3, 1 / 3, 0])
    assert walk[-1].predicted is None
    *_, last = steps(model, [Ask()] * 2, seed=5, sampling=sampling)
    torch.testing.assert_close(walk[-1].x.clamp(-1, 1), finished(model, last.x))
    # The course's own loop: move 1/(n − i) of the way to the prediction.
    for i in range(3):
        predicted = walk[i].predicted
        assert predicted is not None
        torch.testing.assert_close(walk[i + 1].x, torch.lerp(walk[i].x, predicted, 1 / (3 - i)))


def test_steps_and_sheets_are_as_large_as_asked(toy: Path, digits: Path) -> None:
    (five,) = pictures(resolve(str(toy)), "steps")
    assert "mix, 5 steps" in five.notes[0]
    (sheet,) = pictures(resolve(str(digits)), "sheet", {"steps": 2, "guidance": 1.0})
    assert sheet.notes == ("digits at step 5: dpmpp-2m, 2 steps.",)
    # Eight rows of ten classes, and their names above.
    assert sheet.image.width > sheet.image.height


def test_a_film_has_a_frame_for_each_moment_and_at_most_as_many_as_asked(toy: Path) -> None:
    film, strip = pictures(resolve(str(toy)), "reverse", {"steps": 6, "count": 2})
    assert (len(film.frames), len(strip.frames)) == (7, 1)
    film, _ = pictures(resolve(str(toy)), "reverse", {"steps": 9, "count": 2, "frames": 4})
    assert len(film.frames) == 4


def test_a_short_walk_through_a_chain_is_drawn_with_ddim(table: Path) -> None:
    model = resolve(str(table)).model
    assert walk_of(model).sampler.name == "ddpm"
    assert walk_of(model, 4).sampler.name == "ddim"
    (shown,) = pictures(resolve(str(table)), "steps", {"steps": 3, "count": 2})
    assert "ddim, 3 steps" in shown.notes[0]


def test_real_pictures_are_of_the_classes_asked_for(digits: Path) -> None:
    target = resolve(str(digits))
    data = target.splits.train
    asked = asks(target.model, 20)
    assert data.labels is not None
    index = matching(data, asked)
    assert data.labels[index].tolist() == [ask.label for ask in asked]
    assert names(str(digits), "real", steps=1, count=10) == ["real"]


def test_losses_are_read_as_they_were_logged(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    run.append({"step": 1, "loss": 0.5, "levels": {"<-8": 3.0, ">8": 1.0, "-2…0": 2.0}})
    run.append({"step": 2, "epoch": 1, "epoch_loss": 0.4})
    run.append({"step": 3, "loss": 0.25, "levels": {"6…8": 0.5}})
    losses = journal.losses_of(run)
    assert losses.logged == ([1, 3], [0.5, 0.25])
    assert losses.epochs == ([2], [0.4])
    assert list(losses.levels) == ["log-SNR >8", "log-SNR 6…8", "log-SNR -2…0", "log-SNR <-8"]
    with pytest.raises(InputError, match="logged no loss yet"):
        journal.losses_of(RunFolder(tmp_path / "empty"))


def test_the_loss_says_each_epochs_average(digits: Path, toy: Path, denoiser: Path) -> None:
    (alone,) = pictures(resolve(str(digits)), "loss")
    logged = [r["epoch_loss"] for r in RunFolder(digits).metrics() if "epoch_loss" in r]
    assert len(logged) >= 1
    assert all(f"{value:.6f}" in alone.notes[0] for value in logged)
    (both,) = pictures(resolve(str(digits)), "loss", {"beside": (str(toy), str(denoiser))})
    assert both.image.width < alone.image.width  # no panel of noise levels


def test_progress_finds_the_sheets_of_epochs(digits: Path) -> None:
    drawn = journal.sheets_of(RunFolder(digits))
    (one,) = pictures(resolve(str(digits)), "progress", {"epochs": (1,)})
    first = Image.open(drawn[min(drawn)]).convert("RGB")
    # The sheet stands in the picture as it was drawn.
    whole, part = np.asarray(one.image), np.asarray(first)
    below = whole[-part.shape[0] - 12 : -12, 12 : 12 + part.shape[1]]
    np.testing.assert_array_equal(below, part)
    with pytest.raises(InputError, match="no sheet of epoch 9; it has those of: "):
        pictures(resolve(str(digits)), "progress", {"epochs": (9,)})


def test_the_plan_counts_the_networks_parameters(toy: Path) -> None:
    (shown,) = pictures(resolve(str(toy)), "network")
    assert shown.notes == ("309,057 parameters, for 1 × 16 × 16.",)
    (fresh,) = pictures(resolve("course-unet", data="digits"), "network")
    network, _ = resolve("course-unet", data="digits").network
    assert count_parameters(network) == 1_707_009
    assert fresh.notes[0].startswith("1,707,009 parameters")


def test_dye_walks_forward_and_comes_back(moons: Path) -> None:
    made = pictures(
        resolve(str(moons)), "dye", {"steps": 3, "count": 150, "columns": 3, "frames": 4}
    )
    assert [each.name for each in made] == ["forward", "forward-film", "reverse", "reverse-film"]
    assert [len(each.frames) for each in made] == [1, 4, 1, 4]
    assert names("moons", "dye", count=100, frames=3) == ["forward", "forward-film"]


def test_dye_ends_as_noise_of_unit_variance() -> None:
    target = resolve("moons")
    corruption = corruption_of(target)
    clouds, titles = stirred(target, corruption, 3000, 24, seed=0)
    assert len(clouds) == len(titles) == len(even_times(corruption.schedule, 24))
    assert clouds[-1].std(axis=0) == pytest.approx([1, 1], abs=0.05)
    start = target.splits.train.values[:3000].reshape(-1, 2).numpy()
    np.testing.assert_allclose(clouds[0], start, atol=1e-6)


def test_files_hold_what_made_them(toy: Path, tmp_path: Path) -> None:
    target = resolve(str(toy))
    shown = draw(target, "reverse", {"steps": 2, "count": 1}, tmp_path)
    assert [each.path.name for each in shown] == ["reverse-film.gif", "reverse-filmstrip.png"]
    text = read_text(shown[1].path)
    assert text["couette"] == f"show {toy} reverse"
    assert json.loads(text["settings"])["steps"] == "2"
    with Image.open(shown[0].path) as film:
        assert film.n_frames == 3  # type: ignore[attr-defined]
    (bare,) = draw(target, "steps", {"steps": 1}, tmp_path / "bare", metadata=False)
    assert read_text(bare.path) == {}


def test_nothing_is_written_unless_all_was_drawn(toy: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError):
        draw(resolve(str(toy)), "sheet", {"label": "3"}, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_same_seed_draws_the_same_picture(digits: Path) -> None:
    target = resolve(str(digits))
    settings = {"steps": 2, "count": 3, "seed": 7}
    one, two = (pictures(target, "steps", settings)[0].image for _ in range(2))
    other = pictures(target, "steps", {**settings, "seed": 8})[0].image
    assert one.tobytes() == two.tobytes()
    assert one.tobytes() != other.tobytes()


def test_noise_is_normal_and_clipped_to_the_shown_range() -> None:
    (shown,) = pictures(resolve(None), "noise", {"side": 64})
    from couette.figures.noise import noise_picture

    gray = noise_picture(1, 64, 0)
    assert float(gray.std()) == pytest.approx(1, abs=0.05)
    cells = to_rgb(gray[None])[0].repeat(5, 0).repeat(5, 1)
    assert cells.tobytes() in {
        np.ascontiguousarray(np.asarray(shown.image)[y : y + 320, 12:332]).tobytes()
        for y in range(shown.image.height - 320)
    }
