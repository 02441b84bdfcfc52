"""Guidance by another run: a classifier that was trained for it, or a worse model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from couette import api
from couette.cli import main
from couette.cli.options import normal_flags, parse_config
from couette.config import spec
from couette.contracts import Ask
from couette.errors import CheckpointError, ConfigError, InputError, UnknownName
from couette.generate import sampling_of, steps
from couette.model import load_classifier, load_model
from couette.opening import classifier_for
from couette.runs import RunFolder, find_model
from small_runs import FAST, digests, losses, session

UNET = "unet:size=tiny,width=8"
SMALL: dict[str, Any] = {
    **FAST,
    "data": {"source": "digits", "limit": 40, "resolution": 8},
    "training": {"batch": 8},
}
CLASSIFIER: dict[str, Any] = {**SMALL, "network": "encoder:width=8"}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs of two steps: `told` the label, `untold` it, and two classifiers."""
    folder = tmp_path_factory.mktemp("runs")
    two = {"steps": 2}
    losses(session(folder / "told", {**SMALL, "network": UNET}, length=two))
    untold = {**SMALL, "network": UNET, "diffusion": {"drop": 1.0}}
    losses(session(folder / "untold", untold, length=two))
    losses(session(folder / "classifier", CLASSIFIER, recipe="classifier", length=two))
    flow = {**CLASSIFIER, "diffusion": {"schedule": "flow"}}
    losses(session(folder / "other", flow, recipe="classifier", length=two))
    return folder


def drawn(run: Path, **settings: Any) -> torch.Tensor:
    return api.sample(run, steps=2, **settings)


class TestTheClassifiersRun:
    def test_holds_a_classifier_and_its_answers(self, runs: Path) -> None:
        run = RunFolder(runs / "classifier")
        held = load_classifier(run.model_folder())
        assert held.config.objective == spec("classifier") and len(held.classes) == 10
        x, t = torch.randn(3, 1, 8, 8), torch.tensor(0.5, dtype=torch.float64)
        with torch.no_grad():
            torch.testing.assert_close(held.classify(x, t).exp().sum(1), torch.ones(3))
        assert list(run.samples.glob("*.png"))
        assert "A classifier of noised pictures" in run.card.read_text()
        logged = [row for row in run.metrics() if "levels" in row]
        assert all(0 <= wrong <= 1 for row in logged for wrong in row["levels"].values())

    def test_is_resumed_to_the_bit(self, tmp_path: Path) -> None:
        four = {"recipe": "classifier", "length": {"steps": 4}}
        whole = losses(session(tmp_path / "whole", CLASSIFIER, **four))
        first = losses(session(tmp_path / "parts", CLASSIFIER, **four), stop_after=2)
        again = losses(session(tmp_path / "parts", {}, resume=True))
        assert {**first, **again} == whole
        assert digests(tmp_path / "parts") == digests(tmp_path / "whole")

    def test_learns_to_tell_digits_apart(self, tmp_path: Path) -> None:
        """Far better than guessing, on pictures that it has not seen, at little noise."""
        settings = {**CLASSIFIER, "data": {"source": "digits", "resolution": 8}}
        settings |= {"training": {"batch": 64, "lr": 4e-3}, "network": "encoder:width=16"}
        run = session(tmp_path / "run", settings, recipe="classifier", length={"steps": 150})
        losses(run)
        held = load_classifier(find_model(tmp_path / "run"))
        data = run.data.test
        assert data is not None and data.labels is not None
        x = data.pictures(torch.arange(len(data))).float() / 127.5 - 1
        t = held.classify.corruption.schedule.time(torch.tensor(2 * 4.0, dtype=torch.float64))
        with torch.no_grad():
            right = (held.classify(x, t).argmax(1) == data.labels).float().mean()
        assert float(right) > 0.7

    def test_makes_no_pictures(self, runs: Path) -> None:
        with pytest.raises(CheckpointError, match="--guider classifier:run="):
            load_model(find_model(runs / "classifier"))
        with pytest.raises(CheckpointError, match="--recipe classifier"):
            load_classifier(find_model(runs / "told"))

    @pytest.mark.parametrize(
        ("settings", "recipe", "message"),
        [
            ({"network": UNET}, "classifier", "gives pictures"),
            ({"network": "encoder"}, "default", "gives logits"),
        ],
    )
    def test_a_network_of_the_other_kind_is_refused(
        self, tmp_path: Path, settings: dict[str, Any], recipe: str, message: str
    ) -> None:
        with pytest.raises(ConfigError, match=message):
            session(tmp_path / "run", {**SMALL, **settings}, recipe=recipe, length={"steps": 1})
        assert not (tmp_path / "run").exists()


