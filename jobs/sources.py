"""Pretrained weights as a spec names them: what they read from outside and what determines them.

``imagenet`` means the published weights of a network: for EfficientNet-Lite0 the file inside an
installed package, for torchvision's networks the file in torch's download folder, for timm's the
file in Hugging Face's.  Knows no torch; :mod:`jobs.records` has the facts.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, JsonValue, Tag, field_validator

from ftd.errors import WeightsError
from ftd.files import sha256_of
from ftd.job import Input, Params
from ftd.regular import full_path
from jobs.records import record
from jobs.timm_names import is_timm

MAX_WEIGHTS_BYTES = 32 << 30


class WeightsFile(Params):
    """Weights in a file of one's own."""

    file: str = Field(
        description="safetensors (*.safetensors) or a PyTorch file that holds tensors only"
    )
    key_map: dict[str, str | None] = Field(
        default_factory=dict,
        description="prefix of the names in the file -> prefix in the network, the longest match "
        "counts; null drops such tensors",
    )
    sha256: str | None = Field(
        default=None,
        pattern="^[0-9a-f]{64}$",
        description="SHA-256 that the file must have, in hexadecimal",
    )


class WeightsRun(Params):
    """The weights that a run of this home kept."""

    run: str = Field(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$",
        description="Run of the same network (r12) whose kept weights to start from; one that is "
        "not done yet is waited for. Or an experiment: each replicate starts from its run of the "
        "same replicate, or all from its only one. A classifier of the same classes can be kept "
        "too: FT(1-).",
    )
    cell: dict[str, JsonValue] = Field(
        default={},
        description="Levels that pick one cell of an experiment with several, {FACTOR: level}; a "
        "factor can set cell.FACTOR.",
    )
    checkpoint: int | None = Field(
        default=None,
        ge=1,
        description="Its weights after so many steps, if it keeps them (pretrain's keep_at).",
    )

    @field_validator("cell")
    @classmethod
    def _picks(cls, value: dict[str, JsonValue]) -> dict[str, JsonValue]:
        names = [name for name, _ in _leaves(value)]
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise ValueError(f"the level of {twice} is given twice")
        listed = next((name for name, level in _leaves(value) if isinstance(level, list)), None)
        if listed is not None:
            raise ValueError(f"{listed} needs a single level, not a list of them")
        return value

    @property
    def kept(self) -> Input:
        """The run, and the file of weights it keeps."""
        name = WEIGHTS if self.checkpoint is None else checkpoint_name(self.checkpoint)
        levels = sorted(_leaves(self.cell))
        return Input("run", self.run, tuple(levels), name)  # type: ignore[arg-type]


# What a run that trains a network keeps; what any run keeps that says something of test images.
WEIGHTS, PREDICTIONS = "weights.safetensors", "predictions.safetensors"


def checkpoint_name(step: int) -> str:
    """The file in which a run keeps its weights after `step` steps."""
    return f"weights-{step}.safetensors"


def _leaves(cell: Mapping[str, JsonValue], prefix: str = "") -> Iterator[tuple[str, JsonValue]]:
    """Dotted names and levels: ``{a: {b: 1}}`` and ``{a.b: 1}`` say the same."""
    for name, value in cell.items():
        if isinstance(value, dict):
            yield from _leaves(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _form(value: object) -> str:
    """Which of the forms below somebody means, so that only its errors are told."""
    if isinstance(value, WeightsRun) or (isinstance(value, Mapping) and "run" in value):
        return "a run"
    return "a file" if isinstance(value, WeightsFile | Mapping) else "a word"


Weights = Annotated[
    Annotated[Literal["imagenet", "none"], Tag("a word")]
    | Annotated[WeightsFile, Tag("a file")]
    | Annotated[WeightsRun, Tag("a run")],
    Discriminator(_form),
]


def resolve(model: str, weights: Weights, base: Path) -> Weights:
    """`weights` with an absolute file path (relative ones start at `base`).

    Raises UnknownName for the network and WeightsError when there are no such weights.
    """
    known = record(model)
    if isinstance(weights, WeightsRun):
        return weights
    if not isinstance(weights, WeightsFile):
        if weights == "imagenet" and not known.exists:
            raise WeightsError(
                f"there are no published weights of {model}",
                where="model.weights",
                fix="Use weights: none, or a file of your own",
            )
        return weights
    path = full_path(weights.file, base)
    if not path.is_file():
        raise WeightsError(
            f"no weights file at {path}", where="model.weights.file", fix="Check the path"
        )
    if path.stat().st_size > MAX_WEIGHTS_BYTES:
        raise WeightsError(
            f"{path} is larger than any weights, {MAX_WEIGHTS_BYTES >> 30} GiB",
            where="model.weights.file",
            fix="Check the path",
        )
    check_digest(path, weights.sha256)
    return weights.model_copy(update={"file": str(path)})


def check_digest(path: Path, wanted: str | None) -> None:
    """Raises WeightsError when a file's SHA-256 does not begin with `wanted` (None: any may)."""
    if wanted is None:
        return
    found = sha256_of(path)
    if not found.startswith(wanted):
        raise WeightsError(
            f"{path} is not the file that is asked for: its SHA-256 is {found}, must begin with "
            f"{wanted}",
            fix="Delete it and get it again",
        )


def inputs(model: str, weights: Weights) -> dict[str, Input]:
    """What resolved `weights` read from outside, and the package that a network comes with.

    Weights in a download folder are no input: which ones they are is in :func:`identity`, and their
    digest is part of their name and verified when they are loaded.
    """
    found = {"timm": Input("package", "timm")} if is_timm(model) else {}
    if isinstance(weights, WeightsFile):
        return {**found, "weights": Input("file", weights.file)}
    if isinstance(weights, WeightsRun):
        return {**found, "weights": weights.kept}
    package = record(model).package if weights == "imagenet" else None
    return {**found, "weights": Input("package", package)} if package else found


def identity(model: str, weights: Weights) -> Mapping[str, Any]:
    """What determines the loaded tensors, as JSON values, besides the content of :func:`inputs`."""
    if isinstance(weights, WeightsRun):
        return {} if weights.checkpoint is None else {"checkpoint": weights.checkpoint}
    if isinstance(weights, WeightsFile):
        return {"key_map": dict(weights.key_map)}
    known = record(model)
    return {"imagenet": known.hub or known.file} if weights == "imagenet" else {}


def download_folder() -> Path:
    """Where torch keeps downloaded weights (``torch.hub.get_dir()/checkpoints``)."""
    cache = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    home = os.environ.get("TORCH_HOME") or os.path.join(cache, "torch")
    return Path(home).expanduser() / "hub" / "checkpoints"


def hub_folder() -> Path:
    """Where Hugging Face's hub keeps downloaded files."""
    if "HF_HUB_CACHE" in os.environ:
        return Path(os.environ["HF_HUB_CACHE"]).expanduser()
    cache = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    home = os.environ.get("HF_HOME") or os.path.join(cache, "huggingface")
    return Path(home).expanduser() / "hub"
