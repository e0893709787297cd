"""The datasets by name: how target parameters become a listing."""

from __future__ import annotations

from pathlib import Path

from jobs.data.digits import digits_listing
from jobs.data.elpv import elpv_listing
from jobs.data.folder import folder_listing
from jobs.data.listing import Listing
from jobs.params.target import TargetParams


def listing_of(target: TargetParams) -> Listing:
    """The samples of the resolved `target`; raises DataError when they cannot be listed."""
    match target.dataset:
        case "elpv":
            return elpv_listing(
                threshold=target.elpv.threshold, drop_uncertain=target.elpv.uncertain == "drop"
            )
        case "digits":
            return digits_listing()
        case "folder":
            return folder_listing(Path(target.folder or ""), given=target.split == "given")
