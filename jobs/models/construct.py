"""Making a network without memory for its weights, whatever its size.

Parameters go to the meta device the moment the constructor registers them, so that filling them
with random numbers costs nothing.  What no later file or rule may give stays real: buffers (tables
of relative positions, attention masks) and parameters of one axis (scales, shifts, tokens), whose
constants :mod:`jobs.models.initialise` takes over.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn
from torch.nn.modules.module import register_module_parameter_registration_hook


@contextmanager
def without_memory() -> Iterator[None]:
    """Networks constructed in here have empty weights; the random generator is left as it was."""
    handle = register_module_parameter_registration_hook(_emptied)
    try:
        with torch.random.fork_rng(devices=[]):
            yield
    finally:
        handle.remove()


def _emptied(_module: nn.Module, _name: str, parameter: nn.Parameter | None) -> nn.Parameter | None:
    """The same parameter on the meta device, or None: as it is."""
    if parameter is None or parameter.is_meta or has_one_axis(parameter):
        return None
    return nn.Parameter(parameter.detach().to("meta"), requires_grad=parameter.requires_grad)


def has_one_axis(tensor: torch.Tensor) -> bool:
    """Whether all axes but one have length 1, as those of a bias or of a scale per channel."""
    return tensor.numel() == max(tensor.shape, default=1)
