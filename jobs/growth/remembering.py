"""Learning without forgetting: the adapted layers shall go on saying what the source said.

Li, Hoiem: Learning without Forgetting (ECCV 2016).  On the target's own images, what the source's
classifier says through the layers as they are is pulled to what it said through the layers as they
were.  Here that classifier stays as it was, where the paper lets it learn along: it is the one that
forgetting is measured with.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

from jobs.growth.place import classifier_path
from jobs.models.network import Network
from jobs.params.growth import LwfParams


class Remembering:
    """A penalty on what is forgotten, for one network in training."""

    def __init__(self, source: Network, wanted: LwfParams) -> None:
        """`source` is the network as it was, with its own classifier; it is put into eval mode."""
        source.eval()
        source.module.requires_grad_(False)
        head = source.module.get_submodule(classifier_path(source))
        assert isinstance(head, nn.Linear), "so it is where a network grows"
        self._source, self._head, self._wanted = source, head, wanted
        self._read: torch.Tensor | None = None

    def listen(self, network: Network) -> None:
        """Hear what the classifier of `network` is given, before any growth adds to it."""

        def hear(_classifier: nn.Module, given: tuple[torch.Tensor, ...]) -> None:
            self._read = given[0]

        head = network.module.get_submodule(classifier_path(network))
        head.register_forward_pre_hook(hear, prepend=True)

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        """weight T^2 KL(softmax(z / T) || softmax(z' / T)), summed over the images just seen.

        z are the source's logits of `images`, z' those that its classifier gives now.
        """
        assert self._read is not None, "the network has just seen them"
        temperature = self._wanted.temperature
        with torch.no_grad():
            then = functional.log_softmax(self._source(images).float() / temperature, dim=1)
        now = functional.log_softmax(self._head(self._read.float()) / temperature, dim=1)
        self._read = None
        divergence = functional.kl_div(now, then, reduction="sum", log_target=True)
        return divergence * (self._wanted.weight * temperature**2)
