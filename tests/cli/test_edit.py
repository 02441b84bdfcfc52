"""couette edit and couette replay."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cli.shell import Shell, unwrapped
from couette.editing import EDITS
from couette.render import read_text


@pytest.fixture
def picture(shell: Shell) -> Path:
    """A picture of another size than the model's, in colour, with holes."""
    noise = np.random.default_rng(0).integers(0, 255, (12, 16, 4), dtype=np.uint8)
    Image.fromarray(noise).save("photo.png")
    return Path("photo.png")


def pixels(path: Path | str) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB")).astype(int)


@pytest.fixture
def run(runs: Path, shell: Shell) -> Path:
    """The labelled run, in this folder."""
    shutil.copytree(runs / "labelled", "run")
    return Path("run")


class TestEdit:
    def test_what_there_is(self, shell: Shell) -> None:
        for arguments in (("edit",), ("edit", "--help")):
            result = shell(*arguments)
            assert result.code == 0
            assert all(f"  {name}" in result.out for name in EDITS)
        for name in EDITS:
            result = shell("edit", "exact:digits", name, "--help")
            assert result.code == 0
            for flag in (*EDITS.settings(name).model_fields, "seed", "label", "steps", "out"):
                assert f"--{flag}" in result.out.replace("_", "-"), (name, flag)

    @pytest.mark.parametrize(
        ("flags", "how"),
        [
            ((), "ddim, 2 steps"),
            (("--label", 3, "--guidance", 4), "ddim, 2 steps, guidance 4"),
            (("--method", "friendly"), "ddpm, 2 steps"),
        ],
    )
    def test_what_walks_in_its_own_way_says_so(
        self, shell: Shell, picture: Path, flags: tuple[object, ...], how: str
    ) -> None:
        """And by no guidance, where a picture is to come back as it was."""
        asked = ("edit", "exact:digits", "invert", picture, "--steps", 2, "--count", 1, *flags)
        result = shell(*asked, "--out", "out.png")
        assert result.code == 0 and f"Drawn with {how}.\n" in result.out

    def test_a_sheet_in_the_runs_folder(self, shell: Shell, run: Path, picture: Path) -> None:
        result = shell("edit", run, "img2img", picture, "--start", 2, 4, "--steps", 6, "--count", 2)
        assert result.code == 0
        (made,) = (run / "pictures").glob("*.png")
        assert made.name.startswith("img2img-photo-") and str(made) in result.out
        assert "photo.png was scaled from 16 × 12 to 8 × 8 pixels." in result.out
        assert "photo.png is transparent in places, and was laid on white." in result.out
        assert "photo.png was made gray" in result.out
        told = json.loads(read_text(made)["couette"])
        assert told["edit"]["name"] == "img2img" and told["edit"]["settings"] == {"start": [2, 4]}
        assert [each["name"] for each in told["edit"]["pictures"]] == ["photo.png"]
        assert "/" not in json.dumps(told["edit"]["pictures"])

    @pytest.mark.parametrize("format", ["png", "gif", "npz"])
    def test_formats(self, format: str, shell: Shell, run: Path, picture: Path) -> None:
        out = Path("made") if format == "png" else Path(f"made.{format}")
        arguments = ("inpaint", picture, "--box", 0, 0, 4, 4, "--steps", 2, "--count", 3)
        result = shell("edit", run, *arguments, "--format", format, "--out", out, "--json")
        assert result.code == 0, result
        assert json.loads(result.out)["path"] == str(out)
        if format == "png":
            assert sorted(each.name for each in out.iterdir()) == [f"{i:05d}.png" for i in range(3)]
        elif format == "gif":
            with Image.open(out) as film:
                assert getattr(film, "n_frames", 1) > 2
        else:
            with np.load(out) as arrays:
                assert [arrays[name].shape for name in arrays] == [(3, 8, 8, 1)]

    def test_labels_and_parts(self, shell: Shell, run: Path) -> None:
        arguments = ("anagram", "--label", 2, 5, "--view", "identity", "rotate:degrees=180")
        result = shell("edit", run, *arguments, "--steps", 2, "--guidance", 2, "--out", "a.png")
        assert result.code == 0, result
        told = json.loads(read_text("a.png")["couette"])
        assert told["edit"]["labels"] == ["2", "5"] and told["sampling"]["guidance"] == 2

    @pytest.mark.parametrize(
        ("arguments", "said"),
        [
            ((), "needs an edit: anagram, "),
            (("bogus",), "There is no edit 'bogus'"),
            (("imgimg", "photo.png"), "did you mean 'img2img'?"),
            (("img2img",), "needs one picture, and 0 were given"),
            (("img2img", "photo.png", "--bogus", "1"), "has no flag --bogus"),
            (("img2img", "photo.png", "--strenght", "1"), "did you mean --strength?"),
            (("img2img", "photo.png", "--strength", "2"), "strength"),
            (("img2img", "photo.png", "--strength", "x"), "--strength"),
            (("img2img", "gone.png"), "gone.png can't be opened"),
            (("inpaint", "photo.png", "--box", "0", "0", "20", "2"), "does not lie within"),
            (("inpaint", "photo.png"), "one of --mask, --box and --color"),
            (("inpaint", "photo.png", "--box", "1", "2"), "--box takes 4 whole numbers, not '1 2'"),
            (
                ("inpaint", "photo.png", "--box", "1", "2", "3", "x"),
                "4 whole numbers, not '1 2 3 x'",
            ),
            (("inpaint", "photo.png", "--mask", "gone.png"), "gone.png can't be opened"),
            (("anagram", "--view", "identity", "rotat"), "did you mean 'rotate'?"),
            (("anagram", "--label", "2", "99"), "There is no label '99'"),
            (("anagram", "--prompt", "a", "b"), "trained without captions"),
            (("hybrid", "--parts", "color"), "no colour"),
            (("img2img", "photo.png", "--out", "a.gif"), "writes one .png file"),
            (("superres", "photo.png"), "--degrade"),
            (("reweigh", "--prompt", "a"), "this model has none"),
        ],
    )
    def test_refusals(
        self, arguments: tuple[str, ...], said: str, shell: Shell, runs: Path, picture: Path
    ) -> None:
        assert said in shell.refused("edit", runs / "labelled", *arguments)


