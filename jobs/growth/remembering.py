"""Learning without forgetting: the adapted layers shall go on saying what the source said.

Li, Hoiem: Learning without Forgetting (ECCV 2016).  On the target's own images, what the source's
classifier says through the layers as they are is pulled to what it said through the layers as they
were.  Here that classifier stays as it was, where the paper lets it learn along: it is the one that
forgetting is measured with.
"""

from __future__ import annotations

import torch
from torch.nn import functional

from jobs.growth.source_classifier import SourceClassifier
from jobs.params.growth import LwfParams


class Remembering:
    """A penalty on what is forgotten, for one network in training."""

    def __init__(self, classifier: SourceClassifier, wanted: LwfParams) -> None:
        self._classifier, self._wanted = classifier, wanted

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        """weight T^2 KL(softmax(z / T) || softmax(z' / T)), summed over the images just seen.

        z are the source's logits of `images`, z' those that its classifier gives now.
        """
        temperature = self._wanted.temperature
        then, now = (
            functional.log_softmax(logits / temperature, dim=1)
            for logits in (self._classifier.then(images), self._classifier.now())
        )
        divergence = functional.kl_div(now, then, reduction="sum", log_target=True)
        return divergence * (self._wanted.weight * temperature**2)
