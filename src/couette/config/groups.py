"""The settings of a run, group by group. Knows nothing of torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PositiveInt,
    field_validator,
    model_validator,
)

from couette.config.specs import Spec, spec
from couette.validation import parse

STATES = ("absorbing", "multinomial")
"""The noises that replace states instead of adding to a picture."""


class Frozen(BaseModel):
    """A closed, immutable group of settings."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class DataConfig(Frozen):
    """Which pictures, and how they are brought to one size."""

    source: Annotated[
        str, Field(description="a name (see `couette list data`), a folder, or hf:owner/name")
    ] = "digits"
    resolution: Annotated[
        int | tuple[int, int] | None,
        Field(description="short side, or height and width, in pixels; guessed when not given"),
    ] = None
    color: Annotated[
        Literal["auto", "gray", "rgb"], Field(description="channels; auto reads the pictures")
    ] = "auto"
    background: Annotated[
        str, Field(description="what transparent pictures are laid on: a colour name or #rrggbb")
    ] = "white"
    captions: Annotated[
        tuple[str, ...],
        Field(
            description="captions for labelled pictures, in turn: {} is the name of the class, "
            "{word} a number in words; models are told those, not the classes"
        ),
    ] = ()
    flip: Annotated[bool, Field(description="mirror half of the pictures, seeded")] = False
    crop: Annotated[
        int, Field(ge=0, le=64, description="random shifts of up to this many pixels, seeded")
    ] = 0
    holdout: Annotated[
        float, Field(ge=0, lt=1, description="share kept for evaluation where no test split is")
    ] = 0.1
    limit: Annotated[int | None, Field(ge=1, description="use only this many pictures")] = None
    memory_gb: Annotated[
        float, Field(gt=0, description="decoded pictures beyond this are memory-mapped")
    ] = 4.0
    download: Annotated[bool, Field(description="fetch a named data set where it is absent")] = (
        False
    )

    @property
    def size(self) -> tuple[int, int] | None:
        """Height and width asked for, or None."""
        if self.resolution is None or isinstance(self.resolution, tuple):
            return self.resolution
        return self.resolution, self.resolution


_OF_PICTURES = ("loss", "pairing", "offset", "variance", "self_conditioning")
"""Settings of an objective of pictures that one of states has no use for."""


class DiffusionConfig(Frozen):
    """The corruption, what the network predicts, and what is minimised."""

    schedule: Spec = spec("edm")
    noise: Annotated[
        Literal["normal", "uniform", "absorbing", "multinomial"],
        Field(description="added; or, for states (codec levels), what replaces them"),
    ] = "normal"
    parameterization: Spec = spec("edm")
    told: Annotated[Spec, Field(description="what the network is told of the time")] = spec("log")
    weighting: Spec = spec("uniform")
    loss: Annotated[Spec, Field(description="how far an output lies from its target")] = spec("mse")
    times: Annotated[Spec, Field(description="how training draws its times")] = spec("log-normal")
    strata: Annotated[
        int, Field(ge=1, description="so many samples in a row cover the times evenly; 1 is off")
    ] = 1
    importance: Annotated[
        int,
        Field(
            ge=0,
            le=10_000,
            description="bins of time, drawn as often as their losses are large; 0 is off",
        ),
    ] = 0
    pairing: Annotated[
        Spec, Field(description="which noise goes with which picture of a batch")
    ] = spec("none")
    offset: Annotated[
        float, Field(ge=0, description="strength of noise that is one value a channel; 0 is off")
    ] = 0.0
    variance: Annotated[
        Literal["fixed", "learned"],
        Field(description="of the reverse steps; learned: between posterior and beta"),
    ] = "fixed"
    vlb: Annotated[
        float, Field(gt=0, description="weight of the bound that teaches a learned variance")
    ] = 0.001
    self_conditioning: Annotated[
        bool, Field(description="tell the network its own last prediction")
    ] = False
    drop: Annotated[
        float, Field(ge=0, le=1, description="share of labels hidden, for guidance; 1: no labels")
    ] = 0.1
    cross_entropy: Annotated[
        float, Field(ge=0, description="of states: weight of this beside the variational bound")
    ] = 0.0

    @model_validator(mode="after")
    def _as_states(self) -> Self:
        if self.noise not in STATES:
            if self.cross_entropy:
                raise ValueError(f"cross_entropy goes with {' or '.join(STATES)} noise alone")
        elif (self.parameterization.name, self.weighting.name) != ("x0", "uniform"):
            raise ValueError(
                f"with {self.noise} noise the network predicts the clean state and the bound is "
                "its weight; set parameterization x0 and weighting uniform"
            )
        elif idle := [name for name in _OF_PICTURES if self._differs(name)]:
            raise ValueError(
                f"with {self.noise} noise the bound is all that is minimised; leave out "
                f"{' and '.join(idle)}"
            )
        return self

    def _differs(self, name: str) -> bool:
        """Whether a field is not what it is where nothing is asked."""
        value, default = getattr(self, name), type(self).model_fields[name].default
        both = isinstance(value, Spec) and isinstance(default, Spec)
        return bool(value.name != default.name if both else value != default)


