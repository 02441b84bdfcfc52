"""Guidance: denoisers made of denoisers, a method a file. Knows nothing of samplers.

contrast.py          two answers and a scale; sources and rules
classifier_free.py   told against untold: cfg, cfg++
interval.py          … at some noise levels only
rescaled.py          … at the conditional answer's contrast
projected.py         … without the part that saturates: apg
zero_star.py         … from the best multiple of the unconditional velocity: cfg-zero
auto.py              a model against a worse one
perturbed.py         a network against itself without attention
classifier.py        the gradient of log p(y | x_t)
thresholds.py        what keeps a prediction in the pictures' range

A new method is one function (denoise, terms, **settings) to a denoiser, decorated with
`@GUIDANCE.register("name")`, in a file imported here. It is called once a run, so that what it
returns may remember. Methods are laid over one another in the order they are named: a rule takes
the contrast that stands before it, or plain cfg where there is none.

Of itself a method declares `off`, the scale at which it gives back the denoiser untouched (1
unless it says otherwise; None for never), `tells`, a key that the network must know, and
`classes`, where it brings classes of its own.
"""

from couette.guidance.auto import Autoguided
from couette.guidance.chain import guide
from couette.guidance.classifier import Classified, gradient
from couette.guidance.classifier_free import ClassifierFree, Manifold
from couette.guidance.contrast import Classify, Contrast, Guided, Parted, Rule, Terms
from couette.guidance.interval import Interval
from couette.guidance.perturbed import Perturbed
from couette.guidance.projected import Projected
from couette.guidance.rescaled import Rescaled
from couette.guidance.thresholds import dynamic, none, static
from couette.guidance.zero_star import ZeroStar
from couette.registry import GUIDANCE, THRESHOLDS

__all__ = [
    "GUIDANCE",
    "THRESHOLDS",
    "Autoguided",
    "Classified",
    "ClassifierFree",
    "Classify",
    "Contrast",
    "Guided",
    "Interval",
    "Manifold",
    "Parted",
    "Perturbed",
    "Projected",
    "Rescaled",
    "Rule",
    "Terms",
    "ZeroStar",
    "dynamic",
    "gradient",
    "guide",
    "none",
    "static",
]
