"""Files that other runs kept, found and verified by what those runs sealed."""

from __future__ import annotations

from pathlib import Path

from ftd.errors import DataError
from ftd.files import read_json, sha256_of
from ftd.protocol import ARTIFACTS, ORDER, RESULT
from ftd.states import Outcome


def kept_file(runs: Path, run: str, key: str, name: str) -> Path:
    """The file `name` that `run` (r12), whose key is `key`, kept below the folder `runs`.

    Raises DataError when it is another run, is not done, or has no such file as it kept it.
    """
    for attempt in sorted((runs / run / "attempts").glob("*/"), key=_number, reverse=True):
        order, result = read_json(attempt / ORDER), read_json(attempt / RESULT)
        if not order or not result or result.get("outcome") != Outcome.COMPLETED:
            continue
        if order.get("key") != key:
            raise DataError(
                f"{run} is another run than when this one was planned", fix="Enqueue the spec again"
            )
        kept = {item["name"]: item["sha256"] for item in result["artifacts"]}
        if name not in kept:
            raise DataError(f"{run} kept no {name}", fix=f"It kept: {', '.join(kept) or 'nothing'}")
        path = attempt / ARTIFACTS / name
        try:
            found = sha256_of(path)
        except OSError as error:
            raise DataError(f"cannot read {path} of {run} ({error.strerror})") from error
        if found != kept[name]:
            raise DataError(f"{path} is not what {run} kept", fix="Restore it from a backup")
        return path
    raise DataError(f"{run} has not ended well, so it kept no {name}", fix=f"ftd show {run}")


def _number(attempt: Path) -> int:
    return int(attempt.name) if attempt.name.isdecimal() else 0
