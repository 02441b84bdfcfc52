from __future__ import annotations

import json
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError

import couette.recipes
from couette import registry
from couette.config import (
    DataConfig,
    DiffusionConfig,
    ModelConfig,
    RunConfig,
    SamplingConfig,
    Spec,
    TrainingConfig,
    spec,
    spec_fields,
)
from couette.errors import ConfigError
from couette.registry import RECIPES
from couette.validation import parse

MODEL = ModelConfig(
    recipe="default",
    channels=1,
    height=28,
    width=28,
    classes=("0", "1"),
    codec=spec("symmetric"),
    diffusion=DiffusionConfig(),
    network=spec("unet", multiples=(1, 2)),
    sampling=SamplingConfig(),
)


class TestSpec:
    @pytest.mark.parametrize(
        ("text", "name", "given"),
        [
            ("unet", "unet", {}),
            (" unet ", "unet", {}),
            ("ddim:eta=0.5", "ddim", {"eta": "0.5"}),
            ("edm:sigma-max=80, rho = 7", "edm", {"sigma_max": "80", "rho": "7"}),
            ("unet:", "unet", {}),
            ("a:b=c=d", "a", {"b": "c=d"}),
        ],
    )
    def test_text(self, text: str, name: str, given: dict[str, str]) -> None:
        read = Spec.model_validate(text)
        assert (read.name, read.settings) == (name, given)

    def test_text_without_equals_is_refused(self) -> None:
        with pytest.raises(ConfigError, match=r"'ddim:eta' can't be read at 'eta'; write settings"):
            spec_fields("ddim:eta")
        with pytest.raises(ConfigError, match="can't be read at 'eta'"):
            parse(SamplingConfig, {"sampler": "ddim:eta"}, "a test")

    @given(
        st.from_regex(r"[a-z][a-z0-9-]{0,8}", fullmatch=True),
        st.dictionaries(
            st.from_regex(r"[a-z]{2,6}", fullmatch=True).filter(lambda key: key != "name"),
            st.from_regex(r"[a-z0-9.]{1,6}", fullmatch=True),
            max_size=4,
        ),
    )
    def test_text_round_trip(self, name: str, given: dict[str, str]) -> None:
        written = spec(name, **given)
        assert Spec.model_validate(str(written)) == written

    def test_is_frozen(self) -> None:
        with pytest.raises(ValidationError, match="frozen"):
            spec("unet").name = "basic"  # type: ignore[misc]

    def test_with_settings_leaves_the_first_alone(self) -> None:
        first = spec("edm", rho=7, sigma_max=80)
        assert first.with_settings(rho=3).settings == {"rho": 3, "sigma_max": 80}
        assert first.settings == {"rho": 7, "sigma_max": 80}

    def test_lists_are_tuples(self) -> None:
        """So that what was written to a file as a list is equal to what it was."""
        assert spec("unet", multiples=[1, [2, 3]]) == spec("unet", multiples=(1, (2, 3)))


def groups(model: type[BaseModel] = RunConfig) -> list[type[BaseModel]]:
    found = [model]
    for field in model.model_fields.values():
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel) and kind is not Spec:
            found += groups(kind)
    return found


class TestFrozen:
    @pytest.mark.parametrize("group", [*groups(), ModelConfig])
    def test_every_group_is_closed_and_frozen(self, group: type[BaseModel]) -> None:
        assert group.model_config["extra"] == "forbid"
        assert group.model_config["frozen"] is True
        assert group.model_config["allow_inf_nan"] is False

    def test_fields_cannot_be_set(self) -> None:
        with pytest.raises(ValidationError, match="frozen"):
            RunConfig().recipe = "other"  # type: ignore[misc]


class TestParse:
    @pytest.mark.parametrize(
        ("fields", "message"),
        [
            (
                {"training": {"learning_rate": 1}},
                r"^There is no setting 'training.learning_rate' in a test; it has steps, epochs",
            ),
            (
                {"training": {"epoch": 1}},
                r"^There is no setting 'training.epoch' in a test; did you mean 'epochs'\?$",
            ),
            ({"trainin": {}}, r"'trainin' in a test; did you mean 'training'\?$"),
            ({"data": {"resolutoin": 3}}, "did you mean 'resolution'"),
            (
                {"training": {"steps": 0}},
                r"^In a test, training.steps takes a whole number of 1 or more, not 0\.$",
            ),
            ({"training": {"lr": float("nan")}}, "finite number"),
            ({"runtime": {"device": "gpu"}}, "'auto', 'cpu', 'cuda' or 'mps'"),
            ({"training": {"steps": 5, "minutes": 1}}, "give one of steps, epochs and minutes"),
            ({"training": {"batch": 10, "accumulate": 3}}, "3 does not divide batch 10"),
            ([], "In a test"),
            (None, "In a test"),
        ],
    )
    def test_faults_in_words(self, fields: Any, message: str) -> None:
        with pytest.raises(ConfigError, match=message):
            parse(RunConfig, fields, "a test")

    def test_every_fault_is_told(self) -> None:
        with pytest.raises(ConfigError) as told:
            parse(RunConfig, {"training": {"lrr": 1, "steps": -1}, "sampling": 3}, "a test")
        text = str(told.value)
        assert "did you mean 'lr'" in text and "training.steps takes" in text and "sampling" in text

    def test_missing_settings_are_named(self) -> None:
        with pytest.raises(ConfigError, match="'channels' is missing in a test"):
            parse(ModelConfig, {}, "a test")


