"""The outputs of all numbered layers of a network, in one forward pass that they do not change.

A layer's output is what the next layer is given: behind activation, pooling and shortcut.  Where
that is a flattened or averaged map, the output is the map.  Which module to listen to is found by
looking on while the network sees one picture: what the first module of the next layer is given,
and, if that is a vector, which map it was made of, compared by value.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from ftd.errors import InputError
from jobs.models.network import Network

Receive = Callable[[int, "Output"], None]


@dataclass(frozen=True)
class Output:
    """What one layer says about N images.

    ``map`` is float32 (N, C, H, W), of a vector (N, C, 1, 1).  Tokens are a map of the picture's
    patches; ``token``, where there is one, is the class token (N, C).
    """

    map: torch.Tensor
    token: torch.Tensor | None = None


@dataclass(frozen=True)
class _Tap:
    """Where layer `number` is heard: when module `at` begins.

    What it is given counts, or what module `source` gave before: a map.
    """

    number: int
    at: str
    source: str | None


class Taps:
    """A network that tells what its layers say about images of one size."""

    def __init__(self, network: Network, size: int) -> None:
        """`size` is the pixels' side of the images that it will see."""
        self.network = network
        self._parts = dict(network.module.named_modules())
        self._channels_last = _is_channels_last(network.module)
        self._num_first = _num_first_tokens(network.module)
        self._taps = self._found(size)

    @property
    def numbers(self) -> tuple[int, ...]:
        """The layers that can be heard, ascending; the last one always can."""
        return tuple(sorted((*(tap.number for tap in self._taps), self.network.numbers[-1])))

    @property
    def read(self) -> int:
        """The layer whose output the classifier reads: it may be a part that was grown."""
        return self.network.numbers[-2]

    def require(self, number: int) -> None:
        """Raise InputError when layer `number` cannot be heard."""
        if number not in self.numbers:
            name = self.network.layers[self.network.numbers.index(number)].name
            raise InputError(
                f"{self.network.model} gives no single map of features behind layer {number} "
                f"({name})",
                where="features.layer",
                fix=f"Layers that can be used: {', '.join(map(str, self.numbers))}",
            )

    def __call__(self, images: torch.Tensor, receive: Receive) -> torch.Tensor:
        """Logits of `images` (N, 3, H, W); `receive(number, output)` is called for each layer.

        It must use an output at once: what follows in the network may overwrite it.
        """
        held: dict[str, torch.Tensor] = {}
        told: set[int] = set()

        def keep(path: str) -> Callable[..., None]:
            def after(_part: nn.Module, _given: object, result: object) -> None:
                if isinstance(result, torch.Tensor):
                    held[path] = result

            return after

        def tell(tap: _Tap) -> Callable[..., None]:
            def before(_part: nn.Module, given: Any, named: Any) -> None:
                if tap.number not in told:  # some modules are used twice in a pass
                    told.add(tap.number)
                    tensor = _given(given, named) if tap.source is None else held[tap.source]
                    assert tensor is not None, "so it was when the taps were found"
                    receive(tap.number, self._output(tensor))

            return before

        with ExitStack() as hooks, torch.inference_mode():
            for path in {tap.source for tap in self._taps if tap.source is not None}:
                handle = self._parts[path].register_forward_hook(keep(path))
                hooks.callback(handle.remove)
            for tap in self._taps:
                handle = self._parts[tap.at].register_forward_pre_hook(tell(tap), with_kwargs=True)
                hooks.callback(handle.remove)
            logits = self.network(images)
            receive(self.network.numbers[-1], Output(logits[:, :, None, None]))
        return logits

    def _found(self, size: int) -> tuple[_Tap, ...]:
        """One tap for each layer before the last, unless what it gives is no map."""
        first = self._first_modules()
        outputs: list[tuple[str, torch.Tensor]] = []  # of modules, in the order of computation
        found: dict[int, _Tap] = {}

        def after(path: str) -> Callable[..., None]:
            def hook(_part: nn.Module, _given: object, result: object) -> None:
                if isinstance(result, torch.Tensor) and result.dim() in (3, 4):
                    outputs.append((path, result))

            return hook

        def before(path: str, number: int) -> Callable[..., None]:
            def hook(_part: nn.Module, given: Any, named: Any) -> None:
                tensor = _given(given, named)
                if number not in found and tensor is not None:
                    source = None
                    if self._output(tensor).map[0, 0].numel() == 1:
                        source = self._made_of(tensor.flatten(1), outputs)
                    found[number] = _Tap(number, path, source)

            return hook

        parameter = next(self.network.module.parameters())
        picture = torch.rand(1, 3, size, size, generator=torch.Generator().manual_seed(0))
        with ExitStack() as hooks, torch.inference_mode():
            for path, part in self._parts.items():
                if path:
                    hooks.callback(part.register_forward_hook(after(path)).remove)
                if path in first:
                    hook = before(path, first[path])
                    hooks.callback(part.register_forward_pre_hook(hook, with_kwargs=True).remove)
            self.network.eval()
            self.network(picture.to(parameter.device) * 4 - 2)
        return tuple(found[number] for number in sorted(found))

    def _first_modules(self) -> dict[str, int]:
        """Modules with tensors at which a layer may begin -> the number of the layer before."""
        first: dict[str, int] = {}
        layers, numbers = self.network.layers[1:], self.network.numbers
        for number_before, layer in zip(numbers, layers, strict=False):
            for path, part in self._parts.items():
                above = path.rpartition(".")[0]
                if layer.holds(path) and not layer.holds(above) and part.state_dict():
                    first[path] = number_before
        return first

    def _made_of(
        self, vector: torch.Tensor, outputs: Sequence[tuple[str, torch.Tensor]]
    ) -> str | None:
        """The latest module whose map was flattened or averaged to `vector` (1, D), if any was."""
        for path, tensor in reversed(outputs):
            output = self._output(tensor)
            if output.map[0, 0].numel() == 1 or len(tensor) != 1:
                continue
            made = [output.map.flatten(1), output.map.mean((2, 3))]
            made += [] if output.token is None else [output.token]
            if any(one.shape == vector.shape and torch.allclose(one, vector, 1e-4, 1e-5)
                   for one in made):  # fmt: skip
                return path
        return None

    def _output(self, tensor: torch.Tensor) -> Output:
        """A layer's tensor as a map."""
        if tensor.dim() == 2:
            return Output(tensor[:, :, None, None])
        if tensor.dim() == 4:
            _, first, middle, last = tensor.shape
            is_last = first == middle != last or (self._channels_last and first == middle)
            return Output(tensor.permute(0, 3, 1, 2) if is_last else tensor)
        _, num_tokens, width = tensor.shape
        num_first = self._num_first
        if num_first is None or math.isqrt(num_tokens - num_first) ** 2 != num_tokens - num_first:
            num_first = num_tokens - math.isqrt(num_tokens) ** 2  # pictures are squares
        side = math.isqrt(num_tokens - num_first)
        patches = tensor[:, num_first:].transpose(1, 2).reshape(len(tensor), width, side, side)
        return Output(patches, tensor[:, 0] if num_first else None)


def _given(given: Any, named: Any) -> torch.Tensor | None:
    """The tensor that a module is given: the first one, or several maps side by side."""
    for value in (*given, *named.values()):
        if isinstance(value, torch.Tensor):
            return value if 2 <= value.dim() <= 4 else None
        if isinstance(value, list | tuple) and value:
            if all(isinstance(one, torch.Tensor) and one.dim() == 4 for one in value):
                same = len({one.shape[2:] for one in value}) == 1
                return torch.cat(list(value), 1) if same else None
            return None
    return None


def _is_channels_last(module: nn.Module) -> bool:
    """Whether the maps between layers are (N, H, W, C) where their shapes do not tell."""
    from torchvision.models import SwinTransformer  # torchvision takes seconds to import

    return isinstance(module, SwinTransformer) or (
        str(getattr(module, "output_fmt", "")).upper().endswith("NHWC")
    )


def _num_first_tokens(module: nn.Module) -> int | None:
    """How many tokens stand before those of the patches, if the network says so."""
    from torchvision.models import VisionTransformer

    if isinstance(module, VisionTransformer):
        return 1
    number = getattr(module, "num_prefix_tokens", None)
    return number if isinstance(number, int) else None
