"""The pictures that a comparison keeps."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from ftd.seeds import keyed_hash
from jobs.data.keyed import keyed_order
from jobs.inspection.embedding import MIN_IMAGES, embedded
from jobs.inspection.material import Material
from jobs.inspection.pictures import Excited, filter_sheet, image_map, top_images
from jobs.inspection.representation import most_exciting, most_selective, side
from jobs.inspection.weights import first_filters
from jobs.layers import Treatment

Arrays = dict[str, npt.NDArray[Any]]


def filters(material: Material) -> Image.Image | None:
    """The first layer's filters before and after; None where it sees no colours, or had no
    weights before."""
    networks = material.networks
    if networks.treatments[0] == Treatment.R:
        return None
    before, after = (
        first_filters(one.module, one.layers[0], one.state())
        for one in (networks.before, networks.after)
    )
    return None if before is None or after is None else filter_sheet(before, after)


def units(material: Material) -> Image.Image | None:
    """Units of the layer asked for, with the images that excite them most; None for no units."""
    pictures, layer = material.params.pictures, int(material.params.pictures.layer)
    if not pictures.units:
        return None
    names, sides = material.class_names, material.features(layer)
    before, after = (side(one, material.labels, len(names)) for one in sides)
    shown = []
    for unit in most_selective(after, pictures.units):
        tops = [
            [
                material.data.images.pixels(int(material.indices[row]))
                for row in most_exciting(one.peaks, unit, pictures.images)
            ]
            for one in sides
        ]
        first, then = (measured.units.best[unit] for measured in (before, after))
        text = f"{material.name(layer)} unit {unit}: AP {first:.2f}, then {then:.2f}"
        shown.append(Excited(f"{text} ({names[after.units.best_class[unit]]})", *tops))
    return top_images(shown, pictures.images)


def mapped(material: Material) -> tuple[Image.Image, Arrays] | None:
    """The images by what the layer asked for says of them, and where they are; None for too few.

    The places are ``map_before`` and ``map_after`` (N, 2), with ``map_labels`` and the images'
    ``map_digests`` (N).
    """
    pictures, layer = material.params.pictures, int(material.params.pictures.layer)
    seed = keyed_hash("map", material.context.seeds["order"])
    digests = material.data.images.digests[material.indices]
    rows = np.sort(keyed_order(digests, seed)[: pictures.map_images])
    if len(rows) < MIN_IMAGES:
        return None
    before, after = (embedded(one.means[rows], seed) for one in material.features(layer))
    labels = material.labels[rows]
    arrays = {
        "map_before": before,
        "map_after": after,
        "map_labels": labels,
        "map_digests": digests[rows].view(np.int64),
    }
    return image_map(before, after, labels, material.class_names), arrays