class TestReplace:
    def test_merges_a_group(self) -> None:
        changed = RunConfig().replace(training={"steps": 10}, network="unet:width=64")
        assert changed.training == TrainingConfig(steps=10)
        assert changed.network == spec("unet", width="64")
        assert changed.data == RunConfig().data

    def test_takes_a_spec(self) -> None:
        assert RunConfig().replace(codec=spec("unit")).codec == spec("unit")

    @pytest.mark.parametrize(
        "groups", [{"trainin": {}}, {"training": {"lrr": 1}}, {"training": {"lr": -1}}]
    )
    def test_checks_like_a_new_one(self, groups: dict[str, Any]) -> None:
        with pytest.raises(ConfigError):
            RunConfig().replace(**groups)

    def test_contradictions_are_found(self) -> None:
        minutes = RunConfig(training=TrainingConfig(minutes=1))
        with pytest.raises(ConfigError, match="not steps and minutes"):
            minutes.replace(training={"steps": 5})


def test_size() -> None:
    assert DataConfig().size is None
    assert DataConfig(resolution=32).size == (32, 32)
    assert DataConfig(resolution=(16, 32)).size == (16, 32)


@pytest.mark.parametrize("name", list(RECIPES))
class TestEveryRecipe:
    def test_round_trips_through_yaml_and_json(self, name: str) -> None:
        """Validated on the way back, which the recipes' own copies are not."""
        config: RunConfig = RECIPES[name]()
        fields = config.model_dump(mode="json")
        assert parse(RunConfig, yaml.safe_load(yaml.safe_dump(fields)), name) == config
        assert parse(RunConfig, json.loads(json.dumps(fields)), name) == config

    def test_knows_its_name(self, name: str) -> None:
        assert RECIPES[name]().recipe == name

    def test_parts_exist_and_take_their_settings(self, name: str) -> None:
        config: RunConfig = RECIPES[name]()
        diffusion, sampling = config.diffusion, config.sampling
        registry.CODECS.check(config.codec)
        if config.network.name != "auto":
            registry.NETWORKS.check(config.network)
        registry.SCHEDULES.check(diffusion.schedule)
        registry.PARAMETERIZATIONS.check(diffusion.parameterization)
        registry.TOLD.check(diffusion.told)
        registry.WEIGHTINGS.check(diffusion.weighting)
        registry.TIMES.check(diffusion.times)
        registry.SAMPLERS.check(sampling.sampler)
        registry.GRIDS.check(sampling.grid)


def test_model_config_round_trips() -> None:
    again = json.loads(json.dumps(MODEL.model_dump(mode="json")))
    assert parse(ModelConfig, again, "a test") == MODEL


def known_keys() -> list[str]:
    found = {"name", "nmae", "", "__class__", "model_config", "__proto__", "é", "\udc80"}
    for group in [*groups(), ModelConfig]:
        found |= set(group.model_fields)
    return sorted(found)


LEAVES = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.sampled_from([10**400, -(10**400), 2**63, 0.0, -1, 1e308])
    | st.floats()
    | st.text(max_size=8)
    | st.binary(max_size=4)
    | st.sampled_from(["linear:steps=-1", "edm", "a:b", ":", ":=", "heun:", "\ud800", "{}", "!!"])
)
KEYS = st.sampled_from(known_keys()) | st.text(max_size=6)
ANYTHING = st.recursive(
    LEAVES,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(KEYS | st.integers() | st.none(), inner, max_size=4)
    ),
    max_leaves=10,
)


@settings(max_examples=250, suppress_health_check=[HealthCheck.too_slow])
@given(
    model=st.sampled_from([RunConfig, ModelConfig]),
    whole=st.booleans(),
    fields=st.dictionaries(
        KEYS, st.dictionaries(KEYS, ANYTHING, max_size=3) | ANYTHING, max_size=5
    ),
    odd=ANYTHING,
)
def test_fuzzed_configs_are_accepted_or_refused(
    model: type[BaseModel], whole: bool, fields: dict[str, Any], odd: Any
) -> None:
    """Whatever a file holds: a config, or a ConfigError, never another exception. Parts named in
    an accepted one are looked up in their registry only."""
    base = MODEL.model_dump() if model is ModelConfig else {}
    given = {**base, **fields} if whole else odd
    try:
        config = parse(model, given, "a fuzzed file")
    except ConfigError as error:
        assert "a fuzzed file" in str(error)
        return
    assert isinstance(config, model)


FAMILIES = [
    (registry.SCHEDULES, "schedule"),
    (registry.PARAMETERIZATIONS, "parameterization"),
    (registry.NETWORKS, "network"),
    (registry.SAMPLERS, "sampler"),
    (registry.GRIDS, "grid"),
    (registry.TIMES, "times"),
    (registry.WEIGHTINGS, "weighting"),
    (registry.LOSSES, "loss"),
    (registry.PAIRINGS, "pairing"),
]


@settings(max_examples=150, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_fuzzed_settings_are_accepted_or_refused(data: st.DataObject) -> None:
    """The same for the settings of parts."""
    parts, _ = data.draw(st.sampled_from(FAMILIES))
    name = data.draw(st.sampled_from([*parts, "os.system", "torch.nn.Linear", "__init__"]))
    fields = parts.settings(name).model_fields if name in parts else {}
    keys = st.sampled_from([*fields, "self", "__init__"]) | st.text(max_size=5)
    given = data.draw(st.dictionaries(keys.filter(lambda key: key != "name"), ANYTHING, max_size=3))
    try:
        parts.check(parse(Spec, {"name": name, **given}, "a fuzzed file"))
    except ValueError as error:
        assert isinstance(error, couette.errors.InputError)
