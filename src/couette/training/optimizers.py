"""What moves the weights of one phase: AdamW, and Muon for the hidden weights where asked."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from couette.config import TrainingConfig
from couette.runtime import Recorded
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
        graph: whether the step's kernels are recorded and replayed; on a card.
    """

    def __init__(
        self,
        parameters: Sequence[nn.Parameter],
        config: TrainingConfig,
        matrices: Collection[Tensor] = (),
        graph: bool = False,
    ) -> None:
        self.parameters = list(parameters)
        self._limit = math.inf if config.clip is None else config.clip
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
        device = self.parameters[0].device
        self._sound = torch.ones((), dtype=torch.bool, device=device)
        self._replay: Recorded | None = None
        if graph:
            self._gradients = [torch.zeros_like(p) for p in self.parameters]
            self._told: list[bool] | None = None
            self._replay = Recorded(self._move)
            for group in self._groups():
                group["lr"] = torch.tensor(group["lr"], device=device)
                group["capturable"] = True

    def step(self, scale: float, sound: Tensor) -> tuple[Tensor, Tensor]:
        """Clip the gradients and move, with every learning rate at `scale` of its peak.

        Nothing is read here that the device works out, so that a card need not be waited for.

        Args:
            scale: of the learning rates.
            sound: 0-d bool on the weights' device; False, or gradients that are not finite, leave
                weights and moments as they are.

        Returns:
            The gradients' norm before they were clipped, and whether the weights were moved, both
            0-d on the device.
        """
        for name, member in self._members.items():
            for group in member.param_groups:
                if isinstance(group["lr"], Tensor):
                    group["lr"].fill_(self._peak[name] * scale)
                else:
                    group["lr"] = self._peak[name] * scale
        self._sound.copy_(sound)
        norm, moved = self._move() if self._replay is None else self._replayed(self._replay)
        return norm, moved

    def _replayed(self, replay: Recorded) -> tuple[Tensor, ...]:
        """The recorded step, on gradients copied to where it looks for them."""
        told = [p.grad is not None for p in self.parameters]
        if self._told is None:
            self._told = told
        if told != self._told:
            return self._move()
        for p, own in zip(self.parameters, self._gradients, strict=True):
            if p.grad is not None:
                own.copy_(p.grad)
                p.grad = own
        return replay()

    def _move(self) -> tuple[Tensor, ...]:
        norm = nn.utils.clip_grad_norm_(self.parameters, self._limit)
        moved = norm.isfinite() & self._sound
        refused = (~moved).float()
        for member in self._members.values():
            # What torch's fused optimizers look at to pass over a step, and so does `Muon`.
            member.found_inf = refused  # type: ignore[attr-defined]
            member.step()
        return norm, moved

    def _groups(self) -> Iterator[dict[str, Any]]:
        for member in self._members.values():
            yield from member.param_groups

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
