"""What the classifier of a network is given, heard while the network computes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn
from torch.utils.hooks import RemovableHandle

from jobs.growth.place import classifier_path
from jobs.models.network import Network


class Reading:
    """What the classifier that `network` has now is given, heard once it is listened to."""

    def __init__(self, network: Network) -> None:
        self._classifier = network.module.get_submodule(classifier_path(network))
        self._read: torch.Tensor | None = None

    def listen(self) -> RemovableHandle:
        """From now on, until the handle is removed, :meth:`latest` tells of the batch that the
        network was shown last."""

        def hear(_classifier: nn.Module, given: tuple[torch.Tensor, ...]) -> None:
            self._read = given[0]

        return self._classifier.register_forward_pre_hook(hear)

    @contextmanager
    def listening(self) -> Iterator[None]:
        """The same within it alone."""
        handle = self.listen()
        try:
            yield
        finally:
            handle.remove()
            self._read = None

    def latest(self) -> torch.Tensor:
        """Features (N, D) of the latest batch; told once."""
        assert self._read is not None, "the network has just been shown something"
        found, self._read = self._read, None
        return found
