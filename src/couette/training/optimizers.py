"""What moves the weights of one phase: AdamW, and Muon for the hidden weights where asked."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import torch
from torch import Tensor, nn

from couette.config import TrainingConfig
from couette.training.muon import Muon

_KEPT = {
    "adamw": frozenset({"step", "exp_avg", "exp_avg_sq"}),
    "muon": frozenset({"momentum_buffer"}),
}
"""What each optimizer keeps for a parameter."""

_WIDE = 16
"""Muon's weights have at least so many channels on both sides: the first and the last convolution,
which read and write pixels, are AdamW's, as are all vectors and embeddings."""


class PhaseOptimizer:
    """The optimizers of one phase's parameters, stepped as one.

    Args:
        parameters: the phase's parameters.
        config: which optimizer, and its settings.
        matrices: those among them that are Muon's beside the convolutions', see `matrices_of`.
    """

    def __init__(
        self,
        parameters: Sequence[nn.Parameter],
        config: TrainingConfig,
        matrices: Collection[Tensor] = (),
    ) -> None:
        self.parameters = list(parameters)
        muon = config.optimizer == "muon"
        hidden = {id(p) for p in parameters if muon and _is_hidden(p)}
        hidden |= {id(p) for p in matrices if muon} & {id(p) for p in parameters}
        rest = [p for p in parameters if id(p) not in hidden]
        self._members: dict[str, torch.optim.Optimizer] = {}
        if rest:
            self._members["adamw"] = _adamw(rest, config)
        if hidden:
            chosen = [p for p in parameters if id(p) in hidden]
            self._members["muon"] = Muon(chosen, lr=config.muon_lr)
        self._peak = {name: each.param_groups[0]["lr"] for name, each in self._members.items()}

    def step(self, scale: float, finite: Tensor) -> None:
        """Move, with every learning rate at `scale` of its peak.

        Args:
            scale: of the learning rates.
            finite: 0-d bool on the weights' device; False leaves weights and moments as they are.
                It is never read here, so that a card need not be waited for.
        """
        refused = (~finite).float()
        for name, member in self._members.items():
            for group in member.param_groups:
                group["lr"] = self._peak[name] * scale
            # What torch's fused optimizers look at to pass over a step, and so does `Muon`.
            member.found_inf = refused  # type: ignore[attr-defined]
            member.step()

    def tensors(self) -> dict[str, Tensor]:
        """The state, by "optimizer.parameter.field"."""
        return {
            f"{name}.{index}.{field}": value
            for name, member in self._members.items()
            for index, values in member.state_dict()["state"].items()
            for field, value in values.items()
        }

    def load(self, saved: Mapping[str, Tensor]) -> None:
        """Take up a state.

        Raises:
            ValueError, LookupError: it is not of these optimizers and parameters.
        """
        state: dict[str, dict[int, dict[str, Tensor]]] = {name: {} for name in self._members}
        for key, value in saved.items():
            name, number, field = key.split(".")
            groups = self._members[name].param_groups
            parameters = [p for group in groups for p in group["params"]]
            like = torch.empty(()) if field == "step" else parameters[int(number)]
            same = value.shape == like.shape and value.dtype == like.dtype
            if field not in _KEPT[name] or not same:
                raise ValueError(f"the optimizer's '{key}' is unknown or of another shape or dtype")
            # The fused step walks parameter and moments in memory order: they must lie alike.
            own = torch.empty_like(like, requires_grad=False).copy_(value)
            state[name].setdefault(int(number), {})[field] = own
        for name, member in self._members.items():
            groups = member.state_dict()["param_groups"]
            member.load_state_dict({"state": state[name], "param_groups": groups})


def matrices_of(module: nn.Module) -> list[Tensor]:
    """The weights of the linear layers that blocks declare hidden matrices, by their names. Of a
    matrix alone it can't be told: an embedding's is one, too."""
    found = {}
    for block in module.modules():
        for name, layer in block.named_modules():
            declared = name.rpartition(".")[2] in getattr(block, "matrices", ())
            if declared and isinstance(layer, nn.Linear):
                found[id(layer)] = layer.weight
    return list(found.values())


def _is_hidden(p: nn.Parameter) -> bool:
    return p.ndim == 4 and min(p.shape[:2]) >= _WIDE


def _adamw(parameters: Sequence[nn.Parameter], config: TrainingConfig) -> torch.optim.Optimizer:
    """AdamW, without decay on vectors (norms, biases) (Loshchilov & Hutter 2019)."""
    groups = [
        {
            "params": [p for p in parameters if p.ndim > 1],
            "weight_decay": config.weight_decay,
        },
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(
        [group for group in groups if group["params"]],
        lr=config.lr,
        betas=config.betas,
        eps=config.eps,
        fused=True,
    )