class TestByClassifier:
    def test_gives_labels_to_a_model_without(self, runs: Path) -> None:
        """The classifier's classes can be asked for, and the label matters."""
        given = {"guider": f"classifier:run={runs / 'classifier'}", "guidance": 1e3, "count": 2}
        three, each = (drawn(runs / "untold", label=label, **given) for label in (3, "each"))
        assert float((three - drawn(runs / "untold", label=4, **given)).abs().max()) > 1e-3
        assert float((three - each).abs().max()) > 1e-3
        with pytest.raises(UnknownName, match="no label '12'"):
            drawn(runs / "untold", label=12, **given)
        with pytest.raises(InputError, match="trained without labels"):
            drawn(runs / "untold", label=3, count=2)

    def test_unasked_it_is_the_model_itself(self, runs: Path) -> None:
        guider = f"classifier:run={runs / 'classifier'}"
        got = drawn(runs / "untold", guider=guider, guidance=50.0, count=2)
        assert torch.equal(got, drawn(runs / "untold", count=2))

    def test_guides_a_model_that_is_told(self, runs: Path) -> None:
        given = {"guider": f"classifier:run={runs / 'classifier'}", "label": 3, "count": 2}
        plain = drawn(runs / "told", guidance=1.0, label=3, count=2)
        assert torch.equal(drawn(runs / "told", guidance=1.0, **given), plain)
        assert float((drawn(runs / "told", guidance=1e3, **given) - plain).abs().max()) > 1e-3

    def test_of_another_schedule_is_refused(self, runs: Path) -> None:
        model = load_model(find_model(runs / "told"))
        with pytest.raises(InputError, match=r"differ in diffusion\.schedule"):
            classifier_for(model, str(runs / "other"))

    def test_a_run_that_is_not_there_is_refused(self, runs: Path) -> None:
        with pytest.raises(CheckpointError, match="did you mean"):
            drawn(runs / "told", guider=f"classifier:run={runs / 'clasifier'}")
        with pytest.raises(ConfigError, match="'run' is missing"):
            drawn(runs / "told", guider="classifier")


class TestByAWorseModel:
    @pytest.mark.parametrize("guidance", [0.0, 3.0])
    def test_by_itself_is_the_identity(self, runs: Path, guidance: float) -> None:
        given = {"guider": f"auto:run={runs / 'untold'}", "count": 2}
        got = drawn(runs / "untold", guidance=guidance, **given)
        torch.testing.assert_close(got, drawn(runs / "untold", count=2), rtol=0, atol=1e-5)

    def test_an_early_checkpoint_is_named_by_its_folder(self, runs: Path) -> None:
        """And the settings say which one it was, whatever the run does later."""
        model = load_model(find_model(runs / "told"))
        sampling = sampling_of(model, guider=f"auto:run={runs / 'told'}")
        (path,) = (each.settings["run"] for each in sampling.guider)
        assert Path(path) == RunFolder(runs / "told").model_folder().resolve()
        list(steps(model, [Ask(1)], sampling=sampling.model_copy(update={"steps": 1})))

    def test_of_other_classes_is_refused(self, runs: Path) -> None:
        with pytest.raises(InputError, match="knows other classes"):
            drawn(runs / "told", guider=f"auto:run={runs / 'untold'}", guidance=2.0)


class TestFlags:
    def test_sample_takes_several_methods(
        self, runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        flags = f"--label 3 --guidance 3 --threshold dynamic --steps 2 --out {tmp_path / 'a.png'}"
        guiders = ["--guider", "interval:low=0.1,high=5", "apg:momentum=-0.3,eta=0.2", "--json"]
        with pytest.raises(SystemExit) as stopped:
            main(["sample", str(runs / "told"), *flags.split(), *guiders])
        assert not stopped.value.code, capsys.readouterr().err
        assert json.loads(capsys.readouterr().out)["count"] == 16

    def test_train_takes_them_as_the_models_own(self) -> None:
        base = api.recipe_config("digits", None)
        flags = "--guider interval:low=0.1 apg:eta=0.5 --guidance 3 --threshold static"
        found, _ = parse_config(base, "train", normal_flags(flags.split()), {})
        assert found.sampling.guidance == 3 and found.sampling.threshold == spec("static")
        assert [str(each) for each in found.sampling.guider] == [
            "interval:low=0.1,high=2.9",
            "apg:momentum=-0.5,eta=0.5",
        ]
        plain, _ = parse_config(base, "train", [], {})
        assert plain.sampling.guider == base.sampling.guider
        with pytest.raises(UnknownName, match="did you mean 'apg'"):
            parse_config(base, "train", normal_flags(["--guider", "agp"]), {})


def test_a_guide_reads_the_words_itself(tmp_path: Path) -> None:
    """What one network has made of them, another of another width could not take."""
    for name, width in (("good", 16), ("bad", 8)):
        settings = {**SMALL, "network": f"unet:size=tiny,width={width}"}
        settings["data"] = {**SMALL["data"], "captions": ("a {word}",)}
        run = session(tmp_path / name, settings, recipe="text-to-pixels", length={"steps": 2})
        losses(run)
    auto = spec("auto", run=str(tmp_path / "bad"))
    told = drawn(tmp_path / "good", prompt="a one", count=1, guidance=2.0, guider=(auto,))
    assert told.isfinite().all()
