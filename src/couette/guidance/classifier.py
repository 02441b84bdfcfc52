"""The gradient of a classifier that reads noised pictures."""

from __future__ import annotations

import torch
from torch import Tensor

from couette.contracts import Cond, Denoise, Prediction
from couette.errors import InputError
from couette.guidance.contrast import Classify, Contrast, Guided, Terms
from couette.registry import GUIDANCE
from couette.tensors import expand


class Classified(Guided):
    """Bayes' rule for x0: E[x0 | x_t, y] = E[x0 | x_t] + sigma²/alpha·∇ log p(y | x_t).

    A network that is told the label itself gives the left side; one that is not, the first term of
    the right. The other answer is the one less or more the gradient.

    Args:
        denoise: the denoiser to guide.
        terms: the scale, and what the network is told where nothing is asked: nothing, for one
            without labels.
        classify: log p(y | x_t). Pictures with a label beyond its classes are asked nothing.

    Raises:
        InputError: a corruption whose noise is not normal.
    """

    def __init__(self, denoise: Denoise, terms: Terms, classify: Classify) -> None:
        super().__init__(denoise)
        if self.corruption.noise != "normal":
            raise InputError(
                "Classifier guidance holds for normal noise, and this model was trained on uniform "
                "noise; use the guider cfg or auto."
            )
        self.scale, self.classify = terms.scale, classify
        self.told = terms.labelled

    def contrast(self, x: Tensor, t: Tensor, cond: Cond) -> Contrast:
        p = self.alone(x, t, cond)
        level = self.corruption.schedule.level(t)
        if not bool((level.alpha > 0).all()):
            raise InputError(
                "A classifier says nothing at pure noise, where this grid starts; use the grid "
                "'karras'."
            )
        shift = expand(level.sigma.square() / level.alpha, x) * self._gradient(x, t, cond)
        if self.told:
            return Contrast(p.x0, p.x0 - shift, self.scale, mix=p.mix)
        return Contrast(p.x0 + shift, p.x0, self.scale, mix=p.mix)

    def alone(self, x: Tensor, t: Tensor, cond: Cond) -> Prediction:
        known = cond if self.told else {key: cond[key] for key in cond if key != "label"}
        return self.denoise(x, t, known)

    def _gradient(self, x: Tensor, t: Tensor, cond: Cond) -> Tensor:
        return gradient(self.classify, x, t, cond["label"])


def gradient(classify: Classify, x: Tensor, t: Tensor, label: Tensor) -> Tensor:
    """∇ log p(y | x_t) with respect to x_t, (B, C, H, W).

    It carries a gradient itself where x does and gradients are on.

    Args:
        classify: log p(y | x_t).
        x: (B, C, H, W) at the time t, 0-d or (B,).
        label: (B,) int64; zero where it is no class.
    """
    flows = torch.is_grad_enabled() and x.requires_grad
    with torch.enable_grad():
        given = x if flows else x.detach().requires_grad_()
        found = classify(given, t)
        asked = label < found.shape[1]
        picked = found.gather(1, torch.where(asked, label, 0)[:, None])[:, 0]
        (slope,) = torch.autograd.grad((picked * asked).sum(), given, create_graph=flows)
    return slope


@GUIDANCE.register("classifier", classes=True)
def classifier(denoise: Denoise, terms: Terms, *, run: str) -> Denoise:
    """Classifier guidance: along ∇ log p(y | x_t) (Dhariwal & Nichol 2021, sec. 4).

    x0 + s·sigma²/alpha·∇ log p(y | x_t), with the classifier of the recipe `classifier`, whose
    path is `run`. A model without labels is guided with s = scale, and scale 1 is Bayes' rule; one
    that is told the label has that of its own and is guided with s = scale − 1, so that either
    draws from p(x)·p(y | x)^scale. When to use it: to give labels to a model without.

    Raises:
        InputError: a classifier of other pictures, other classes or another corruption; uniform
            noise.
    """
    if terms.scale == 1 and terms.labelled:
        return denoise
    return Classified(denoise, terms, terms.classifier(run))
