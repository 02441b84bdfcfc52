"""The command line: bad input is one sentence and code 2, and nothing is written."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

import couette.figures  # noqa: F401  (here, not while a test has put something else in place)
from cli.shell import Shell, files, unwrapped
from couette import api
from couette.cli import VERBS
from couette.cli.options import ALIASES, DRAWING

POINTS = (
    *("moons", "--data.limit", "64", "--network", "points:hidden=8,depth=1"),
    *("--batch", "16", "--runtime.dtype", "float32", "--runtime.threads", "1"),
)


class TestWithoutTorch:
    def imported(self, *arguments: str) -> tuple[str, set[str]]:
        code = (
            "import sys; from couette.cli import main\n"
            "try: main(sys.argv[1:])\n"
            "except SystemExit as e: code = e.code\n"
            "print(code, *sys.modules, file=sys.stderr)"
        )
        done = subprocess.run(
            [sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=True
        )
        exit_code, *modules = done.stderr.split()
        assert exit_code == "0"
        return done.stdout, {name.partition(".")[0] for name in modules}

    def test_help(self) -> None:
        out, modules = self.imported("--help")
        assert all(f"  {verb}" in out for verb in VERBS)
        assert not modules & {"torch", "numpy", "PIL", "tyro", "pydantic", "matplotlib", "sklearn"}


class TestTrain:
    def test_settings_and_aliases_reach_the_run(self, shell: Shell) -> None:
        """Also the words that users of diffusers' scripts know."""
        result = shell(
            *("train", "--train_data_dir=digits", "--output_dir", "run", "--seed", 5),
            *("--train_batch_size", 8, "--gradient_accumulation_steps=2", "--max_train_steps", 2),
            *("--learning_rate", "3e-4", "--mixed_precision", "bf16", "--checkpointing_steps", 2),
            *("--resolution", 8, "--data.limit", 40, "--runtime.threads", 1),
            *("--network", "unet", "--network.size", "tiny", "--network.width", 8),
            *("--schedule", "edm", "--diffusion.schedule.sigma-max", 50),
        )
        assert (result.code, result.err) == (0, "")
        config = yaml.safe_load(Path("run/config.yaml").read_text(encoding="utf-8"))
        training = config["training"]
        assert {name: training[name] for name in ("steps", "batch", "accumulate", "lr")} == {
            "steps": 2,
            "batch": 8,
            "accumulate": 2,
            "lr": 3e-4,
        }
        assert (training["minutes"], training["seed"], training["save_every"]) == (None, 5, 2)
        assert config["runtime"]["dtype"] == "bfloat16"
        assert (config["network"]["size"], config["network"]["width"]) == ("tiny", 8)
        assert config["data"]["source"] == "digits"
        assert config["data"]["resolution"] == 8
        assert config["diffusion"]["schedule"]["sigma_max"] == 50.0
        assert "couette sample run" in result.out

    def test_a_finished_run_is_extended(self, shell: Shell) -> None:
        assert shell("train", *POINTS, "--out", "run", "--steps", 2).code == 0
        result = shell("train", "--out", "run", "--resume", "--steps", 4, "--json")
        assert (result.code, result.err) == (0, "")
        events = [json.loads(line) for line in result.out.splitlines()]
        assert "going on from step 2" in events[0]["notes"]
        assert events[-1] == {"event": "done", "path": "run", "step": 4}
        again = shell("train", "--output_dir", "run", "--resume_from_checkpoint", "latest")
        assert again.code == 0
        assert "Trained 4 steps" in again.out

    def test_json_is_one_object_a_line(self, shell: Shell) -> None:
        result = shell("train", *POINTS, "--out", "run", "--steps", 3, "--json")
        events = [json.loads(line) for line in result.out.splitlines()]
        kinds = [event["event"] for event in events]
        assert (kinds[0], kinds[-1]) == ("begin", "done")
        assert {"step", "saved", "drawn"} <= set(kinds)

    @pytest.mark.parametrize(
        ("arguments", "words"),
        [
            (("digit",), "There is no folder or data set 'digit'; did you mean 'digits'?"),
            ((*POINTS, "--recipe", "berkely-time"), "did you mean 'berkeley-time'?"),
            ((*POINTS, "--network", "pints"), "There is no network 'pints'; did you mean 'points'"),
            ((*POINTS, "--schedule", "cosin"), "did you mean 'cosine'?"),
            ((*POINTS, "--sampler", "eulr"), "did you mean 'euler'?"),
            ((*POINTS, "--network", "points:hiden=3"), "did you mean 'hidden'?"),
            ((*POINTS, "--network"), "--network needs a value"),
            ((*POINTS, "--steps", "5", "--minutes", "1"), "--steps and --minutes contradict"),
            ((*POINTS, "--steps", "0"), "steps"),
            ((*POINTS, "--steps", "-3"), "steps"),
            ((*POINTS, "--epochs", "-1"), "epochs"),
            ((*POINTS, "--batch", "-1"), "batch"),
            ((*POINTS, "--lr", "0"), "lr"),
            ((*POINTS, "--lr", "nan"), "lr"),
            ((*POINTS, "--training.accumulate", "3"), "accumulate 3 does not divide batch 16"),
            ((*POINTS, "--seed", "-1"), "seed"),
            ((*POINTS, "--no-such-flag", "1"), "no-such-flag"),
            ((*POINTS, "--mixed_precision", "fp8"), "--mixed_precision takes bf16 or no"),
            ((*POINTS, "--resume_from_checkpoint", "best"), "takes latest, not 'best'"),
            ((*POINTS, "--resume"), "say which run"),
            (("--out", "nowhere", "--resume"), "There is no run in nowhere"),
            (("digits", "--resolution", "0"), "resolution"),
            (("moons", "--network", "unet"), "is for pictures, and 'moons' holds points"),
            (("digits", "--data.background", "mauvish"), "'mauvish' is no colour"),
            (("digits", "--center_crop"), "always scaled on the short side and cropped at the"),
            (("digits", "--network", "unet", "--network.patch", "99"), "patch"),
            (("digits", "--network", "berkeley", "--resolution", "18"), "18"),
        ],
    )
    def test_bad_input(self, shell: Shell, arguments: tuple[str, ...], words: str) -> None:
        assert words in shell.refused("train", *arguments)

    def test_an_empty_folder(self, shell: Shell) -> None:
        Path("empty").mkdir()
        assert "empty" in shell.refused("train", "empty", "--out", "run")

    def test_out_exists(self, shell: Shell, runs: Path) -> None:
        err = shell.refused("train", *POINTS, "--out", runs / "plain")
        assert "already holds a run; go on with --resume, or give another --out" in err

    def test_out_is_a_file(self, shell: Shell) -> None:
        Path("file").touch()
        for out in ("file", "file/run"):
            err = shell.refused("train", *POINTS, "--steps", 1, "--out", out)
            assert err.startswith("couette: Can't write file")
            assert "choose another place with --out" in err

    def test_resume_with_other_data(self, shell: Shell, runs: Path) -> None:
        err = shell.refused("train", "moons", "--out", runs / "plain", "--resume")
        assert err.startswith("couette: ")
        err = shell.refused("train", "--out", runs / "plain", "--resume", "--data.limit", 30)
        assert "are not those that" in err

    def test_resume_with_another_network(self, shell: Shell, runs: Path) -> None:
        flags = ("--network", "unet", "--network.size", "tiny", "--network.width", 16)
        err = shell.refused("train", "--out", runs / "plain", "--resume", *flags)
        assert "was begun with network unet:size=tiny,width=8" in err

    def test_resume_keeps_what_no_flag_changes(self, shell: Shell, runs: Path) -> None:
        """Parts come back from the flags with all their settings spelled out."""
        shutil.copytree(runs / "plain", "again")
        same = ("--network.width", 8, "--diffusion.drop", 1.0)
        result = shell("train", "--out", "again", "--resume", "--steps", 2, *same)
        assert (result.code, "step 2" in result.out) == (0, True), result


