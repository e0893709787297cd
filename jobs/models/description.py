"""What a file of kept weights says about them: of which network they are, and of which images.

It is one JSON text: safetensors writes several entries in an order that changes from process to
process, and equal weights shall be equal files.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors

from ftd.errors import WeightsError
from ftd.job import Context
from jobs.records import Preprocessing
from jobs.sources import WeightsRun

_ENTRY = "ftd"


@dataclass(frozen=True)
class Description:
    """A network as a run kept it; its images are decoded to ``decode_size``, cropped to ``size``.

    ``layers`` says how its layers were treated, ``grown`` how it has grown: for people, since the
    tensors themselves say it.
    """

    model: str
    layers: str
    class_names: tuple[str, ...]
    multi_label: bool
    preprocessing: Preprocessing
    size: int
    decode_size: int
    grown: Sequence[Mapping[str, Any]] = ()

    @property
    def metadata(self) -> dict[str, str]:
        """As safetensors keeps it."""
        sizes = {"size": self.size, "decode_size": self.decode_size}
        told = {
            "model": self.model,
            "layers": self.layers,
            "class_names": self.class_names,
            "multi_label": self.multi_label,
            "preprocessing": self.preprocessing.as_json | sizes,
            **({"grown": self.grown} if self.grown else {}),
        }
        return {_ENTRY: json.dumps(told, sort_keys=True)}

    @classmethod
    def read(cls, path: Path) -> Description:
        """What the file says; WeightsError where that is nothing that can be used."""
        try:
            with safetensors.safe_open(path, "np") as stream:
                told = json.loads((stream.metadata() or {})[_ENTRY])
            seen = told["preprocessing"]
            mean, std = (tuple(map(float, seen[name])) for name in ("mean", "std"))
            return cls(
                told["model"],
                told["layers"],
                tuple(told["class_names"]),
                bool(told["multi_label"]),
                Preprocessing(
                    (mean[0], mean[1], mean[2]), (std[0], std[1], std[2]), seen["interpolation"]
                ),
                int(seen["size"]),
                int(seen["decode_size"]),
                tuple(told.get("grown", ())),
            )
        except (
            safetensors.SafetensorError, OSError, ValueError, KeyError, IndexError, TypeError
        ) as error:  # fmt: skip
            raise WeightsError(
                f"{path} does not say which network it is of and which images it takes",
                fix="Name a run that kept a network, or give a file of weights as such: "
                "model.weights: {file: ...}",
            ) from error

    @classmethod
    def of_run(cls, weights: WeightsRun, context: Context) -> Description:
        """What the run that `weights` names says of those."""
        return cls.read(context.kept(weights.kept.called, weights.kept.file))

    def check_model(self, run: str, model: str) -> None:
        """Raise WeightsError when what `run` kept is not of `model`."""
        if self.model != model:
            raise WeightsError(
                f"{run} kept weights of {self.model}, not of {model}",
                fix=f"Set model.name: {self.model} beside them, or name another run",
            )
