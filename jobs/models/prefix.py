"""A network cut behind its frozen beginning: what that says about an image never changes.

Where to cut is found by looking on while the network sees one picture: at the last place before
anything that learns or draws from which the rest can be computed.  The network itself is not
rebuilt.  To compute the rest, modules before the cut are passed over, and what the module at the
cut is given is put there.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import nn

from jobs.layers import Treatment
from jobs.models.network import Network
from jobs.models.onlooker import Call, Onlooker

# What modules say to images of which there are none beside others of which there are.
REFUSALS = (RuntimeError, ValueError, AssertionError)


@dataclass(frozen=True, eq=False)
class Rest(Network):
    """The layers behind the cut: what the beginning says (N, ...) in, logits (N, classes) out."""

    put: Callable[[torch.Tensor], torch.Tensor] = field(kw_only=True)

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        """Logits of a batch; `images` are features here."""
        self.dropout_keys.uses.clear()
        return self.put(images)


class Prefix:
    """The frozen beginning of a network; ``shape`` (of one image) is what it says."""

    def __init__(self, network: Network, cut: Call, before: Sequence[Call], size: int) -> None:
        """From now on `network` itself, which sees `size` pixels, is not to be called any more."""
        assert isinstance(cut.given, torch.Tensor)
        self.network = network
        self.rest = Rest(**vars(network), put=self._put)
        self.path = cut.path
        self.shape = tuple(cut.given.shape[1:])
        self.is_channels_last = cut.given.dim() == 4 and not cut.given.is_contiguous()
        self._paths = [call.path for call in before]
        self._around = [call.path for call in cut.within]
        self._features: torch.Tensor | None = None  # while the rest is computed
        self._undo = ExitStack()
        handle = cut.part.register_forward_pre_hook(self._at, prepend=True, with_kwargs=True)
        self._undo.callback(handle.remove)
        device = cut.given.device
        self._no_picture = torch.empty((0, 3, size, size), device=device)
        for call in before:
            assert isinstance(call.gave, torch.Tensor)
            nothing = torch.empty((0, *call.gave.shape[1:]), device=device)
            self._pass_over(call.part, nothing)

    @property
    def num_values(self) -> int:
        """How many numbers it says about one image."""
        return int(torch.Size(self.shape).numel())

    def tensors(self) -> Mapping[str, torch.Tensor]:
        """All that what it says depends on, by name."""
        return {
            name: tensor
            for name, tensor in self.network.state().items()
            if any(name.startswith(f"{path}.") for path in self._paths)
            or (
                name.rpartition(".")[0] in self._around
                and self.network.treatment_of(name) == Treatment.F
            )
        }

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        """What it says about images (N, 3, H, W): float32 (N, ...)."""
        self.network.dropout_keys.uses.clear()
        with torch.no_grad():
            try:
                self.network.module(images)
            except _AtTheCut as reached:
                return reached.given
        raise AssertionError("the network passes the cut")

    def agrees(self, picture: torch.Tensor, logits: torch.Tensor) -> bool:
        """Whether the rest alone gives the `logits` of a picture (1, 3, H, W)."""
        features = self(picture)
        try:
            with torch.no_grad():
                found = self.rest(features)
        except REFUSALS:  # something passed over is needed behind the cut: it has no rows
            return False
        same_shape = found.shape == logits.shape
        return same_shape and torch.allclose(found, logits, 1e-4, 1e-5, equal_nan=True)

    def undo(self) -> None:
        """Give the network back as it was."""
        self._undo.close()

    def _put(self, features: torch.Tensor) -> torch.Tensor:
        """Logits of what was said."""
        if self.is_channels_last:
            features = features.contiguous(memory_format=torch.channels_last)
        self._features = features
        try:
            logits: torch.Tensor = self.network.module(self._no_picture)
        finally:
            self._features = None
        return logits

    def _at(self, _part: nn.Module, given: tuple[Any, ...], named: dict[str, Any]) -> Any:
        """At the cut: the way ends there, or begins."""
        if self._features is None:
            raise _AtTheCut(given[0])
        return (self._features, *given[1:]), named

    def _pass_over(self, part: nn.Module, nothing: torch.Tensor) -> None:
        own = part.__dict__.get("forward")
        forward = part.forward

        def maybe(*given: Any, **named: Any) -> Any:
            return forward(*given, **named) if self._features is None else nothing

        part.forward = maybe
        undo = partial(part.__dict__.pop, "forward")
        self._undo.callback(undo if own is None else partial(setattr, part, "forward", own))


class _AtTheCut(Exception):
    """Ends a pass through the network."""

    def __init__(self, given: torch.Tensor) -> None:
        super().__init__()
        self.given = given


def frozen_prefix(network: Network, size: int, most_values: int) -> Prefix | None:
    """The beginning of `network`, for images of `size` pixels; None when there is none.

    It says at most so many numbers about an image.
    """
    if network.treatments[0] != Treatment.F:
        return None
    device = next(network.module.parameters()).device
    generator = torch.Generator().manual_seed(0)
    picture = torch.rand(1, 3, size, size, generator=generator).to(device) * 4 - 2
    network.eval()
    onlooker = Onlooker(network)
    logits = onlooker.watch(picture)
    calls = onlooker.candidates()
    for index in reversed(range(len(calls))):
        cut, before = calls[index], [call for call in calls[:index] if not call.is_open]
        if _fits(cut.given, most_values) and onlooker.can_pass_over(before):
            prefix = Prefix(network, cut, before, size)
            if prefix.agrees(picture, logits):
                return prefix
            prefix.undo()
    return None


def _fits(given: object, most_values: int) -> bool:
    """Whether what a module is given can stand for an image, and nothing learns before it."""
    return (
        isinstance(given, torch.Tensor)
        and given.dtype == torch.float32
        and given.shape[0] == 1
        and given.numel() <= most_values
        and not given.requires_grad
    )
