"""The nouns of the system: what the parts hand to each other.

Everything is a denoiser: it takes `(x_t, t, cond)` and predicts the clean `x0`. This module says
what those words mean and holds no behaviour beyond that. Shapes: B batch, C channels, H height,
W width. Pictures inside are float32 in [-1, 1], (B, C, H, W); 2-D points are (B, 2, 1, 1).
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Literal, NamedTuple, Protocol, runtime_checkable

from torch import Tensor, nn


class Level(NamedTuple):
    """How much of the picture and of the noise is in `x_t = alpha·x0 + sigma·eps`.

    0-d float64 on the CPU in samplers; (B, 1, 1, 1) float32 in training.
    """

    alpha: Tensor
    sigma: Tensor


@runtime_checkable
class Schedule(Protocol):
    """The noise level against time: t = 0 is clean, t = 1 is noise. Float64 throughout."""

    def level(self, t: Tensor) -> Level:
        """alpha and sigma at `t` (any shape), in float64."""
        ...

    def time(self, log_snr: Tensor) -> Tensor:
        """The inverse: the t at which log(alpha²/sigma²) is `log_snr`; time(-inf) = 1."""
        ...


class Corruption(NamedTuple):
    """A schedule, and the kind of noise it mixes in.

    Normal and uniform noise is added. With the other two, x holds states, one-hot along the
    channels, which are replaced by [MASK] or by any state; see `couette.discrete`.
    """

    schedule: Schedule
    noise: Literal["normal", "uniform", "absorbing", "multinomial"] = "normal"


Cond = Mapping[str, Tensor]
"""What a network is told beside x and t, by name, each with B rows: "label" (B,) int64, where the
number of classes itself means "none"; "x0" (B, C, H, W), the network's own last prediction, left
out where there is none yet; "perturb" (B,) bool, rows whose self-attention is replaced by the
identity; "text" (B, L) int64 tokens or (B, L, D) features of them, and "text_mask" (B, L) bool,
False for padding; "read" (B, L, D) and "gist" (B, D), what the network's own reader has made of
them before; "pooled" (B, D), one vector of features for all the words. An empty caption means
"none". "image" (B, C, H, W), a picture to make a sharper one from, and "image_noise" (B,), how
noisy it is, as the network counts; "mask" (B, 1, H, W), 1 where a picture is to be filled in, and
"masked" (B, C, H, W), the rest of it, as the codec encodes it."""


class TextSizes(NamedTuple):
    """What a network is told of words: at most `length` tokens, as numbers below `vocabulary`, or
    where that is 0 as vectors of `width` features each."""

    length: int
    vocabulary: int = 0
    width: int = 0


class Sizes(NamedTuple):
    """What the data and the objective decide about a network: shapes, classes, words.

    channels, height, width: of what goes in. out: channels that come out, where they differ.
    classes: how many, 0 for none. text: None for a network that is told no words.
    """

    channels: int
    height: int
    width: int
    classes: int = 0
    out: int | None = None
    text: TextSizes | None = None

    @property
    def outputs(self) -> int:
        """The channels that come out."""
        return self.channels if self.out is None else self.out


class Network(Protocol):
    """A torch module from (x, told, cond) to a tensor of x's shape. It knows nothing of diffusion.

    Where a variance is learned, the output has twice the channels, and its second half says so.

    `told` is (B,) float32: whatever the denoiser's `Told` says of t. Keys of `cond` that are not
    in `wants` are errors.
    """

    wants: frozenset[str]

    def __call__(self, x: Tensor, told: Tensor, cond: Cond) -> Tensor: ...


class Scalings(NamedTuple):
    """The affine map around a network: x0 = skip·x + out·net(inp·x, told, cond)."""

    skip: Tensor
    out: Tensor
    inp: Tensor


Parameterization = Callable[[Level], Scalings]
"""What the network's output means: four coefficients as a function of the level."""

Told = Callable[[Tensor, Level], Tensor]
"""What the network is told of the time: (t, level) -> (B,)."""


