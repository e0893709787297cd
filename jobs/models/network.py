"""A network with numbered layers: one module, and which of its tensors belong to which layer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import nn

from jobs.layers import Treatment
from jobs.models.dropout import DropoutKeys


@dataclass(frozen=True)
class Layer:
    """One numbered layer: everything inside `modules` (dotted paths) belongs to it.

    A part that the network has grown stands behind the old layers, before the classifier; `host`
    names the old layer beside it, whose treatment and learning rate it shares in later runs.
    """

    name: str
    modules: tuple[str, ...]
    host: str = ""

    def holds(self, name: str) -> bool:
        """Whether the module or tensor called `name` belongs to this layer."""
        return any(name == path or name.startswith(f"{path}.") for path in self.modules)


def layer_index(layers: Sequence[Layer], name: str) -> int:
    """The 0-based index of the one layer that holds `name`; LookupError when it is not one."""
    found = [index for index, layer in enumerate(layers) if layer.holds(name)]
    if len(found) != 1:
        raise LookupError(f"{name} belongs to {len(found)} layers, must be 1")
    return found[0]


def versioned(module: nn.Module, state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """`state` with the versions of `module`'s parts, without which some refuse their tensors."""
    complete = module.state_dict()  # carries them as an attribute
    complete.clear()
    complete.update(state)
    return complete


@dataclass(frozen=True, eq=False)
class Network:
    """A classifier, ready to train: images (N, 3, H, W) float32 in, logits (N, classes) out.

    Row i of the classifier is the class ``class_names[i]``.  Layer n is ``layers[n - 1]``.
    """

    model: str
    module: nn.Module
    layers: tuple[Layer, ...]
    treatments: tuple[Treatment, ...]
    class_names: tuple[str, ...]
    dropout_keys: DropoutKeys
    free_dropouts: list[nn.Module] = field(default_factory=list)  # they drop in frozen layers too
    held: dict[int, list[nn.Module]] = field(default_factory=dict)  # see treatment.hold
    lr_factors: Mapping[str, float] = field(default_factory=dict)  # of layers just grown, by name

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        """Logits of a batch."""
        self.dropout_keys.uses.clear()
        logits: torch.Tensor = self.module(images)
        return logits

    def set_keys(self, step: int, sample_keys: torch.Tensor) -> None:
        """Say who is in the next batch (int64, N): a training step draws its dropout from that."""
        self.dropout_keys.step = step
        self.dropout_keys.sample_keys = sample_keys

    def train(self) -> None:
        """Training mode; frozen layers stay in eval mode whatever is called.

        Free to call at every step: the modules are gone through only to leave evaluation mode.
        """
        if not self.module.training:
            self.module.train()
            self.set_free_dropouts(True)

    def eval(self) -> None:
        """Evaluation mode."""
        self.module.eval()
        self.set_free_dropouts(False)

    def set_free_dropouts(self, mode: bool) -> None:
        """Put them into training or evaluation mode, which their layers do not pass on."""
        for part in self.free_dropouts:
            part.training = mode

    def to(self, device: torch.device | str) -> Network:
        """Move all tensors to `device`, in place."""
        self.module.to(device)
        return self

    @property
    def numbers(self) -> tuple[int, ...]:
        """The number of each of ``layers``: old ones keep theirs, the classifier's included; parts
        that the network has grown are numbered behind it."""
        num_grown = sum(1 for layer in self.layers if layer.host)
        num_old = len(self.layers) - num_grown
        grown = range(num_old + 1, num_old + 1 + num_grown)
        return (*range(1, num_old), *grown, num_old)

    def layer_of(self, name: str) -> int:
        """The 0-based index of the layer that holds a parameter or buffer."""
        return layer_index(self.layers, name)

    def treatment_of(self, name: str) -> Treatment:
        """How the layer of a parameter or buffer is treated."""
        return self.treatments[self.layer_of(name)]

    def trainable(self) -> dict[str, nn.Parameter]:
        """The parameters of layers FT and R, by name."""
        return {
            name: parameter
            for name, parameter in self.module.named_parameters()
            if self.treatment_of(name) != Treatment.F
        }

    def state(self) -> dict[str, torch.Tensor]:
        """All parameters and buffers by name, sharing memory with the network."""
        return {name: tensor.detach() for name, tensor in self.module.state_dict().items()}

    def load_state(self, state: dict[str, torch.Tensor]) -> None:
        """Copy a complete :meth:`state` into the network; RuntimeError when it does not fit."""
        self.module.load_state_dict(versioned(self.module, state))
