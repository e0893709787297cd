"""The source's own classifier, as it was, on layers that adapt to another task."""

from __future__ import annotations

import torch
from torch import nn

from jobs.growth.place import classifier_path
from jobs.growth.reading import Reading
from jobs.models.network import Network


class SourceClassifier:
    """What the source's classifier says of images that a network in training has just seen."""

    def __init__(self, source: Network) -> None:
        """`source` is the network as it was, with its own classifier; it is put into eval mode."""
        source.eval()
        source.module.requires_grad_(False)
        head = source.module.get_submodule(classifier_path(source))
        assert isinstance(head, nn.Linear), "so it is where a network grows"
        self._source, self._head = source, head
        self._reading: Reading | None = None

    def listen(self, network: Network) -> None:
        """Hear what the classifier of `network` is given.

        Call it before the network grows for its new task: then what is heard is what the source's
        classifier reads, parts that the source had grown itself included.
        """
        self._reading = Reading(network)
        self._reading.listen()

    def now(self) -> torch.Tensor:
        """Logits (N, source classes) of the images that were seen last; once for each look."""
        assert self._reading is not None, "it listens"
        said: torch.Tensor = self._head.forward(self._reading.latest().float())  # no hooks: joined
        return said

    def then(self, images: torch.Tensor) -> torch.Tensor:
        """Logits of `images` as the source gave them before, without gradient."""
        with torch.no_grad():
            return self._source(images).float()