class TextConfig(Frozen):
    """Whether captions are told, and how."""

    encoder: Annotated[
        Literal["none", "learned", "clip", "pretrained"],
        Field(
            description="learned: the network learns to read captions as it is trained; clip: it "
            "is told what the encoder of `run` makes of them; pretrained: what a CLIP or T5 of "
            "transformers makes of them, which `run` names"
        ),
    ] = "none"
    run: Annotated[
        str | None,
        Field(
            description="of the encoder clip; for pretrained a folder, or owner/name of the "
            "Hugging Face hub"
        ),
    ] = None
    vocabulary: Annotated[
        int, Field(ge=256, le=100_000, description="most tokens that captions are made of")
    ] = 1024
    length: Annotated[
        int,
        Field(
            ge=0, le=512, description="tokens of a caption; 0: as many as the longest has, to 77"
        ),
    ] = 0
    tokenizer: Annotated[
        str | None, Field(description="a tokenizer.json to take instead of learning one")
    ] = None
    missing: Annotated[
        Literal["unconditional", "refuse"],
        Field(description="what to do with pictures that have no caption"),
    ] = "unconditional"


class TrainingConfig(Frozen):
    """How long, how fast, with what optimizer."""

    steps: Annotated[int | None, Field(ge=1, description="optimizer steps")] = None
    epochs: Annotated[float | None, Field(gt=0, description="passes over the data")] = None
    minutes: Annotated[float | None, Field(gt=0, description="time; the decay fits it")] = None
    batch: Annotated[
        int,
        Field(ge=0, description="pictures per optimizer step, all ranks; 0: sized from the data"),
    ] = 128
    accumulate: Annotated[int, Field(ge=1, description="parts a batch is computed in")] = 1
    optimizer: Annotated[
        Literal["adamw", "muon"],
        Field(description="muon: for hidden convolutions; adamw: the rest"),
    ] = "adamw"
    lr: Annotated[float, Field(gt=0, description="peak learning rate of adamw")] = 1e-3
    muon_lr: Annotated[float, Field(gt=0, description="peak learning rate of muon")] = 0.02
    betas: tuple[Annotated[float, Field(ge=0, lt=1)], Annotated[float, Field(ge=0, lt=1)]] = (
        0.9,
        0.99,
    )
    eps: Annotated[float, Field(gt=0)] = 1e-8
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    warmup: Annotated[int, Field(ge=0, description="steps of linear warm-up")] = 100
    decay: Annotated[
        Literal["constant", "linear", "cosine", "exponential"],
        Field(description="shape after the warm-up; exponential ends at a tenth"),
    ] = "constant"
    clip: Annotated[float | None, Field(gt=0, description="largest gradient norm")] = 1.0
    average: Annotated[
        float,
        Field(ge=0, lt=0.3, description="width of the weights' average, share of the run; 0 = off"),
    ] = 0.05
    second: Annotated[
        float,
        Field(
            ge=0,
            lt=0.3,
            description="width of a second average, so that `couette export --width` can make "
            "others; 0 = off",
        ),
    ] = 0.0
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    save_every: Annotated[
        PositiveInt | Literal["epoch"] | None,
        Field(description="steps between checkpoints, or 'epoch'; by time when not given"),
    ] = None
    sample_every: Annotated[
        PositiveInt | Literal["epoch"] | None,
        Field(description="steps between grids, or 'epoch'; by time when not given"),
    ] = None
    keep: Annotated[int, Field(ge=1, description="checkpoints kept")] = 2
    init: Annotated[
        str | None,
        Field(description="a run or model whose weights it begins with, where they fit"),
    ] = None

    @model_validator(mode="after")
    def _one_length(self) -> Self:
        given = [name for name in ("steps", "epochs", "minutes") if getattr(self, name) is not None]
        if len(given) > 1:
            raise ValueError(f"give one of steps, epochs and minutes, not {' and '.join(given)}")
        if self.batch % self.accumulate:
            raise ValueError(f"accumulate {self.accumulate} does not divide batch {self.batch}")
        return self


