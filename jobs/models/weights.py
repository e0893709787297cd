"""Reading pretrained weights: tensors only, never code, and none that does not fit.

The result always has the network's own tensor names.
"""

from __future__ import annotations

import pickle
import struct
from collections.abc import Collection, Mapping
from pathlib import Path

import safetensors
import safetensors.torch
import torch

from ftd.errors import WeightsError, nearest
from ftd.regular import open_regular
from jobs.models import efficientnet_lite, zoo
from jobs.models.published import locate
from jobs.records import record
from jobs.sources import Weights, WeightsFile, WeightsRun, check_digest

State = dict[str, torch.Tensor]

_NESTS = ("state_dict", "model")  # where training scripts put the tensors in their checkpoints
_NUM_SHOWN = 3
# torch's reader of tensors-only files raises any of these on the bytes of a damaged file
_DAMAGE = (
    pickle.UnpicklingError,
    safetensors.SafetensorError,
    struct.error,
    ArithmeticError,
    AssertionError,
    AttributeError,
    EOFError,
    LookupError,
    RuntimeError,
    TypeError,
    ValueError,
)


def load(model: str, weights: Weights, *, allow_downloads: bool) -> State | None:
    """The tensors of `weights` by the names of the network `model`; None for ``none``.

    Floating-point tensors come as float32.  Raises WeightsError when the file is missing, damaged,
    or would execute code.
    """
    assert not isinstance(weights, WeightsRun), "jobs.models.kept knows how"
    if isinstance(weights, WeightsFile):
        check_digest(Path(weights.file), weights.sha256)
        return renamed(read(Path(weights.file)), weights.key_map)
    if weights == "none":
        return None
    state = read(locate(model, record(model), allow_downloads=allow_downloads))
    rename = efficientnet_lite if model in efficientnet_lite.MODELS else zoo
    names = {name: rename.own_name(model, name) for name in state}
    return {own: state[name] for name, own in names.items() if own is not None}


def read(path: Path) -> State:
    """The tensors in a safetensors file or a PyTorch file that holds nothing but tensors."""
    try:
        open_regular(path).close()  # or libraries would wait for a fifo's writer
        if path.suffix == ".safetensors":
            content: object = safetensors.torch.load_file(path)
        else:
            content = torch.load(path, map_location="cpu", weights_only=True)
    except _DAMAGE as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        if isinstance(error, pickle.UnpicklingError):  # torch's text advises to execute the file
            reason = type(error).__name__
        raise WeightsError(
            f"{path} is damaged or holds more than tensors, so it was not loaded ({reason})",
            fix="Save it as safetensors, or with torch.save(model.state_dict())",
        ) from error
    except OSError as error:
        raise WeightsError(f"cannot read {path} ({error.strerror})") from error
    return _tensors(content, path)


def _tensors(content: object, path: Path) -> State:
    while isinstance(content, Mapping):
        nest = next((n for n in _NESTS if isinstance(content.get(n), Mapping)), None)
        if nest is None:
            break
        content = content[nest]
    if not isinstance(content, Mapping) or not content:
        raise WeightsError(f"{path} holds no named tensors", fix="Save model.state_dict()")
    state: State = {}
    for name, value in content.items():
        if not isinstance(name, str) or not isinstance(value, torch.Tensor):
            raise WeightsError(
                f"{path} holds '{name}', which is no tensor", fix="Save model.state_dict() alone"
            )
        if not _plain(value):
            raise WeightsError(
                f"{path} holds '{name}', which is no plain tensor with content of its own",
                fix="Save model.state_dict() of a model whose tensors are dense",
            )
        state[name] = value.float() if value.is_floating_point() else value
    return state


def _plain(tensor: torch.Tensor) -> bool:
    """Whether a tensor is dense and has its content in the file.

    One that repeats a few bytes may claim any size, and would take that much memory when copied.
    """
    if tensor.layout != torch.strided or tensor.is_nested or tensor.is_quantized or tensor.is_meta:
        return False
    return tensor.numel() * tensor.element_size() <= tensor.untyped_storage().nbytes()


def renamed(state: State, key_map: Mapping[str, str | None]) -> State:
    """`state` with the longest matching prefix of each name replaced once; None drops the tensor.

    Raises WeightsError when two tensors end up with one name.
    """
    result: State = {}
    for name, value in state.items():
        prefix = max((p for p in key_map if name.startswith(p)), key=len, default=None)
        replacement = "" if prefix is None else key_map[prefix]
        if replacement is None:
            continue
        new = replacement + name.removeprefix(prefix or "")
        if new in result:
            raise WeightsError(f"key_map gives two tensors the name '{new}'", fix="Change key_map")
        result[new] = value
    return result


def fitted(
    state: State, shapes: Mapping[str, torch.Size], kept: Collection[str], classifier: str
) -> State:
    """Copies of the tensors called `kept`, of the right shapes (`shapes` has all the network's).

    A missing ``num_batches_tracked`` is 0, as torch itself reads old files.  Raises one
    WeightsError that names the first tensors missing, of another shape, or unknown to the network.
    """
    filled = dict(state)
    for name in kept:
        if name.endswith("num_batches_tracked"):
            filled.setdefault(name, torch.zeros((), dtype=torch.int64))
    missing = [name for name in kept if name not in filled]
    unknown = [name for name in filled if name not in shapes]
    wrong = [name for name in kept if name in filled and filled[name].shape != shapes[name]]
    if missing or unknown:
        raise WeightsError(
            "; ".join(
                _listed(problem, names, other)
                for problem, names, other in (
                    ("missing", missing, unknown),
                    ("unknown to the network", unknown, []),
                )
                if names
            ),
            where="weights",
            fix="Rename with key_map: {prefix in the file: prefix in the network}, "
            "drop with {prefix: null}",
        )
    if wrong:
        raise WeightsError(
            _listed(
                "of another shape",
                [f"{n} {tuple(filled[n].shape)}, must be {tuple(shapes[n])}" for n in wrong],
                [],
            ),
            where="weights",
            fix="These are weights for other classes: re-initialise the classifier with R(last)"
            if all(name.startswith(f"{classifier}.") for name in wrong)
            else "These are weights of another network",
        )
    # copies, because training writes into them; contiguous, so that strides in a file cannot matter
    return {name: filled[name].clone(memory_format=torch.contiguous_format) for name in kept}


def _listed(problem: str, names: list[str], others: list[str]) -> str:
    shown = [
        f"{name} (did you mean '{near}'?)" if (near := nearest(name, others)) else name
        for name in names[:_NUM_SHOWN]
    ]
    more = f" and {len(names) - _NUM_SHOWN} more" if len(names) > _NUM_SHOWN else ""
    noun = "tensor" if len(names) == 1 else "tensors"
    return f"{len(names)} {noun} {problem}: {', '.join(shown)}{more}"
