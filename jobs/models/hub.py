"""Files that Hugging Face's hub offers, found in its cache folder or downloaded into it.

The cache keeps a large file under its SHA-256, so that what is found can be verified.
"""

from __future__ import annotations

import re
from pathlib import Path

from ftd.errors import WeightsError
from jobs.sources import check_digest, hub_folder

# What timm's repositories hold; the first that is there counts.
FILES = ("model.safetensors", "pytorch_model.bin")
_SHA256 = re.compile(r"[0-9a-f]{64}")


def hub_file(model: str, repository: str, *, allow_downloads: bool) -> Path:
    """The weights of the hub's `repository`, verified against the digest it is kept under.

    Raises WeightsError that says what to do when it is not here and cannot be downloaded.
    """
    path = _cached(repository)
    if path is None and allow_downloads:
        path = _downloaded(repository)
    if path is None:
        raise WeightsError(
            f"the published weights of {model} ({repository}) are not on this machine",
            fix=f"Set allow_downloads = true in ftd.toml, or run `hf download {repository}` "
            f"(into {hub_folder()}), or give a file: model.weights: {{file: ...}}",
        )
    kept = path.resolve()
    check_digest(kept, kept.name if _SHA256.fullmatch(kept.name) else None)
    return path


def _cached(repository: str) -> Path | None:
    """The file of the newest revision that is here."""
    folder = hub_folder() / f"models--{repository.replace('/', '--')}"
    try:
        revision = (folder / "refs" / "main").read_text().strip()
    except OSError:
        return None
    paths = [folder / "snapshots" / revision / name for name in FILES]
    return next((path for path in paths if path.is_file()), None)


def _downloaded(repository: str) -> Path:
    from huggingface_hub import hf_hub_download  # comes with timm
    from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError

    for name in FILES:
        try:
            return Path(hf_hub_download(repository, name, cache_dir=str(hub_folder())))
        except EntryNotFoundError:
            continue
        except (HfHubHTTPError, OSError) as error:
            raise WeightsError(
                f"cannot download {name} of {repository} ({error})",
                fix="Check the connection, or give a file: model.weights: {file: ...}",
            ) from error
    raise WeightsError(
        f"{repository} has none of the files {', '.join(FILES)}",
        fix="Give a file: model.weights: {file: ..., key_map: ...}",
    )