class SamplingConfig(Frozen):
    """How pictures are drawn from the model unless asked otherwise."""

    sampler: Spec = spec("heun")
    grid: Annotated[Spec, Field(description="where the steps lie")] = spec("karras")
    steps: Annotated[int, Field(ge=1, le=100_000)] = 18
    guidance: Annotated[
        float, Field(ge=-1000, le=1000, description="guidance scale; 1 is off, 0 unconditional")
    ] = 1.0
    guider: Annotated[
        tuple[Spec, ...],
        Field(min_length=1, description="methods of guidance, each laid over the one before it"),
    ] = (spec("cfg"),)
    passes: Annotated[
        Literal["together", "apart"],
        Field(description="guidance's passes in one batch, or one by one in half the memory"),
    ] = "together"
    negative: Annotated[
        str, Field(max_length=10_000, description="words to lead away from, where words are told")
    ] = ""
    reuse: Annotated[
        int,
        Field(
            ge=1, le=1000, description="evaluations that share coarse features; 1: each has its own"
        ),
    ] = 1
    threshold: Annotated[
        Spec, Field(description="what keeps each prediction in the pictures' range")
    ] = spec("none")

    @model_validator(mode="after")
    def _reuse_together(self) -> Self:
        if self.reuse > 1 and self.passes == "apart":
            raise ValueError("reuse shares features of whole batches; leave passes together")
        return self

    @property
    def guided(self) -> str:
        """The guidance in words, ", guidance 3 by apg:eta=0.5"; nothing where it is off."""
        plain = self.guider == (spec("cfg"),)
        if not self.guider or (plain and self.guidance == 1):
            return ""
        methods = "" if plain else f" by {' and '.join(map(str, self.guider))}"
        return f", guidance {self.guidance:g}{methods}"

    @field_validator("guider", mode="before")
    @classmethod
    def _one_guider(cls, value: Any) -> Any:
        return (value,) if isinstance(value, str | Spec | Mapping) else value

    @model_validator(mode="before")
    @classmethod
    def _clip_as_threshold(cls, value: Any) -> Any:
        """`clip: true`, as older files have it, is the static threshold."""
        if not isinstance(value, Mapping) or "clip" not in value:
            return value
        clip = {"threshold": "static"} if value["clip"] else {}
        return {**{key: value[key] for key in value if key != "clip"}, **clip}


class RuntimeConfig(Frozen):
    """Where and in what arithmetic the network runs."""

    mode: Annotated[
        Literal["safe", "auto", "fast"],
        Field(
            description="safe: float32, nothing tried; auto: what a short probe finds faster and "
            "right; fast: also compile for a short run"
        ),
    ] = "auto"
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    layout: Annotated[
        Literal["auto", "channels_last", "contiguous"],
        Field(description="of feature maps in memory"),
    ] = "auto"
    threads: Annotated[int | None, Field(ge=1, description="processor threads")] = None
    compile: Annotated[
        Literal["auto", "on", "off"],
        Field(description="compile the network's blocks; auto: where the run is long"),
    ] = "auto"
    graph: Annotated[
        Literal["auto", "on", "off"],
        Field(description="on a GPU, record a step's kernels and replay them (CUDA graphs)"),
    ] = "auto"
    recompute: Annotated[
        bool, Field(description="blocks again in the backward pass: less memory, more time")
    ] = False

    @field_validator("compile", "graph", mode="before")
    @classmethod
    def _in_words(cls, value: Any) -> Any:
        """`true` and `false`, as older files have it; YAML reads `on` and `off` so, too."""
        return {True: "on", False: "off"}.get(value, value) if isinstance(value, bool) else value


class RunConfig(Frozen):
    """A whole run."""

    recipe: str = "default"
    objective: Annotated[Spec, Field(description="what is trained")] = spec("diffusion")
    data: DataConfig = DataConfig()
    codec: Spec = spec("symmetric")
    diffusion: DiffusionConfig = DiffusionConfig()
    text: TextConfig = TextConfig()
    network: Annotated[Spec, Field(description="auto: sized from the data")] = spec("auto")
    training: TrainingConfig = TrainingConfig()
    sampling: SamplingConfig = SamplingConfig()
    runtime: RuntimeConfig = RuntimeConfig()

    def replace(self, **groups: Mapping[str, Any] | Spec | str) -> RunConfig:
        """A copy with some fields of some groups replaced, checked like a new one.

        Raises:
            ConfigError: a field that does not exist or a value it can't take.
        """
        fields = self.model_dump()
        for name, value in groups.items():
            group = isinstance(getattr(self, name, None), Frozen)
            merged = group and isinstance(value, Mapping)
            fields[name] = {**fields[name], **value} if merged else value  # type: ignore[dict-item]
        return parse(RunConfig, fields, "the settings")
