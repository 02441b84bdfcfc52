"""Every setting of a run, as frozen models. Knows nothing of torch.

A part that has a registry (network, schedule, sampler, …) is chosen by a `Spec`: a name and the
settings of that part, checked against the part's own signature when it is built (`specs.py`); all
else are groups of fields (`groups.py`). `saved.py` says what a saved model is. Unknown keys are
errors that name the near miss.
"""

from couette.config.groups import (
    STATES,
    DataConfig,
    DiffusionConfig,
    Frozen,
    RunConfig,
    RuntimeConfig,
    SamplingConfig,
    TextConfig,
    TrainingConfig,
)
from couette.config.saved import (
    FORMAT,
    AutoencoderConfig,
    ModelConfig,
    PretrainedConfig,
    ReaderConfig,
)
from couette.config.specs import Spec, joined, spec, spec_fields, tupled

__all__ = [
    "FORMAT",
    "STATES",
    "AutoencoderConfig",
    "DataConfig",
    "DiffusionConfig",
    "Frozen",
    "ModelConfig",
    "PretrainedConfig",
    "ReaderConfig",
    "RunConfig",
    "RuntimeConfig",
    "SamplingConfig",
    "TextConfig",
    "Spec",
    "TrainingConfig",
    "joined",
    "spec",
    "spec_fields",
    "tupled",
]