class Prediction(NamedTuple):
    """A denoiser's answer.

    x0: the predicted clean picture, (B, C, H, W); for states their logits.
    base: the x0 whose eps drives the move, where it differs from `x0`; None means `x0`.
    mix: learned variance as the fraction in [0, 1] between posterior and beta; None where fixed.
    """

    x0: Tensor
    base: Tensor | None = None
    mix: Tensor | None = None


@runtime_checkable
class Denoise(Protocol):
    """The one currency. Samplers, guidance and editors know nothing else."""

    @property
    def corruption(self) -> Corruption: ...

    def __call__(self, x: Tensor, t: Tensor, cond: Cond) -> Prediction:
        """Predict x0 from `x` (B, C, H, W) at the time `t` (0-d, or (B,) in training)."""
        ...


Noise = Callable[[Tensor, Tensor], Tensor]
"""(t, u) -> noise of unit variance and x's shape for the stretch from t down to u."""


class Step(NamedTuple):
    """One step of a sampler, as it is yielded. `x` is at `t`, after the move; never mutated.

    index: from 0. count: how many there will be, None where the sampler can't know.
    x0: the prediction of the step's first evaluation.
    """

    index: int  # type: ignore[assignment]  # shadows tuple.index, which nobody needs of a Step
    count: int | None  # type: ignore[assignment]
    t: Tensor
    x: Tensor
    x0: Tensor


Sampler = Callable[..., Iterator[Step]]
"""(denoise, x, times, cond, noise, **settings) -> Steps.

`times` is (N + 1,) float64 on the CPU, falling, from the level that `x` is at."""


class Ask(NamedTuple):
    """What one picture is asked to show. Neither words nor label: anything.

    toward, weight: other words, and how much of the way to them to go, 0 to 1.
    image: a picture to work from, (C, H, W) in [-1, 1], of the size of those the model makes.
    image_noise: the time to which `image` was noised; 0 is clean.
    mask: (1, H, W), 1 where `image` is to be filled in.
    """

    label: int | None = None
    words: str | None = None
    toward: str | None = None
    weight: float = 0.0
    image: Tensor | None = None
    image_noise: float = 0.0
    mask: Tensor | None = None


class Conditioner(Protocol):
    """Turns what is asked into what the network is told."""

    def __call__(self, asked: Sequence[Ask]) -> dict[str, Tensor]:
        """One row per Ask. The unconditional Ask gives the same keys as any other."""
        ...


class Codec(Protocol):
    """From pictures in [-1, 1] to what the denoiser works on, and back. Differentiable."""

    def shape(self, channels: int, height: int, width: int) -> tuple[int, int, int]:
        """(C, H, W) of the encoding of a picture of this shape."""
        ...

    def encode(self, pictures: Tensor, keys: Tensor | None = None) -> Tensor:
        """Pictures to latents; `keys` seed a stochastic encoder, None gives its mean."""
        ...

    def decode(self, latents: Tensor) -> Tensor: ...


class Batch(NamedTuple):
    """What the trainer hands to an objective.

    data: float32 (B, C, H, W), on the device. cond: as `Cond`.
    keys: (B, 2) int64 on the CPU, (sample index, epoch): with the seed they fix every draw.
    places: (B,) int64 on the CPU: how many samples of the whole run came before each; None where
        the batch is of no run.
    """

    data: Tensor
    cond: Cond
    keys: Tensor
    places: Tensor | None = None


class Losses(NamedTuple):
    """One loss per sample, (B,), and detached figures of the same length to log.

    A figure "loss" is told in the loss's place, where that has terms that say nothing of how well a
    model does.
    """

    loss: Tensor
    logs: Mapping[str, Tensor]


class Objective(nn.Module):
    """What a trainer minimises. One trainer serves them all.

    couples: True where the samples of a batch depend on each other and it must not be split.
    """

    couples: bool = False

    @abstractmethod
    def phases(self) -> Mapping[str, list[nn.Parameter]]:
        """The parameters that each optimizer owns; one optimizer per phase."""

    @abstractmethod
    def forward(self, batch: Batch, phase: str) -> Losses: ...

    def updated(self, step: int) -> None:
        """Called once after each step (a teacher's or a target's average). An update that was
        refused has left the weights and the buffers as they were."""
        return None
