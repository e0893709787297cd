"""What a joint training has besides the network: the source's head, and counts of its images."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from ftd.errors import InputError
from jobs.growth.reading import Reading
from jobs.models.initialise import initial_state
from jobs.models.network import Network

HEAD = "source_head"


class SourceSide(nn.Module):
    """The source's linear head on what the target's head reads, a row for each source class.

    ``sums`` (float64, 2) adds up loss and right answers over the current epoch's source images.
    With rounds of hard images, ``num_rounds`` (int64) are done, and the target's training images
    stand at ``levels`` (int64, N).
    """

    sums: torch.Tensor
    num_rounds: torch.Tensor
    levels: torch.Tensor

    def __init__(
        self, width: int, class_names: Sequence[str], init_seed: int, num_levels: int
    ) -> None:
        """A head for features (N, `width`), its rows drawn by class name from `init_seed`.

        `num_levels` is how many images have a level; 0: there are no rounds.
        """
        super().__init__()
        self.source_head = nn.Linear(width, len(class_names))
        drawn = initial_state(
            self,
            (f"{HEAD}.weight", f"{HEAD}.bias"),
            classifier=HEAD,
            class_names=class_names,
            seed=init_seed,
        )
        self.register_buffer("sums", torch.zeros(2, dtype=torch.float64))
        if num_levels:
            self.register_buffer("num_rounds", torch.zeros((), dtype=torch.int64))
            self.register_buffer("levels", torch.ones(num_levels, dtype=torch.int64))
        self.load_state_dict({**self.state_dict(), **drawn})


def width_read(network: Network, size: int) -> int:
    """How many features the classifier reads of images of `size` pixels.

    Raises InputError where it does not read a vector, on which a second head could stand.
    """
    reading = Reading(network)
    was_training = network.module.training
    network.eval()
    with torch.inference_mode(), reading.listening():
        network(torch.zeros(1, 3, size, size, device=next(network.module.parameters()).device))
        read = reading.latest()
    if was_training:
        network.train()
    if read.dim() != 2:
        raise InputError(
            f"{network.model} gives its classifier no vector, so the source's head has nothing to "
            "read",
            where="model.name",
            fix="Choose another network, or selection.by: none",
        )
    return read.shape[1]
