"""Where and in what arithmetic a network runs: device, dtype, memory layout, threads, kernels.

Decided in one place, from what the machine has and from a short probe of this very network, and
said in one line. Weights and their average stay float32; a lower dtype is used through autocast.
"""

from couette.runtime.capturing import Recorded, replayed
from couette.runtime.choices import Repeated, Runtime, evaluating
from couette.runtime.probe import Trial, choose, device_of

__all__ = [
    "Recorded",
    "Repeated",
    "Runtime",
    "Trial",
    "choose",
    "device_of",
    "evaluating",
    "replayed",
]
