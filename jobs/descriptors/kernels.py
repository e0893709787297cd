"""The kernels of a network's first two convolutions as a bank of filters.

As in the published code of Ge and Yu 2017, responses are those before the activation, and what the
second convolution is given has passed all that the network has between the two.
"""

from __future__ import annotations

from contextlib import ExitStack

import torch
from torch import nn

from ftd.errors import InputError
from jobs.models.network import Network

NUM_LAYERS = 2


class _Enough(BaseException):
    """Ends a forward pass behind the last convolution that counts; the network may not stop it."""


class Kernels:
    """The first two convolutions that an image passes on its way through a network."""

    def __init__(self, network: Network) -> None:
        self._network = network
        self._convolutions = [
            module for module in network.module.modules() if isinstance(module, nn.Conv2d)
        ]

    def __call__(self, images: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Responses (N, C, H, W) of each of the two to normalised images (N, 3, S, S).

        Raises InputError when the network has fewer convolutions.
        """
        found: list[torch.Tensor] = []

        def keep(_module: nn.Module, _given: object, result: torch.Tensor) -> None:
            found.append(result.clone())  # an activation may work in place
            if len(found) == NUM_LAYERS:
                raise _Enough

        with ExitStack() as hooks, torch.inference_mode():
            for module in self._convolutions:
                hooks.callback(module.register_forward_hook(keep).remove)
            self._network.eval()
            try:
                self._network(images)
            except _Enough:
                return tuple(found)
        raise InputError(
            f"{self._network.model} has fewer than {NUM_LAYERS} convolutions",
            where="descriptors.model",
            fix="Name another network, or use bank: gabor or deep",
        )
