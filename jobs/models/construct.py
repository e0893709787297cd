"""Making a network without memory for its weights, whatever its size.

Parameters go to the meta device the moment the constructor registers them, so that filling them
with random numbers costs nothing.  What no later file or rule may give stays real: buffers (tables
of relative positions, attention masks) and parameters of one axis (scales, shifts, tokens), whose
constants :mod:`jobs.models.initialise` takes over.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import torch
from torch import nn
from torch.nn.modules.module import register_module_parameter_registration_hook

Built = TypeVar("Built", bound=tuple[nn.Module, object])


def constructed(construct: Callable[[], Built]) -> Built:
    """What `construct` returns, a network first, whose weights are empty.

    A constructor that computes with its weights needs them: it gets memory for them after all.  The
    random generator is left as it was.
    """
    with torch.random.fork_rng(devices=[]):
        try:
            with _without_memory():
                built = construct()
            if not any(buffer.is_meta for buffer in built[0].buffers()):
                return built
        except NotImplementedError:  # what torch says about content that a tensor does not have
            pass
        return construct()


@contextmanager
def _without_memory() -> Iterator[None]:
    handle = register_module_parameter_registration_hook(_emptied)
    try:
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
