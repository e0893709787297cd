"""The state of a training run: everything that the next step, and only it, depends on.

Frozen layers are not part of it (they come from the pretrained weights), nor is any generator of
random numbers (draws are keyed), the data's position (it follows from the step), the learning rate,
or whether the last step's validation is done (repeated, it finds the same).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import nn

from ftd.files import read_json
from ftd.job import Checkpoint, Writer
from jobs.layers import Treatment
from jobs.models.network import Network
from jobs.params.train import TrainParams
from jobs.train.average import MovingAverage
from jobs.train.l2_sp import StartingPoint
from jobs.train.optimizer import build_optimizer, load_optimizer_state, optimizer_state
from jobs.train.patience import Patience

TENSORS = "state.safetensors"
FACTS = "state.json"
FILES = (TENSORS, FACTS)
SCALER = ("scale", "_growth_tracker")  # what of a gradient scaler's state changes

Tensors = dict[str, torch.Tensor]


@dataclass
class TrainingState:
    """Where training stands.

    ``step`` counts steps done; at ``validated_step`` this attempt finished its latest validation.
    ``sums`` (float64, 2) adds up loss and right answers over the images of the current epoch.
    ``best`` holds the weights of ``best_step``, the validated step with the best value so far
    (0: none).  ``average`` is what is validated and kept in place of the weights, ``start`` what
    L2-SP pulls to, ``scaler`` keeps float16 gradients in range, ``patience`` stops early,
    ``found_lr`` is what ``train.lr`` (1 then) is multiplied with, ``beside`` learns and changes
    along with the network, to be in checkpoints and in nothing that is kept; each is None where it
    is not asked for.  ``kept`` has what :meth:`keep` was told to keep, by step.
    """

    network: Network
    optimizer: torch.optim.Optimizer
    sums: torch.Tensor
    step: int = 0
    validated_step: int = 0
    diverged: bool = False
    best_step: int = 0
    best_value: float = 0.0
    best: Tensors | None = None
    average: MovingAverage | None = None
    start: StartingPoint | None = None
    scaler: torch.amp.GradScaler | None = None
    patience: Patience | None = None
    found_lr: float | None = None
    beside: nn.Module | None = None
    kept: dict[int, Tensors] = field(default_factory=dict)

    @classmethod
    def initial(
        cls, network: Network, train: TrainParams, device: str, beside: nn.Module | None = None
    ) -> TrainingState:
        """The state before the first step; moves `network` to `device` and lays it out for it."""
        network.to(device)
        network.module.to(memory_format=_layout(network, device, train.channels_last))
        sums = torch.zeros(2, dtype=torch.float64, device=device)
        if beside is not None:
            beside.to(device)
        state = cls(network, build_optimizer(network, train, beside), sums, beside=beside)
        if train.ema_decay is not None:
            state.average = MovingAverage(state.weights(), train.ema_decay)
        if train.l2_sp is not None:
            state.start = StartingPoint(network, train.l2_sp, beside)
        if train.precision == "float16":
            state.scaler = torch.amp.GradScaler(device)
        if train.early_stop is not None:
            state.patience = Patience(train.early_stop, train.select or "val/top1")
        return state

    def learning(self) -> dict[str, nn.Parameter]:
        """Everything that the optimizer changes, by name."""
        beside = {} if self.beside is None else dict(self.beside.named_parameters(prefix="beside"))
        return {**self.network.trainable(), **beside}

    def weights(self) -> Tensors:
        """Parameters and buffers of the layers that change, sharing memory with the network."""
        return {
            name: tensor
            for name, tensor in self.network.state().items()
            if self.network.treatment_of(name) != Treatment.F
        }

    def load_weights(self, weights: Mapping[str, torch.Tensor]) -> None:
        """Copy what :meth:`weights` gave back into the network."""
        for name, tensor in self.weights().items():
            tensor.copy_(weights[name])

    def keep(self) -> None:
        """Keep a copy of the weights as they are now, the average's where there is one."""
        shown = self.weights() if self.average is None else self.average.tensors
        self.kept[self.step] = {name: tensor.clone() for name, tensor in shown.items()}

    def show_average(self) -> Tensors:
        """Put the average into the network, if there is one; returns the weights trained so far."""
        trained = {name: tensor.clone() for name, tensor in self.weights().items()}
        if self.average is not None:
            self.load_weights(self.average.tensors)
        return trained

    def writers(self, weights: Tensors | None = None) -> Mapping[str, Writer]:
        """The files of a checkpoint at ``step``; `weights` stand in for the network's, if given."""
        tensors = {
            "sums": self.sums,
            **_under("weights", self.weights() if weights is None else weights),
            **_under("optimizer", optimizer_state(self.learning(), self.optimizer)),
            **_under("beside", {} if self.beside is None else self.beside.state_dict()),
            **_under("average", {} if self.average is None else self.average.tensors),
            **_under("best", self.best if self.best and self.best_step < self.step else {}),
        }
        for step, kept in self.kept.items():
            tensors |= _under(f"kept/{step}", kept)
        facts: dict[str, Any] = {
            "diverged": self.diverged,
            "best_step": self.best_step,
            "best_value": self.best_value,
        }
        if self.patience is not None:
            facts["patience"] = {"step": self.patience.step, "value": self.patience.value}
        if self.found_lr is not None:
            facts["found_lr"] = self.found_lr
        if self.scaler is not None:
            scaler = self.scaler.state_dict()
            facts["scaler"] = {name: scaler[name] for name in SCALER}

        def write_tensors(path: Path) -> None:
            save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path)

        def write_facts(path: Path) -> None:
            path.write_text(json.dumps(facts))

        return {TENSORS: write_tensors, FACTS: write_facts}

    def restore(self, checkpoint: Checkpoint) -> None:
        """Continue where `checkpoint` was taken."""
        tensors = load_file(checkpoint.path(TENSORS))
        facts = read_json(checkpoint.path(FACTS)) or {}
        self.sums.copy_(tensors["sums"])
        self.load_weights(_below("weights", tensors))
        load_optimizer_state(self.learning(), self.optimizer, _below("optimizer", tensors))
        if self.beside is not None:
            self.beside.load_state_dict(_below("beside", tensors))
        self.step = checkpoint.step
        self.diverged = facts["diverged"]
        self.best_step = facts["best_step"]
        self.best_value = facts["best_value"]
        self.found_lr = facts.get("found_lr")
        for step in sorted({int(name.partition("/")[0]) for name in _below("kept", tensors)}):
            self.kept[step] = self._moved(_below(f"kept/{step}", tensors))
        if self.average is not None:
            for name, tensor in _below("average", tensors).items():
                self.average.tensors[name].copy_(tensor)
        if self.patience is not None:
            self.patience.step = facts["patience"]["step"]
            self.patience.value = facts["patience"]["value"]
        if self.scaler is not None:
            scaler = {name: facts["scaler"][name] for name in SCALER}
            self.scaler.load_state_dict(self.scaler.state_dict() | scaler)
        if self.best_step:
            shown = "weights" if self.average is None else "average"
            self.best = self._moved(
                _below(shown if self.best_step == self.step else "best", tensors)
            )

    def _moved(self, tensors: Tensors) -> Tensors:
        return {name: tensor.to(self.sums.device) for name, tensor in tensors.items()}


def _layout(network: Network, device: str, wanted: str) -> torch.memory_format:
    """How the network's tensors are laid out.

    On the CPU depthwise convolutions compute 1.6 times as fast channels-last; other networks gain
    little or lose.
    """
    depthwise = any(getattr(part, "groups", 1) > 1 for part in network.module.modules())
    fast = wanted == "on" or (wanted == "auto" and device == "cpu" and depthwise)
    return torch.channels_last if fast else torch.contiguous_format


def _under(part: str, tensors: Tensors) -> Tensors:
    return {f"{part}/{name}": tensor for name, tensor in tensors.items()}


def _below(part: str, tensors: Tensors) -> Tensors:
    prefix = f"{part}/"
    return {n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)}
