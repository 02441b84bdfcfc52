"""Lines of text as states: one position a character."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from couette.errors import InputError


class Characters:
    """Between lines and one-hot characters, (B, K, 1, L): pictures one pixel high to a network.

    Shorter lines are filled up with spaces.

    Args:
        lines: they decide the alphabet (K characters and the space, in order) and the length L.

    Raises:
        InputError: no characters at all.
    """

    def __init__(self, lines: Sequence[str]) -> None:
        self.alphabet = sorted({" ", *"".join(lines)})
        self.length = max(map(len, lines), default=0)
        if not self.length:
            raise InputError("There is no text; give at least one line with a character in it.")

    def encode(self, lines: Sequence[str]) -> Tensor:
        """(B, K, 1, L) float32.

        Raises:
            InputError: a character outside the alphabet, or a line longer than L.
        """
        unknown = sorted(set("".join(lines)) - set(self.alphabet))
        if unknown:
            raise InputError(
                f"The character {unknown[0]!r} is not in the alphabet {''.join(self.alphabet)!r}; "
                "make the alphabet from all lines."
            )
        if long := [line for line in lines if len(line) > self.length]:
            raise InputError(
                f"A line of {len(long[0])} characters is longer than {self.length}; cut it."
            )
        place = {character: index for index, character in enumerate(self.alphabet)}
        rows = [[place[character] for character in line.ljust(self.length)] for line in lines]
        states = F.one_hot(torch.tensor(rows), len(self.alphabet))
        return states.permute(0, 2, 1)[:, :, None].float()

    def decode(self, x: Tensor, mask: str = "_") -> list[str]:
        """Lines from one-hot states or probabilities (B, K, 1, L); [MASK] as `mask`."""
        found = [*self.alphabet, mask]
        hidden = x.sum(1) == 0
        index = x.argmax(1).masked_fill(hidden, len(self.alphabet)).flatten(1)
        return ["".join(found[each] for each in row) for row in index.tolist()]
