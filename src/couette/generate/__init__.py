"""From what is asked to pictures: the one place that fixes the order of the parts,
network → guidance → editor → threshold, and where each picture's noise comes from.

| file | what it holds |
|---|---|
| `asking.py` | what each picture is to show |
| `settings.py` | how pictures are drawn: the model's own way, with what is changed of it |
| `drawing.py` | steps and pictures |
| `cascading.py` | one model's pictures, enlarged by another |
"""

from couette.generate.asking import ask, in_turn
from couette.generate.cascading import cascade
from couette.generate.drawing import (
    Drive,
    Editor,
    KeyedNoise,
    Walk,
    finished,
    guided,
    pictures,
    steps,
    told,
)
from couette.generate.settings import said, sampling_of, shortened, times_of, together

__all__ = [
    "Drive",
    "Editor",
    "KeyedNoise",
    "Walk",
    "ask",
    "cascade",
    "finished",
    "guided",
    "in_turn",
    "pictures",
    "said",
    "sampling_of",
    "shortened",
    "steps",
    "times_of",
    "together",
    "told",
]
