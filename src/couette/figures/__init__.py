"""What `couette show TARGET TOPIC` draws: each figure one function from a target to pictures.

    target = resolve("runs/digits")
    for path, notes in draw(target, "reverse", {"steps": 10}, Path("figures")): ...

noise.py        noise pictures, Y = 5X + 3, p(weight | height)
noising.py      the forward process: closed form, chain, clipped, the toy mix, the wrong ways
schedule.py     noise schedules as curves
weights.py      how much each noise level counts in training
predictions.py  input / noised / predicted, σ sweeps, two runs compared
states.py       pixels that are states: masked or shuffled, the chain's matrices and rates
reverse.py      steps, sheets, films and strips of the reverse process, real beside generated
ladder.py       a picture noised, and denoised by a blur, one step, many; prompts against steps
likeness.py     when the prediction becomes the picture that it ends at
journal.py      losses, and sheets after given epochs
alike.py        how alike an encoder finds texts
attention.py    which part of a picture attends to which word
latents.py      what an autoencoder keeps
nearest.py      samples beside the training pictures nearest to them
gradients.py    what a classifier sees: p(y | x), its gradient, ascent beside guidance
network.py      a network's plan
dye.py          points in the plane: forward and back
registry.py     what a figure is · target.py what it is drawn of · drawing.py files
forward.py      where to look along a schedule · asked.py what a model is asked

A new figure is one function, decorated with `@figure("name", needs=(…))`, in a file imported here.
Its keyword-only parameters are its settings.
"""

from couette.figures import (  # noqa: F401  (they register themselves)
    alike,
    attention,
    dye,
    gradients,
    journal,
    ladder,
    latents,
    likeness,
    nearest,
    network,
    noise,
    noising,
    predictions,
    reverse,
    schedule,
    states,
    weights,
)
from couette.figures.drawing import Shown, draw, pictures, topics_for
from couette.figures.registry import FIGURES, NEEDS, Picture, figure
from couette.figures.target import Target, resolve

__all__ = [
    "FIGURES",
    "NEEDS",
    "Picture",
    "Shown",
    "Target",
    "draw",
    "figure",
    "pictures",
    "resolve",
    "topics_for",
]
