"""How fast old and new parts of a network learn: the size of one update beside that of the weights.

Wang, Ramanan, Hebert (CVPR 2017) hold that new units must learn at the pace of the old ones.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch

from jobs.models.network import Network

Tensors = dict[str, torch.Tensor]


class Pace:
    """Look at a network before a step, and :meth:`since` after it.

    Groups: ``old`` layers that learn, ``new`` parts that were grown, the classifier (``head``).
    Biases and scales, which are of another size than weights, do not count.
    """

    def __init__(self, network: Network) -> None:
        self._network = network
        self._before = {
            name: parameter.detach().clone()
            for name, parameter in network.trainable().items()
            if parameter.ndim > 1
        }

    def since(self) -> Mapping[str, float]:
        """Of each group that there is, |w' - w|_2 / |w|_2, w being all its weights before."""
        moved: dict[str, float] = {}
        there: dict[str, float] = {}
        trainable = self._network.trainable()
        for name, start in self._before.items():
            parameter, group, before = trainable[name], self._group(name), start.double()
            change = parameter.detach().double() - before
            moved[group] = moved.get(group, 0.0) + float((change**2).sum())
            there[group] = there.get(group, 0.0) + float((before**2).sum())
        found = {name: math.sqrt(moved[name] / there[name]) for name in moved if there[name] > 0}
        return {name: value for name, value in found.items() if math.isfinite(value)}

    def _group(self, name: str) -> str:
        index = self._network.layer_of(name)
        if index == len(self._network.layers) - 1:
            return "head"
        return "new" if self._network.layers[index].host else "old"
