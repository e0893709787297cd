"""The datasets by name: how target parameters become a listing."""

from __future__ import annotations

from pathlib import Path

from jobs.data.digits import digits_listing, mnist5k_listing
from jobs.data.elpv import elpv_listing
from jobs.data.folder import folder_listing
from jobs.data.glyphs import glyphs_listing
from jobs.data.huggingface import huggingface_listing
from jobs.data.listing import Listing
from jobs.data.manifest import manifest_listing
from jobs.data.torchvision_sets import torchvision_listing
from jobs.params.target import TargetParams


def listing_of(target: TargetParams) -> Listing:
    """The samples of the resolved `target`; raises DataError when they cannot be listed."""
    root, given, several = Path(target.folder or ""), target.split == "given", target.multi_label
    match target.dataset:
        case "elpv":
            return elpv_listing(
                threshold=target.elpv.threshold, drop_uncertain=target.elpv.uncertain == "drop"
            )
        case "digits":
            return digits_listing()
        case "mnist5k":
            return mnist5k_listing()
        case "glyphs":
            fonts = None if target.folder is None else root
            return glyphs_listing(fonts, target.glyphs.variants)
        case "folder":
            return folder_listing(root, given=given)
        case "csv":
            file = Path(target.file or "")
            return manifest_listing(file, root, multi_label=several, given=given)
        case "hf":
            return huggingface_listing(root, target.hf, multi_label=several, given=given)
        case other:
            return torchvision_listing(other.partition("/")[2], root, given=given)
