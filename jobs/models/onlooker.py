"""What a network calls while it sees a picture, up to the first module that learns or draws."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial

import torch
from torch import nn

from jobs.layers import Treatment
from jobs.models.network import Network
from jobs.models.pooling import AdaptiveAvgPool2d

# What may stand between a frozen layer and the cut, whichever layer it belongs to: functions of
# what they are given alone, in training as in evaluation.
PURE = (
    nn.Identity, nn.Flatten, nn.ReLU, nn.ReLU6, nn.SiLU, nn.GELU, nn.Hardswish, nn.MaxPool2d,
    nn.AvgPool2d, nn.AdaptiveAvgPool2d, AdaptiveAvgPool2d,
)  # fmt: skip


@dataclass(eq=False)
class Call:
    """A module while the network saw the picture: within which others, given and giving what."""

    path: str
    part: nn.Module
    within: tuple[Call, ...]
    given: object
    gave: object = None
    is_open: bool = True


class Onlooker:
    """Sees the calls of modules up to the first that learns or draws."""

    def __init__(self, network: Network) -> None:
        self._network = network
        self._calls: list[Call] = []
        self._open: list[Call] = []
        self._is_there = False
        self._later: set[nn.Module] = set()

    def watch(self, picture: torch.Tensor) -> torch.Tensor:
        """Logits of a picture (1, 3, H, W)."""
        with ExitStack() as hooks, torch.enable_grad():
            for path, part in self._network.module.named_modules():
                begins, ends = partial(self._begins, path), self._ends
                hooks.callback(part.register_forward_pre_hook(begins).remove)
                hooks.callback(part.register_forward_hook(ends).remove)
            return self._network(picture).detach()

    def candidates(self) -> list[Call]:
        """The calls at which the network could be cut, in their order; those within a call that
        is over are part of it."""
        return [call for call in self._calls if all(around.is_open for around in call.within)]

    def can_pass_over(self, before: Sequence[Call]) -> bool:
        """Whether these calls are all that their modules are for, and something is saved."""
        parts = [call.part for call in before]
        times = Counter(call.part for call in self._calls)
        return any(next(part.parameters(), None) is not None for part in parts) and all(
            times[call.part] == 1
            and call.part not in self._later
            and isinstance(call.gave, torch.Tensor)
            and call.gave.shape[0] == 1
            for call in before
        )

    def _begins(self, path: str, part: nn.Module, given: tuple[object, ...]) -> None:
        if self._is_there:
            self._later.add(part)
            return
        call = Call(path, part, tuple(self._open), given[0] if given else None)
        self._calls.append(call)
        self._open.append(call)
        self._is_there = not self._stays(path, part)

    def _ends(self, _part: nn.Module, _given: object, gave: object) -> None:
        if not self._is_there:
            call = self._open.pop()
            call.is_open, call.gave = False, gave

    def _stays(self, path: str, part: nn.Module) -> bool:
        """Whether a module, apart from those in it, is the same function all along."""
        learns = any(
            self._network.treatment_of(f"{path}.{name}".removeprefix(".")) != Treatment.F
            for name in part.state_dict()
            if "." not in name
        )
        if learns or next(part.children(), None) is not None:
            return not learns
        layers = zip(self._network.layers, self._network.treatments, strict=True)
        chosen = next((chosen for layer, chosen in layers if layer.holds(path)), None)
        return chosen == Treatment.F or type(part) in PURE
