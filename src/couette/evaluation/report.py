"""What an evaluation found: figures with their meaning, as lines to read and as JSON."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from torch import Tensor

from couette.config import Frozen
from couette.evaluation.neighbours import reserve

_WEAKEST = 3


class Ahead(Frozen):
    """What is done next and takes long, said beforehand, with what to bear in mind of it."""

    sentence: str
    notes: tuple[str, ...] = ()

    def lines(self) -> list[str]:
        return [self.sentence, *self.notes]


class Space(Frozen):
    """What distances are measured in.

    task: what the feature network was trained for; "coordinates" where points are compared as they
    are. accuracy: the share of its right answers on held-out pictures, chance: that of guessing.
    weights: the first 12 hexadecimal digits of the SHA-256 of its weights.
    """

    task: Literal["classes", "rotations", "coordinates"]
    answers: int = 0
    dimensions: int
    accuracy: float | None = None
    held_out: int = 0
    weights: str = ""
    notes: tuple[str, ...] = ()

    @property
    def poor(self) -> bool:
        """Whether it is nearer to guessing than to being right."""
        return self.accuracy is not None and self.accuracy < (1 + 1 / self.answers) / 2

    def lines(self) -> list[str]:
        if self.accuracy is None:
            return [
                f"Distances are measured between the points' own {self.dimensions} coordinates.",
                *self.notes,
            ]
        about = {
            "classes": f"tells the {self.answers} classes apart",
            "rotations": "tells how a picture was turned",
        }[self.task]
        lines = [
            f"Distances are measured in {self.dimensions} features of a network that {about}: "
            f"right on {self.accuracy:.1%} of {self.held_out:,} held-out pictures (weights "
            f"{self.weights})."
        ]
        if self.poor:
            lines.append(
                "Warning: that network knows these data poorly: neither the distances nor the "
                "coverage tell good pictures from bad ones here."
            )
        return [*lines, *self.notes]


class Distances(Frozen):
    """Between one set and the held-out one: the Fréchet distance, the kernel distance with its
    standard error, and for points the sliced Wasserstein distance.

    coverage: the share of the held-out set with a sample nearby, which says how varied they are.
    """

    frechet: float
    kernel: float
    kernel_error: float | None = None
    sliced: float | None = None
    coverage: float | None = None

    def __str__(self) -> str:
        error = "" if self.kernel_error is None else f" ± {self.kernel_error:.2g}"
        text = f"Fréchet distance {self.frechet:.4g}, kernel distance {self.kernel:.3g}{error}"
        if self.sliced is not None:
            text += f", sliced Wasserstein {self.sliced:.3g}"
        return text if self.coverage is None else f"{text}, coverage {self.coverage:.1%}"


class Judged(Frozen):
    """What the classifier says of pictures.

    confidence: mean probability of its answer. accuracy: the share that shows the class asked for
    (of real pictures: their own), None where nothing was asked. by_class: the same, class by class.
    """

    confidence: float
    accuracy: float | None = None
    by_class: Mapping[str, float] = {}


class Floor(Frozen):
    """Real against real: as near as `count` perfect samples would come to the held-out ones.

    The feature network knows these training pictures, which widens the floor a little, so a very
    good model can come out just below it.

    count: training pictures. held_out: how many they are compared with. judged: the held-out ones.
    """

    count: int
    held_out: int
    distances: Distances
    judged: Judged | None = None

    def lines(self) -> list[str]:
        lines = [
            f"Floor, {self.count:,} training against {self.held_out:,} held-out: {self.distances}."
        ]
        if self.judged and self.judged.accuracy is not None:
            lines.append(
                f"  {self.judged.accuracy:.1%} of the held-out ones are classified as labelled, "
                f"with mean confidence {self.judged.confidence:.2f}."
            )
        return lines


class Losses(Frozen):
    """The loss that training minimises, by noise level, on held-out and on training pictures.

    log_snr, held_out, training: (L,) each, from low noise to high; the levels are evenly spread
    over the times that training draws, so the mean over them estimates its loss.
    """

    model: str
    pictures: int
    log_snr: tuple[float, ...]
    held_out: tuple[float, ...]
    training: tuple[float, ...]

    @property
    def mean(self) -> float:
        return sum(self.held_out) / len(self.held_out)

    @property
    def training_mean(self) -> float:
        return sum(self.training) / len(self.training)

    def lines(self) -> list[str]:
        return [
            f"Loss of the {self.model}: {self.mean:.4g} on held-out, {self.training_mean:.4g} on "
            "training data."
        ]


class Bits(Frozen):
    """A mean over pictures, in bits per dimension, and its standard error."""

    mean: float
    error: float | None = None

    def __str__(self) -> str:
        return f"{self.mean:.3f}" + ("" if self.error is None else f" ± {self.error:.2g}")


class Likelihood(Frozen):
    """How likely held-out data are under a model, −log2 p per dimension (see `bits`).

    points: a density's, not a probability's. told: it was told the classes. flow: by the
    probability-flow ODE. bound: the variational one, over `steps` steps, and its parts.
    """

    model: str
    pictures: int
    points: bool = False
    told: bool = False
    flow: Bits
    bound: Bits
    prior: float
    diffusion: float
    decoder: float
    steps: int

    def lines(self) -> list[str]:
        what = "points" if self.points else "pictures"
        told = ", told their classes" if self.told else ""
        return [
            f"Likelihood under the {self.model} of {self.pictures:,} held-out {what}{told}: "
            f"{self.flow} bits per dimension by the ODE.",
            f"  variational bound: {self.bound} (prior {self.prior:.3f}, {self.steps:,} steps "
            f"{self.diffusion:.3f}, decoder {self.decoder:.3f}).",
        ]


class Copies(Frozen):
    """Samples that are suspiciously near to one training picture (the rule: `neighbours`).

    share: of `searched` samples. real_share: of `real` held-out pictures that the rule had not
    seen, which can't be copies. false_alarms: the rule's own rate. threshold: of its ratio.
    training: pictures searched for the nearest. made_from: held-out ones that the rule knows.
    """

    searched: int
    share: float
    real: int
    real_share: float
    threshold: float
    false_alarms: float
    training: int
    made_from: int

    def lines(self) -> list[str]:
        little = reserve(self.training, self.made_from)
        return [
            f"  copies of training pictures: {self.share:.1%} of {self.searched:,}; by the same "
            f"rule {self.real_share:.1%} of {self.real:,} real held-out pictures (false alarms "
            f"expected: {self.false_alarms:.1%}).",
            *([f"    {little}"] if little else []),
        ]


class Samples(Frozen):
    """How good a model's samples are. floor: the Fréchet distance of the floor. seconds: to draw
    them."""

    model: str
    count: int
    sampling: str
    distances: Distances
    floor: float
    judged: Judged | None = None
    copies: Copies | None = None
    seconds: float

    @property
    def above(self) -> float:
        """The Fréchet distance above the floor."""
        return self.distances.frechet - self.floor

    @property
    def times(self) -> float | None:
        """The Fréchet distance in floors; None where the floor is 0."""
        return self.distances.frechet / self.floor if self.floor > 0 else None

    def lines(self) -> list[str]:
        times = "" if self.times is None else f", {self.times:.2f} times the floor"
        lines = [
            f"{self.count:,} samples of the {self.model} ({self.sampling}; {self.seconds:.0f} s): "
            f"{self.distances}.",
            f"  Fréchet distance above the floor: {self.above:.4g}{times}.",
        ]
        if self.judged:
            lines += _judged_lines(self.judged)
        return lines + (self.copies.lines() if self.copies else [])


def _judged_lines(judged: Judged) -> list[str]:
    confidence = f"mean confidence {judged.confidence:.2f}"
    if judged.accuracy is None:
        return [f"  the classifier's {confidence}."]
    weakest = sorted(judged.by_class.items(), key=lambda item: item[1])[:_WEAKEST]
    weak = ", ".join(f"{name} {share:.0%}" for name, share in weakest if share < 1)
    tail = f"; weakest: {weak}" if weak else ""
    return [f"  {judged.accuracy:.1%} classified as asked, {confidence}{tail}."]


class Followed(Frozen):
    """Whether pictures show what prompts asked for, as `couette.data.shapes` reads them.

    count: prompts of each kind, a picture each. shares: by kind of prompt, then by what was asked
    for ("color", "shape", "both", …; "right" is all of it), in [0, 1]. varied, scenes: how much
    pictures of one prompt differ in what it leaves open, and how much scenes of the data do:
    "background", "size", in shares of pairs; "place", a distance in shares of the picture's side.
    """

    model: str
    count: int
    sampling: str
    shares: Mapping[str, Mapping[str, float]]
    varied: Mapping[str, float] = {}
    scenes: Mapping[str, float] = {}

    def lines(self) -> list[str]:
        lines = [f"Prompts followed by the {self.model} ({self.count:,} of each; {self.sampling}):"]
        for kind, shares in self.shares.items():
            rest = ", ".join(f"{name} {share:.0%}" for name, share in shares.items())
            lines.append(f"  {kind}: {rest}.")
        if self.varied:
            own, scenes = self.varied, self.scenes
            lines.append(
                "  Pictures of one prompt differ in background in "
                f"{own['background']:.0%} of pairs (scenes {scenes['background']:.0%}), in size in "
                f"{own['size']:.0%} ({scenes['size']:.0%}), and lie {own['place']:.2f} of the side "
                f"apart ({scenes['place']:.2f})."
            )
        return lines


Part = Ahead | Space | Floor | Losses | Likelihood | Samples | Followed
"""What an evaluation says as it goes, in this order: what is ahead, then what it finds; each says
itself in `lines()`."""


class Pairs(NamedTuple):
    """Samples beside their nearest training pictures.

    generated, training: (B, C, H, W) float32 in [-1, 1]. distance, ratio: (B,). copies: (B,) bool.
    """

    generated: Tensor
    training: Tensor
    distance: Tensor
    ratio: Tensor
    copies: Tensor


@dataclass(frozen=True, eq=False)
class Report:
    """A whole evaluation.

    Attributes:
        data, seed: what was compared with, and the seed of all draws.
        losses, samples: one for each model that was measured, by name.
        likelihoods: the same, where they were asked for.
        followed: the same, where the data can say whether a prompt was followed.
        pairs: by model, for the sheets; not part of the JSON.
        notes: what was left out, and why.
    """

    data: str
    seed: int
    space: Space
    floor: Floor
    losses: Mapping[str, Losses]
    samples: Mapping[str, Samples]
    pairs: Mapping[str, Pairs]
    notes: tuple[str, ...] = ()
    likelihoods: Mapping[str, Likelihood] = field(default_factory=dict)
    followed: Mapping[str, Followed] = field(default_factory=dict)

    def lines(self) -> list[str]:
        """Everything, the floor before what it is the floor of."""
        parts: list[Part] = [
            self.space,
            self.floor,
            *self.losses.values(),
            *self.likelihoods.values(),
            *self.samples.values(),
            *self.followed.values(),
        ]
        return [line for part in parts for line in part.lines()] + list(self.notes)

    def json(self) -> dict[str, object]:
        """Plain data, with the derived figures written out."""
        return {
            "data": self.data,
            "seed": self.seed,
            "space": self.space.model_dump(mode="json"),
            "floor": self.floor.model_dump(mode="json"),
            "losses": {
                name: {**each.model_dump(mode="json"), "mean": each.mean}
                for name, each in self.losses.items()
            },
            "likelihoods": {
                name: each.model_dump(mode="json") for name, each in self.likelihoods.items()
            },
            "samples": {
                name: {**each.model_dump(mode="json"), "above": each.above, "times": each.times}
                for name, each in self.samples.items()
            },
            "followed": {
                name: each.model_dump(mode="json") for name, each in self.followed.items()
            },
            "notes": list(self.notes),
        }
