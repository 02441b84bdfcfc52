"""What the help of couette train says beside its flags."""

from __future__ import annotations

import pytest

from cli.shell import Shell

NAME_ONE = "couette train --recipe {} --network unet --help"


class TestHelp:
    @pytest.mark.parametrize(
        ("recipe", "shares"),
        [
            ("text-to-image", "shared: encoder 15%, autoencoder 20%, model 65%"),
            ("text-to-pixels", None),
        ],
    )
    def test_a_recipe(self, shell: Shell, recipe: str, shares: str | None) -> None:
        result = shell("train", "--recipe", recipe, "--help")
        assert result.code == 0
        assert f"The recipe {recipe}:\nPictures for words" in result.out
        assert ("--minutes are shared" in result.out) == (shares is not None)
        assert shares is None or shares in result.out
        assert NAME_ONE.format(recipe) in result.out
        assert "--network.size" not in result.out

    def test_a_network_that_is_named(self, shell: Shell) -> None:
        named = ("--network", "unet")
        result = shell("train", "--recipe", "text-to-image", *named, "--help")
        assert "--network.size" in result.out
        assert "sized from the data; the run" not in result.out

    def test_what_can_be_exported(self, shell: Shell) -> None:
        assert "takes runs of --recipe ddpm" in shell("train", "--help").out
        unet2d = next(
            line for line in shell("list", "networks").out.splitlines() if "unet2d" in line
        )
        assert "to train for `couette export --format diffusers`" in unet2d