class TestReplay:
    def test_samples_again(self, shell: Shell, run: Path) -> None:
        shell(
            "sample",
            run,
            "--count",
            5,
            "--label",
            "each",
            "--steps",
            3,
            "--seed",
            7,
            "--guidance",
            2,
        )
        (made,) = (run / "pictures").glob("*.png")
        result = shell("replay", made, "--out", "again.png", "--batch", 2)
        assert result.code == 0, result
        assert np.abs(pixels(made) - pixels("again.png")).max() <= 1
        assert read_text("again.png") == read_text(made)
        help = unwrapped(shell("replay", made, "--help").out)
        assert "The picture's own when not given" in help

    def test_in_the_arithmetic_that_was_asked_for(self, shell: Shell, run: Path) -> None:
        told = {}
        for dtype in ("float32", "bfloat16"):
            made = f"{dtype}.png"
            how = ("--count", 4, "--steps", 3, "--device", "cpu", "--dtype", dtype, "--out", made)
            shell("sample", run, *how)
            told[dtype] = json.loads(read_text(made)["couette"])["dtype"]
            result = shell("replay", made, "--model", run, "--device", "cpu", "--out", "again.png")
            assert result.code == 0, result
            assert np.array_equal(pixels(made), pixels("again.png"))
        assert told == {"float32": "float32", "bfloat16": "bfloat16"}
        assert not np.array_equal(pixels("float32.png"), pixels("bfloat16.png"))
        shell("sample", run, "--count", 4, "--steps", 3, "--device", "cpu", "--out", "plain.png")
        assert np.array_equal(pixels("float32.png"), pixels("plain.png"))
        assert json.loads(read_text("plain.png")["couette"])["dtype"] == "float32"
        assert "dtype" in shell.refused("sample", run, "--dtype", "float16")

    def test_one_of_many(self, shell: Shell, run: Path) -> None:
        shell("sample", run, "--count", 4, "--steps", 3, "--format", "png", "--out", run / "four")
        result = shell("replay", run / "four" / "00002.png", "--format", "png", "--out", "one")
        assert result.code == 0, result
        assert np.abs(pixels(run / "four" / "00002.png") - pixels("one/00000.png")).max() <= 1

    def test_settings_change_on_the_way(self, shell: Shell, run: Path) -> None:
        shell("sample", run, "--count", 2, "--steps", 3, "--out", "a.png", "--label", 3)
        result = shell(
            "replay",
            "a.png",
            "--model",
            run,
            "--steps",
            5,
            "--seed",
            3,
            "--label",
            4,
            "--out",
            "b.png",
        )
        assert result.code == 0, result
        told = json.loads(read_text("b.png")["couette"])
        assert (told["sampling"]["steps"], told["seed"], told["labels"]) == (5, 3, ["4", "4"])

    @pytest.mark.parametrize("moved", [False, True])
    def test_edits_again(self, moved: bool, shell: Shell, run: Path, picture: Path) -> None:
        shell(
            "edit",
            run,
            "img2img",
            picture,
            "--strength",
            0.7,
            "--steps",
            4,
            "--label",
            2,
            "--guidance",
            2,
        )
        (made,) = (run / "pictures").glob("*.png")
        more = ()
        if moved:
            Path("elsewhere").mkdir()
            picture = picture.rename("elsewhere/other.png")
            assert "photo.png, which is not there" in shell.refused("replay", made)
            more = ("--picture", picture)
        result = shell("replay", made, *more, "--out", "again.png", "--batch", 1)
        assert result.code == 0, result
        assert np.abs(pixels(made) - pixels("again.png")).max() <= 1
        changed = shell(
            "replay", made, *more, "--out", "other.png", "--strength", 0.2, "--count", 1
        )
        assert changed.code == 0, changed
        told = json.loads(read_text("other.png")["couette"])
        assert told["edit"]["settings"] == {"strength": [0.2]} and told["count"] == 1

    def test_files_are_known_by_name_alone(self, shell: Shell, run: Path, picture: Path) -> None:
        Path("deep").mkdir()
        mask = np.zeros((8, 8), dtype=np.uint8)
        mask[:4] = 255
        Image.fromarray(mask).save("deep/mask.png")
        order = np.arange(64)[::-1].tolist()
        Path("deep/order.json").write_text(json.dumps(order), encoding="utf-8")
        view = f"permutation:file={Path('deep/order.json').resolve()}"
        for arguments in (
            ("inpaint", picture, "--mask", Path("deep/mask.png").resolve()),
            ("anagram", "--view", "identity", view),
            ("hybrid", "--parts", f"mask:file={Path('deep/mask.png').resolve()}"),
        ):
            made = f"{arguments[0]}.png"
            result = shell("edit", run, *arguments, "--steps", 2, "--count", 1, "--out", made)
            assert result.code == 0, result
            assert "deep" not in read_text(made)["couette"]
            assert "is not there" in shell.refused("replay", made, "--model", run)
            for file in Path("deep").iterdir():
                shutil.copy(file, file.name)
            result = shell("replay", made, "--model", run, "--out", "again.png")
            assert result.code == 0, result
            assert np.abs(pixels(made) - pixels("again.png")).max() <= 1
            for file in Path("deep").iterdir():
                Path(file.name).unlink()

    def test_one_of_an_edits_files(self, shell: Shell, run: Path, picture: Path) -> None:
        arguments = ("inpaint", picture, "--box", 0, 0, 4, 4, "--steps", 2, "--count", 3)
        shell("edit", run, *arguments, "--format", "png", "--out", run / "three")
        result = shell("replay", run / "three" / "00001.png", "--picture", picture, "--out", "one")
        assert result.code == 0, result
        assert [each.name for each in Path("one").iterdir()] == ["00001.png"]
        assert np.abs(pixels(run / "three" / "00001.png") - pixels("one/00001.png")).max() <= 1

    def test_refusals(self, shell: Shell, run: Path, runs: Path, picture: Path) -> None:
        shell("edit", run, "img2img", picture, "--steps", 2, "--out", "edited.png")
        Image.new("L", (4, 4)).save(picture)
        assert "photo.png, which has changed since" in shell.refused(
            "replay", "edited.png", "--model", run
        )
        shell("sample", run, "--count", 1, "--steps", 2, "--out", "a.png")
        assert "not in the folders above" in shell.refused("replay", "a.png")
        assert "leave out --picture" in shell.refused("replay", "a.png", "--picture", "photo.png")
        assert "does not say how it was made" in shell.refused("replay", picture)
        assert "can't be read as a PNG" in shell.refused("replay", "gone.png")
        assert "has no flag --bogus" in shell.refused("replay", "a.png", "--model", run, "--bogus")
        text = read_text("a.png")
        for told, said in (
            ("{", "damaged"),
            ("digits, step 3", "does not say how it was made"),
            ("[1]", "does not say how it was made"),
            ('{"seed": "x"}', "what is written in"),
            ('{"seed": ' + "[" * 9999, "damaged"),
        ):
            from PIL import PngImagePlugin

            info = PngImagePlugin.PngInfo()
            info.add_text("couette", told)
            with Image.open("a.png") as image:
                image.save("odd.png", pnginfo=info)
            assert said in shell.refused("replay", "odd.png", "--model", run)
        assert text

    @pytest.mark.parametrize("edit", [(), ("inpaint", "photo.png", "--box", 0, 0, 4, 4)])
    def test_a_guide_is_asked_for(
        self, shell: Shell, run: Path, picture: Path, edit: tuple[object, ...]
    ) -> None:
        """Its run's name is told, not its place: the refusal says what to add."""
        weak = shutil.copytree(run, Path("far/weak"))
        verb, *rest = ("edit", run, *edit) if edit else ("sample", run)
        guider = ("interval:low=0.2", f"auto:run={weak}")
        drawn = ("--guider", *guider, "--guidance", 2, "--steps", 2, "--count", 1)
        assert shell(verb, *rest, *drawn, "--out", run / "a.png").code == 0
        said = shell.refused("replay", run / "a.png")
        assert "was guided by weak, and pictures hold no paths" in said
        flag = said.partition("--guider ")[2].rstrip().removesuffix(".").split()
        assert flag[1] == "auto:run=PATH/weak" and flag[0].startswith("interval:low=0.2")
        again = [each.replace("PATH", "far") for each in flag]
        result = shell("replay", run / "a.png", "--guider", *again, "--out", "b.png")
        assert result.code == 0, result
        assert np.abs(pixels(run / "a.png") - pixels("b.png")).max() <= 1

    def test_help(self, shell: Shell) -> None:
        assert "--model" in shell("replay", "--help").out
