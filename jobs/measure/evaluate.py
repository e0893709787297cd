"""A network's logits for a set of samples, in eval mode."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import numpy.typing as npt
import torch

from jobs.data.augment import Look
from jobs.data.batches import Loader
from jobs.data.keyed import Indices
from jobs.models.network import Network

# The batch's geometry is part of the numbers, so it is fixed: what the caches of a CPU core hold,
# and what keeps a GPU busy (one device kind never stands in for the other).
BATCH_SIZE = {"cpu": 16, "cuda": 128}


def evaluate(
    network: Network,
    loader: Loader,
    indices: Indices,
    device: str,
    pause: Callable[[], None],
    look: Look | None = None,
) -> npt.NDArray[np.float32]:
    """Logits (float32, (N, K)) of the samples `indices`, on the CPU; may be infinite or NaN.

    Each is looked at as `look` says (None: its centre).
    `pause` is called after each batch and may raise to leave.  The network is left in eval mode.
    """
    found = [torch.empty((0, len(network.class_names)))]
    for logits in shown(network, loader, indices, device, pause, look):
        found.append(logits.float().cpu())
    return np.asarray(torch.cat(found).numpy())


def shown(
    network: Network,
    loader: Loader,
    indices: Indices,
    device: str,
    pause: Callable[[], None],
    look: Look | None = None,
) -> Iterator[torch.Tensor]:
    """As :func:`evaluate`, batch by batch: the logits of each, on the device."""
    network.eval()
    for batch in loader.evaluation(indices, BATCH_SIZE[device], look):
        with torch.inference_mode():
            logits = network(batch.images)
        yield logits
        pause()