def pictures(folder: Path) -> None:
    folder.mkdir(parents=True)
    for seed in range(8):
        pixels = np.random.default_rng(seed).integers(0, 256, (8, 8), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{seed}.png")


class TestMoved:
    """A run is found from any working directory, and told where its pictures are now."""

    TRAIN = (
        *("train", "here/pics", "--network", "unet:size=tiny,width=8", "--batch", 4),
        *("--runtime.dtype", "float32", "--runtime.threads", 1, "--steps", 1, "--out", "run"),
    )

    def test_from_elsewhere(
        self, shell: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        pictures(Path("here/pics"))
        assert shell(*self.TRAIN).code == 0
        config = yaml.safe_load(Path("run/config.yaml").read_text(encoding="utf-8"))
        assert config["data"]["source"] == str(tmp_path / "here/pics")
        facts = json.loads(Path("run/run.json").read_text(encoding="utf-8"))
        assert facts["source"] == "here/pics"
        monkeypatch.chdir(tmp_path / "here")
        assert shell("train", "--resume", "--out", "../run", "--steps", 2).code == 0
        Path("pics").rename("moved")
        said = f"The pictures of this run were at {tmp_path / 'here/pics'}, which is not there; "
        err = shell.refused("train", "--resume", "--out", "../run", "--steps", 3)
        assert err == (
            f"couette: {said}give their new place: couette train NEWPATH --resume --out ../run.\n"
        )
        err = shell.refused("eval", "../run")
        assert err == f"couette: {said}give their new place: couette eval ../run NEWPATH.\n"
        again = ("train", "moved", "--resume", "--out", "../run", "--steps", 3)
        assert shell(*again).code == 0
        config = yaml.safe_load(Path("../run/config.yaml").read_text(encoding="utf-8"))
        assert config["data"]["source"] == str(tmp_path / "here/moved")


class TestDamage:
    """What is left of a run is used, and said; what is not is told apart."""

    @pytest.fixture
    def run(self, shell: Shell, tmp_path: Path) -> Path:
        flags = ("--steps", 4, "--training.save-every", 2)
        assert shell("train", *POINTS, "--out", "run", *flags).code == 0
        (tmp_path / "run/checkpoints/step_00000004/network.safetensors").write_bytes(b"")
        return Path("run")

    SAID = "run/checkpoints/step_00000004 is damaged; step 2 is used instead."

    @pytest.mark.parametrize(
        "words",
        [
            ("sample", "run", "--count", 2, "--steps", 2),
            ("show", "run", "dye", "--steps", 2),
            ("lab", "run", "--samplers", "heun", "--steps", 2, "--count", 2),
        ],
    )
    def test_an_older_checkpoint_is_said(
        self, shell: Shell, run: Path, words: tuple[object, ...]
    ) -> None:
        result = shell(*words, "--json")
        assert (result.code, result.err) == (0, f"couette: {self.SAID}\n")
        assert json.loads(result.out)["notes"] == [self.SAID]

    def test_what_is_trained_again_is_said(self, shell: Shell, run: Path) -> None:
        result = shell("train", "--out", run, "--resume")
        line = "step_00000004 is damaged; going on from step 2, 2 steps are trained again"
        assert line in result.out.splitlines()

    def test_a_network_edited_by_hand(self, shell: Shell, run: Path) -> None:
        config = run / "config.yaml"
        text = config.read_text(encoding="utf-8")
        config.write_text(text.replace("hidden: 8", "hidden: 16"), encoding="utf-8")
        assert (
            "config.yaml says network points:hidden=16, but it was trained as points:hidden=8; "
            "put that back" in shell.refused("train", "--out", run, "--resume")
        )


class TestSample:
    FEW = ("--count", 2, "--steps", 2)

    def test_nothing_is_drawn_for_a_place_that_takes_no_files(
        self, shell: Shell, runs: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for steps in ("couette.generate.steps", "couette.generate.drawing.steps"):
            monkeypatch.setattr(steps, lambda *_, **__: pytest.fail("drawn"))
        Path("file").touch()
        run = runs / "plain"
        for out in ("file/x.png", "file/deep/x.png"):
            err = shell.refused("sample", run, *self.FEW, "--out", out)
            assert "Can't write file" in err
        err = shell.refused("sample", run, *self.FEW, "--format", "png", "--out", "file/deep")
        assert "file is not a folder; choose another place" in err
        err = shell.refused("sample", run, "--count", 5000)
        assert "A sheet holds at most 4,096 pictures" in err
        assert "is not a folder" in shell.refused("eval", run, "--out", "file/report")
        assert "is not a folder" in shell.refused("show", run, "sheet", "--out", "file/figures")

    def test_settings_out_of_reach(self, shell: Shell, runs: Path) -> None:
        for scale in ("nan", "inf", 1e308):
            err = shell.refused("sample", runs / "labelled", *self.FEW, "--guidance", scale)
            assert "--guidance takes " in err
        err = shell.refused("train", *POINTS, "--steps", 1, "--training.betas", 2, 3)
        assert "less than 1" in err
        err = shell.refused("eval", runs / "labelled", "--sampler", "ddim:eta")
        assert "'ddim:eta' can't be read at 'eta'" in err

    def test_formats(self, shell: Shell, runs: Path) -> None:
        run = runs / "labelled"
        for name in ("x.png", "x.npz", "x.gif"):
            kind = {"png": "grid"}.get(name[2:], name[2:])
            result = shell("sample", run, *self.FEW, "--format", kind, "--out", name, "--json")
            assert (result.code, result.err) == (0, "")
            assert json.loads(result.out)["paths"] == [name]
        with np.load("x.npz", allow_pickle=False) as arrays:
            assert arrays["images"].shape == (2, 8, 8)
            assert arrays["images"].dtype == np.uint8
            assert arrays["labels"].tolist() == [-1, -1]
        assert shell("sample", run, *self.FEW, "--format", "png", "--out", "sheet").code == 0
        assert [p.name for p in sorted(Path("sheet").iterdir())] == ["00000.png", "00001.png"]

    def test_labels_guidance_and_the_settings_in_the_file(self, shell: Shell, runs: Path) -> None:
        flags = ("--label", "each", "--guidance", 2, "--sampler", "ddim:eta=0.5", "--seed", 9)
        run = runs / "labelled"
        result = shell("sample", run, "--count", 10, "--steps", 2, *flags, "--out", "a.png")
        assert (result.code, result.err) == (0, "")
        assert "Drawn with ddim:eta=0.5, 2 steps, guidance 2." in result.out
        with Image.open("a.png") as image:
            own = json.loads(image.text["couette"])  # type: ignore[attr-defined]
        assert own["seed"] == 9
        assert own["sampling"]["guidance"] == 2.0
        assert own["sampling"]["sampler"] == {"name": "ddim", "eta": 0.5}
        result = shell("sample", run, *self.FEW, "--no-metadata", "--out", "b.png")
        with Image.open("b.png") as image:
            assert not image.text  # type: ignore[attr-defined]

    def test_the_models_own_guidance_is_said(self, shell: Shell, runs: Path) -> None:
        run = runs / "labelled"
        own = api.load(run).config.sampling
        assert own.guidance == 1.5
        result = shell("sample", run, *self.FEW)
        assert result.out.endswith("    Drawn with dpmpp-2m, 2 steps, guidance 1.5.\n")
        assert json.loads(shell("sample", run, *self.FEW, "--json").out)["drawn"] == (
            "dpmpp-2m, 2 steps, guidance 1.5"
        )
        said = "The model's own when not given, which is said with the pictures unless it is off"
        for words in (("sample",), ("edit", run, "img2img")):
            assert said in unwrapped(shell(*words, "--help").out)

    def test_what_differs_is_in_the_name_and_nothing_is_lost(
        self, shell: Shell, runs: Path
    ) -> None:
        shutil.copytree(runs / "labelled", "run")

        def drawn(*flags: object) -> str:
            result = shell("sample", "run", "--count", 2, *flags, "--json")
            assert (result.code, result.err) == (0, "")
            return Path(json.loads(result.out)["paths"][0]).relative_to("run/pictures").as_posix()

        assert drawn("--steps", 2) == "seed0-2steps-2.png"
        flags = ("--steps", 2, "--sampler", "ddim:eta=0.5", "--guidance", 2, "--weights", "raw")
        named = "seed0-ddim_eta=0.5-2steps-guidance2-each-raw-2"
        assert drawn(*flags, "--label", "each") == f"{named}.png"
        assert drawn(*flags, "--label", 3) == f"{named.replace('each', 'label3')}.png"
        before = files(Path())
        assert drawn("--steps", 2) == "seed0-2steps-2.png"  # the same picture
        assert files(Path()) == before
        with Image.open("run/pictures/seed0-2steps-2.png") as image:
            image.save("run/pictures/seed0-2steps-2.png")  # one that nothing is known of
        kept = Path("run/pictures/seed0-2steps-2.png").read_bytes()
        assert drawn("--steps", 2) == "seed0-2steps-2_2.png"
        assert Path("run/pictures/seed0-2steps-2.png").read_bytes() == kept
        assert drawn("--steps", 2, "--format", "png") == "seed0-2steps-2/00000.png"
        assert drawn("--steps", 2, "--format", "png") == "seed0-2steps-2/00000.png"
        assert (
            drawn("--steps", 2, "--format", "png", "--no-metadata") == "seed0-2steps-2_2/00000.png"
        )

    def test_the_metadata_tell_labels_and_weights(self, shell: Shell, runs: Path) -> None:
        def told(path: str) -> tuple[dict[str, object], str]:
            with Image.open(path) as image:
                text = image.text  # type: ignore[attr-defined]
            return json.loads(text["couette"]), text["parameters"]

        few = ("sample", runs / "labelled", "--steps", 2, "--label", "each", "--count", 3)
        assert shell(*few, "--out", "a.png").code == 0
        own, line = told("a.png")
        assert (own["labels"], own["count"], own["first"]) == (["0", "1", "2"], 3, 0)
        assert own["weights"] == "average"
        assert line.endswith(", Labels: 0; 1; 2")
        assert shell(*few, "--format", "png", "--weights", "raw", "--out", "each").code == 0
        own, line = told("each/00001.png")
        assert (own["labels"], own["count"], own["first"]) == (["1"], 1, 1)
        assert own["weights"] == "raw"
        assert line.endswith(", Label: 1")

    def test_an_exact_world_stands_for_a_run(self, shell: Shell, runs: Path) -> None:
        world = "exact:digits:resolution=8,limit=200"
        few = ("--count", 2, "--steps", 3)
        flags = ("--schedule", "flow", "--label", 3, "--guidance", 2, "--sampler", "ddim")
        result = shell("sample", world, *few, *flags, "--json")
        assert (result.code, result.err) == (0, "")
        name = "seed0-ddim-3steps-guidance2-label3-2.png"
        path = f"exact-digits-resolution=8-limit=200-schedule=flow/pictures/{name}"
        assert json.loads(result.out)["paths"] == [path]
        with Image.open(path) as image:
            assert "CFG scale: 2" in image.text["parameters"]  # type: ignore[attr-defined]
        result = shell("show", world, "likeness", "--count", 2, "--steps", 3)
        assert result.out.startswith("exact-digits-resolution=8-limit=200/figures/likeness.png")
        assert "only exact worlds" in shell.refused(
            "sample", runs / "plain", *few, "--schedule", "flow"
        )
        assert "did you mean 'digits'" in shell.refused("sample", "exact:digist", *few)

    @pytest.mark.parametrize(
        ("run", "arguments", "words"),
        [
            ("labeled", (), "did you mean"),
            ("labelled", ("--label", "11"), "There is no label '11'"),
            ("labelled", ("--label", "-1"), "-1"),
            ("labelled", ("--sampler", "hein"), "did you mean 'heun'?"),
            ("labelled", ("--sampler", "ddim:etta=1"), "did you mean 'eta'?"),
            ("labelled", ("--sampler", "ddim:eta"), "can't be read at 'eta'"),
            ("labelled", ("--grid", "karas"), "did you mean 'karras'?"),
            ("labelled", ("--steps", "0"), "steps"),
            ("labelled", ("--count", "0"), "at least 1, not 0"),
            ("labelled", ("--count", "-4"), "at least 1, not -4"),
            ("labelled", ("--seed", "-1"), "A seed is a whole number from 0 to 2^63 - 1, not -1"),
            ("labelled", ("--seed", str(2**63)), "A seed is a whole number"),
            ("labelled", ("--sampler", "zzzz"), "; `couette list samplers` shows the "),
            ("labelled", ("--batch", "0"), "at least one picture, not 0"),
            ("labelled", ("--guidance", "nan"), "guidance"),
            ("labelled", ("--format", "npz", "--out", "x.png"), "writes one .npz file"),
            ("labelled", ("--format", "png", "--out", "x.png"), "writes a folder"),
            ("labelled", ("--format", "jpeg"), "jpeg"),
            ("labelled", ("--device", "mps"), "doctor"),
            ("labelled", ("--device", "tpu"), "tpu"),
            ("labelled", ("--no-such-flag",), "no-such-flag"),
            ("plain", ("--label", "3"), "trained without labels; leave out --label"),
            ("plain", ("--guidance", "2"), "leave out --guidance"),
        ],
    )
    def test_bad_input(
        self, shell: Shell, runs: Path, run: str, arguments: tuple[str, ...], words: str
    ) -> None:
        assert words in shell.refused("sample", runs / run, *arguments)

    @pytest.mark.parametrize(
        ("flags", "says"),
        [
            (("--steps", 0), "--steps takes a whole number of 1 or more, not 0."),
            (("--cout", 3), "couette sample has no flag --cout; did you mean --count?"),
            (("--count", "x"), "--count takes a whole number, not 'x'."),
            (("--steps", "x"), "--steps takes a whole number, not 'x'."),
            (("--format", "jpeg"), "--format takes one of grid, png, npz, gif, not 'jpeg'."),
            (("--count",), "--count needs a value; see couette sample --help."),
            (("more",), "couette sample has no use for 'more'; see couette sample --help."),
        ],
    )
    def test_refusals_are_one_sentence(
        self, shell: Shell, runs: Path, flags: tuple[object, ...], says: str
    ) -> None:
        assert shell.refused("sample", runs / "plain", *flags) == f"couette: {says}\n"

    def test_one_wrong_word_among_several_is_said(self, shell: Shell) -> None:
        said = shell.refused("lab", "exact:mixture", "--guidance", "1", "x")
        assert said == "couette: --guidance can't be read from '1 x'; see couette lab --help.\n"

    def test_a_device_that_is_not_here(self, shell: Shell, runs: Path) -> None:
        err = shell.refused("sample", runs / "plain", "--device", "mps")
        assert "leave out --device" in err
        assert "--runtime" not in err

    def test_out_in_a_file(self, shell: Shell, runs: Path) -> None:
        Path("file").touch()
        err = shell.refused("sample", runs / "plain", *self.FEW, "--out", "file/x.png")
        assert "choose another place" in err

    def test_a_checkpoint_of_another_shape(self, shell: Shell, runs: Path) -> None:
        folder = next((runs / "plain" / "checkpoints").iterdir())
        for file in folder.iterdir():
            Path("copy").mkdir(exist_ok=True)
            (Path("copy") / file.name).write_bytes(file.read_bytes())
        fields = json.loads(Path("copy/model.json").read_text(encoding="utf-8"))
        fields["network"]["width"] = 16
        Path("copy/model.json").write_text(json.dumps(fields), encoding="utf-8")
        assert "do not fit the network of their config" in shell.refused("sample", "copy")
        fields["network"]["name"] = "uner"
        Path("copy/model.json").write_text(json.dumps(fields), encoding="utf-8")
        assert "did you mean 'unet'?" in shell.refused("sample", "copy")


class TestTheirWords:
    """What users of diffusers type is understood, and told in the help."""

    def test_drawing(self, shell: Shell, runs: Path) -> None:
        flags = ("--num_inference_steps", 2, "--guidance_scale=2", "--num_images", 3)
        assert shell("sample", runs / "labelled", *flags, "--output_dir", "a.png").code == 0
        with Image.open("a.png") as image:
            own = json.loads(image.text["couette"])  # type: ignore[attr-defined]
        sampling = own["sampling"]
        assert (sampling["steps"], sampling["guidance"], own["count"]) == (2, 2.0, 3)

    def test_training(self, shell: Shell) -> None:
        flags = ("--random_flip", "--lr_warmup_steps", 7, "--max_train_steps", 1)
        small = ("--data.limit", 40, "--network", "unet:size=tiny,width=8", "--batch", 8)
        result = shell("train", "digits", *small, *flags, "--out", "run")
        assert (result.code, "Trained 1 step." in result.out) == (0, True), result
        config = yaml.safe_load(Path("run/config.yaml").read_text(encoding="utf-8"))
        assert (config["data"]["flip"], config["training"]["warmup"]) == (True, 7)

    @pytest.mark.parametrize("verb", ["train", "sample", "eval", "lab"])
    def test_help(self, shell: Shell, verb: str) -> None:
        result = shell(verb, "--help")
        assert result.code == 0
        for name in ALIASES if verb == "train" else DRAWING:
            assert f"--{name.replace('-', '_')}" in result.out


class TestMain:
    def test_nothing_and_versions(self, shell: Shell) -> None:
        assert "usage: couette VERB" in shell().out
        assert shell("--version").out.startswith("couette 0.")

    def test_an_unknown_verb(self, shell: Shell) -> None:
        assert "There is no command 'trian'; did you mean 'train'?" in shell.refused("trian")

    def test_debug_shows_where(self, shell: Shell) -> None:
        result = shell("train", "digit", "--debug")
        assert result.code == 2
        assert "Traceback" in result.err
        assert result.err.endswith("did you mean 'digits'?\n")

    def test_list_says_what_else_data_may_be(self, shell: Shell) -> None:
        assert "or hf:owner/name, pictures of the Hugging Face hub" in shell("list", "data").out

    def test_list_says_which_data_are_here(
        self, shell: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("COUETTE_DATA", str(tmp_path))
        raw = tmp_path / "MNIST" / "raw"
        raw.mkdir(parents=True)
        (raw / "train-images-idx3-ubyte.gz").touch()
        plain = shell("list", "data").out.splitlines()
        ends = {line.split()[0]: line.partition("  [")[2] for line in plain[1:] if line}
        assert ends["mnist"] == f"in {raw}]"
        assert ends["kmnist"] == ends["cifar10"] == "not on this machine]"
        assert ends["digits"] == ends["moons"] == ""
        assert f"  (looked for in {tmp_path}; " in shell("list", "data").out
        found = json.loads(shell("list", "data", "--json").out)["data"]
        places = {name: entry["place"] for name, entry in found.items() if "place" in entry}
        none = dict.fromkeys(("cifar10", "fashion-mnist", "kmnist"))
        assert places == {"mnist": str(raw), **none}

    @pytest.mark.parametrize("family", ["samplers", "worlds", "recipes", "networks", "data"])
    def test_list(self, shell: Shell, family: str) -> None:
        found = json.loads(shell("list", family, "--json").out)
        assert found.keys() == {family}
        assert all(entry["summary"] for entry in found[family].values())
        plain = shell("list", family).out
        assert all(name in plain for name in found[family])
        assert "did you mean" in shell.refused("list", family[:-1] + "z")

    def test_doctor(self, shell: Shell) -> None:
        found = json.loads(shell("doctor", "--json").out)
        assert found["packages"]["torch"]
        assert "cpu" in found["will use"] or found["cards"]
        assert "will use" in shell("doctor").out


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (("--training.lr", "-1"), "couette: --lr takes a number greater than 0, not -1.0.\n"),
        (("--training.lr", "nan"), "couette: --lr takes a finite number, not nan.\n"),
        (("--network", "unet", "--network.width", "2"), "In network 'unet', width takes a whole"),
        (("--steps", "-5"), "couette: --steps takes a whole number of 1 or more, not -5.\n"),
        (("--training.save-every", "0"), "takes a whole number greater than 0 or 'epoch', not 0"),
        (
            ("--training.accumulate", 7, "--training.batch", 4),
            "couette: In the settings, accumulate 7 does not divide batch 4.\n",
        ),
        (("--epoch", 3), "couette: couette train has no flag --epoch; did you mean --epochs?\n"),
        (("--trainig.lr", 3), "has no flag --trainig.lr; did you mean --training.lr?"),
        (("--weight-decai", 3), "did you mean --training.weight-decay?"),
        (("--zzzzzz", 3), "has no flag --zzzzzz; couette train --help lists those there are.\n"),
        (("--steps", "many"), "couette: --steps takes a whole number, not 'many'.\n"),
    ],
)
def test_a_value_out_of_range_is_one_sentence(
    shell: Shell, flags: tuple[str, ...], says: str
) -> None:
    assert says in shell.refused("train", "digits", "--out", "new", *flags)
