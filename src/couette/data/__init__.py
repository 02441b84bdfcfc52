"""Pictures and points to learn from: opened, described, split, and handed out as tensors.

    splits = open_data(DataConfig(source="digits"))
    splits.train.pictures(torch.arange(4))          # uint8 (4, 1, 16, 16)

A new source is one function `(config, progress) -> Splits`, registered in `DATASETS`. One that
is fetched declares `found`: a function of nothing, to the folder that it lies in on this machine or
None.
"""

from couette.data import digits, shapes, toy  # noqa: F401  (they register themselves)
from couette.data.augment import augment
from couette.data.dataset import Dataset, Progress, Splits, headline, to_float, to_uint8
from couette.data.sources import is_gone, located, open_data
from couette.data.toy import POINTS

__all__ = [
    "POINTS",
    "Dataset",
    "Progress",
    "Splits",
    "augment",
    "headline",
    "is_gone",
    "located",
    "open_data",
    "to_float",
    "to_uint8",
]
