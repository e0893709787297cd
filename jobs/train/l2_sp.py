"""L2-SP: fine-tuned layers are pulled to where they started, new ones to zero."""

from __future__ import annotations

import torch
from torch import nn

from jobs.layers import Treatment
from jobs.models.network import Network
from jobs.params.regularisation import L2SPParams


class StartingPoint:
    """alpha / 2 |w - w0|^2 over layers FT plus beta / 2 |w|^2 over layers R, as a gradient.

    What learns `beside` the network counts as a layer R.

    Li, Grandvalet, Davoine: Explicit inductive bias for transfer learning with convolutional
    networks, ICML 2018.  As with weight decay, biases and normalisation layers are left out.
    Make it before anything is trained: w0 are the weights of that moment.
    """

    def __init__(
        self, network: Network, wanted: L2SPParams, beside: nn.Module | None = None
    ) -> None:
        decayed = [
            (parameter, network.treatment_of(name))
            for name, parameter in network.trainable().items()
            if parameter.ndim > 1
        ]
        self._wanted = wanted
        self._new = [weight for weight, chosen in decayed if chosen == Treatment.R]
        if beside is not None:
            self._new += [weight for weight in beside.parameters() if weight.ndim > 1]
        self._copied = [
            (weight, weight.detach().clone())
            for weight, chosen in decayed
            if chosen == Treatment.FT
        ]

    @torch.no_grad()
    def add_to_gradients(self) -> None:
        """Add the penalty's gradient to that of each weight that has one."""
        for weight, start in self._copied:
            if weight.grad is not None:
                weight.grad.add_(weight - start, alpha=self._wanted.alpha)
        for weight in self._new:
            if weight.grad is not None:
                weight.grad.add_(weight, alpha=self._wanted.beta)

    def penalty(self) -> torch.Tensor:
        """The penalty itself (float32, scalar)."""
        to_start = [((weight - start) ** 2).sum() for weight, start in self._copied]
        to_zero = [(weight**2).sum() for weight in self._new]
        return self._half(self._wanted.alpha, to_start) + self._half(self._wanted.beta, to_zero)

    @staticmethod
    def _half(factor: float, squares: list[torch.Tensor]) -> torch.Tensor:
        return factor / 2 * torch.stack(squares).sum() if squares else torch.zeros(())
