"""The autoencoder's objective: through the latents and back, with or without a critic."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

from couette.contracts import Batch, Losses, Objective
from couette.errors import ConfigError
from couette.networks.vae import VAE, Moments, PatchCritic
from couette.registry import OBJECTIVES
from couette.runtime import Runtime
from couette.tensors import Stream, mean_flat, normal, sent

Features = Callable[[Tensor], Sequence[Tensor]]
"""Pictures in [-1, 1], (B, C, H, W), to feature maps, each (B, C', h, w) or (B, C')."""


@OBJECTIVES.register("autoencoder", of="network")
class AutoencoderObjective(Objective):
    """How much of a picture comes back from its latents, and how plain the latents are.

    d(x, x̂) + kl·KL(q(z|x) ‖ N(0, 1)) + perceptual·d(φ(x), φ(x̂)) − critic·D(x̂), x̂ decoded from a
    sample of q, each term a mean over its own values: pixels, latents, features, patches (Rombach
    et al. 2022, app. G, eq. 25). So it does not depend on the size of the pictures. The noise of a
    sample depends on (seed, sample, epoch) alone. When to use it: for the network `vae`.

    The critic learns from the first step by the hinge loss (Lim & Ye 2017), so that it has
    something to say when it is first heard. Its weight is the given one throughout: it isn't fitted
    to the other gradients, as Rombach et al. do.

    Args:
        network: the `VAE`; in place on the runtime's device.
        runtime: where and in what arithmetic it runs.
        seed: the run's seed.
        distance: between pictures, per pixel and channel: l1 absolute, l2 squared.
        kl: weight of the KL in nats per latent value, beside the distance per pixel and channel;
            of no use to a plain autoencoder. Rombach's weight w of sums is that of w/(values of a
            picture/its latents) here: his 1e-6 at factor 8 is 2e-8.
        perceptual: weight of the distance between `features`; 0 is off.
        run: of the encoder whose maps are the features, trained with the recipe `clip`.
        critic: weight of what the critic says; 0 is off.
        critic_after: steps before the critic is heard.

    Attributes:
        features: frozen feature maps of pictures, set by whoever has them; never saved or trained.

    Raises:
        ConfigError: another kind of network.
    """

    def __init__(
        self,
        network: nn.Module,
        runtime: Runtime,
        seed: int,
        *,
        distance: Literal["l1", "l2"] = "l1",
        kl: Annotated[float, Field(ge=0)] = 1e-4,
        perceptual: Annotated[float, Field(ge=0)] = 0.0,
        run: str | None = None,
        critic: Annotated[float, Field(ge=0)] = 0.0,
        critic_after: Annotated[int, Field(ge=0)] = 500,
    ) -> None:
        super().__init__()
        if not isinstance(network, VAE):
            raise ConfigError(
                f"The objective 'autoencoder' trains the network 'vae', not "
                f"{type(network).__name__}; give --network vae."
            )
        self.network, self.runtime, self.seed = network, runtime, seed
        self.distance, self.kl, self.perceptual, self.run = distance, kl, perceptual, run
        self.critic_weight, self.critic_after = critic, critic_after
        self.critic = _critic(network.channels, runtime, seed) if critic else None
        self.features: Features | None = None

    def __setattr__(self, name: str, value: Any) -> None:
        """Features that are a module do not become a part of this one: parts are trained and
        saved."""
        if name == "features":
            self.__dict__[name] = value
        else:
            super().__setattr__(name, value)

    def phases(self) -> Mapping[str, list[nn.Parameter]]:
        phases = {"network": list(self.network.parameters())}
        return phases if self.critic is None else phases | {"critic": [*self.critic.parameters()]}

    def updated(self, step: int) -> None:
        if self.critic is not None:
            self.critic.step.fill_(step)

    def forward(self, batch: Batch, phase: str = "network") -> Losses:
        """Losses of a batch of pictures in [-1, 1], (B,).

        Phase "network" logs "error" and "mse", per pixel and channel, "kl" in nats per picture
        where there is one, "perceptual" and "adversarial" where they are asked for, unweighted.
        Phase "critic" logs "critic", its loss, and "real" and "fake", its mean logits.

        Raises:
            ConfigError: a perceptual term without `features`, or a phase that there isn't.
            ShapeError: pictures that the network can't take.
        """
        if phase not in self.phases():
            raise ConfigError(
                f"This objective has the phases {', '.join(self.phases())}, not '{phase}'."
            )
        return self._judging(batch) if phase == "critic" else self._restoring(batch)

    def _restoring(self, batch: Batch) -> Losses:
        """The loss of the network; no gradient reaches the critic."""
        x = batch.data
        made, moments = self._there_and_back(batch)
        error, mse = mean_flat((made - x).abs()), mean_flat((made - x).square())
        logs = {"error": error, "mse": mse}
        loss = error if self.distance == "l1" else mse
        kl = moments.divergence()
        if kl is not None:
            logs["kl"] = kl
            loss = loss + self.kl * kl / moments.mean[0].numel()
        if self.perceptual:
            logs["perceptual"] = _unlikeness(self._seen(x), self._seen(made))
            loss = loss + self.perceptual * logs["perceptual"]
        if self.critic is not None:
            frozen = {name: p.detach() for name, p in self.critic.named_parameters()}
            with self.runtime.autocast():
                logits = functional_call(self.critic, frozen, (made,))
            logs["adversarial"] = -mean_flat(logits.float())
            weight = self.critic_weight * (self.critic.step >= self.critic_after)
            loss = loss + weight * logs["adversarial"]
        return Losses(loss, {name: value.detach() for name, value in logs.items()})

    def _judging(self, batch: Batch) -> Losses:
        """The loss of the critic; no gradient reaches the network."""
        assert self.critic is not None
        with torch.no_grad():
            made, _ = self._there_and_back(batch)
        x = batch.data.contiguous(memory_format=self.runtime.memory_format)
        with self.runtime.autocast():
            real, fake = self.critic(x).float(), self.critic(made).float()
        loss = (mean_flat(F.relu(1 - real)) + mean_flat(F.relu(1 + fake))) / 2
        logs = {"critic": loss, "real": mean_flat(real), "fake": mean_flat(fake)}
        return Losses(loss, {name: value.detach() for name, value in logs.items()})

    def _there_and_back(self, batch: Batch) -> tuple[Tensor, Moments]:
        """The pictures from their sampled latents, (B, C, H, W), and the moments of those."""
        x = batch.data.contiguous(memory_format=self.runtime.memory_format)
        with self.runtime.autocast():
            moments = self.network.encode(x).to(x.dtype)
            noise = normal(
                self.seed, sent(batch.keys, x.device), Stream.NOISE, moments.mean.shape[1:]
            )
            z = moments.sample(noise.contiguous(memory_format=self.runtime.memory_format))
            return self.network.decode(z).to(x.dtype), moments

    def _seen(self, pictures: Tensor) -> Sequence[Tensor]:
        if self.features is None:
            raise ConfigError(
                "The perceptual term needs feature maps to compare, and there are none; set the "
                "objective's `features`, or set perceptual to 0."
            )
        return self.features(pictures)


def _critic(channels: int, runtime: Runtime, seed: int) -> PatchCritic:
    """A fresh critic, its weights a function of the seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        critic = PatchCritic(channels)
    return critic.to(runtime.device, memory_format=runtime.memory_format)  # type: ignore[call-overload, no-any-return]


def _unlikeness(real: Sequence[Tensor], made: Sequence[Tensor]) -> Tensor:
    """The squared distance of feature vectors of unit length, (B,): a mean over the positions of
    each map, then over maps (Zhang et al. 2018, eq. 1, with all channels alike)."""
    each = [
        (F.normalize(a.detach().float()) - F.normalize(b.float())).square().sum(1)
        for a, b in zip(real, made, strict=True)
    ]
    return torch.stack([part.reshape(len(part), -1).mean(1) for part in each]).mean(0)
