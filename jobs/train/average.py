"""A moving average of a network's weights (Polyak, Juditsky 1992), kept beside them."""

from __future__ import annotations

from collections.abc import Mapping

import torch

Tensors = dict[str, torch.Tensor]


class MovingAverage:
    """After each step: average = decay x average + (1 - decay) x weights, from the first weights.

    Running statistics of BatchNorm are averaged with the weights they belong to; what is counted
    in whole numbers is copied.  `live` are the tensors that training changes in place.
    """

    def __init__(self, live: Mapping[str, torch.Tensor], decay: float) -> None:
        self.tensors: Tensors = {name: tensor.clone() for name, tensor in live.items()}
        self._decay = decay
        floating = [name for name, tensor in live.items() if tensor.is_floating_point()]
        self._live = [live[name] for name in floating]
        self._averages = [self.tensors[name] for name in floating]
        self._counts = [
            (self.tensors[name], tensor)
            for name, tensor in live.items()
            if not tensor.is_floating_point()
        ]

    @torch.no_grad()
    def update(self) -> None:
        """Take the weights of the step just done into the average."""
        torch._foreach_lerp_(self._averages, self._live, 1 - self._decay)
        for average, live in self._counts:
            average.copy_(live)
