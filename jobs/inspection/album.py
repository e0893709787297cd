"""The pictures that a comparison keeps."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from ftd.seeds import keyed_hash
from jobs.data.keyed import keyed_order
from jobs.growth.parts import Units
from jobs.inspection.embedding import MIN_IMAGES, embedded
from jobs.inspection.material import Material
from jobs.inspection.pictures import Excited, filter_sheet, image_map, top_images
from jobs.inspection.representation import Features, most_exciting, most_selective, side
from jobs.inspection.weights import first_filters
from jobs.layers import Treatment

Arrays = dict[str, npt.NDArray[Any]]


def filters(material: Material) -> Image.Image | None:
    """The first layer's filters before and after; None where it sees no colours, or had no
    weights before."""
    networks = material.networks
    if networks.treatment(1) == Treatment.R:
        return None
    before, after = (
        first_filters(one.module, one.layers[0], one.state())
        for one in (networks.before, networks.after)
    )
    return None if before is None or after is None else filter_sheet(before, after)


def units(material: Material) -> Image.Image | None:
    """Units of the layer asked for, with the images that excite them most; None for no units."""
    layer = int(material.params.pictures.layer)
    if not material.params.pictures.units:
        return None
    return _units_of(material, material.name(layer), material.features(layer))


def new_units(material: Material) -> dict[str, Image.Image]:
    """The same of units that the run grew: a picture for each part that is such units, by its name.

    Where no scaling follows, what a part is heard to say has the old units in front.
    """
    if not material.params.pictures.units or material.params.layers is not None:
        return {}
    networks, found = material.networks, {}
    for number in networks.grown:
        (path,) = networks.layer(number).modules
        part = networks.after.module.get_submodule(path)
        if isinstance(part, Units):
            heard = material.features(number)["after"]
            own = slice(-part.out_features, None)
            sides = {"after": Features(heard.means[:, own], heard.peaks[:, own])}
            found[material.name(number)] = _units_of(material, material.name(number), sides)
    return found


def _units_of(material: Material, name: str, sides: Mapping[str, Features]) -> Image.Image:
    """Those units of a layer that detect a class best after the run."""
    pictures, names = material.params.pictures, material.class_names
    measured = {when: side(one, material.labels, len(names)) for when, one in sides.items()}
    after = measured["after"].units
    shown = []
    for unit in most_selective(measured["after"], pictures.units):
        tops = {
            when: [
                material.data.images.pixels(int(material.indices[row]))
                for row in most_exciting(one.peaks, unit, pictures.images)
            ]
            for when, one in sides.items()
        }
        text = ", then ".join(f"{one.units.best[unit]:.2f}" for one in measured.values())
        text = f"{name} unit {unit}: AP {text} ({names[after.best_class[unit]]})"
        shown.append(Excited(text, tops.get("before", ()), tops["after"]))
    return top_images(shown, pictures.images)


def mapped(material: Material) -> tuple[Image.Image, Arrays] | None:
    """The images by what the layer asked for says of them, and where they are; None for too few.

    The places are ``map_before`` and ``map_after`` (N, 2), with ``map_labels`` and the images'
    ``map_digests`` (N); of a network that grew also ``map_grown``: by what its classifier reads.
    """
    pictures, layer = material.params.pictures, int(material.params.pictures.layer)
    seed = keyed_hash("map", material.context.seeds["order"])
    digests = material.data.images.digests[material.indices]
    rows = np.sort(keyed_order(digests, seed)[: pictures.map_images])
    if len(rows) < MIN_IMAGES:
        return None
    sides = dict(material.features(layer))
    if material.networks.grown and material.params.layers is None:
        sides["grown"] = material.features(material.networks.grown[-1])["after"]
    places = {when: embedded(one.means[rows], seed) for when, one in sides.items()}
    labels = material.labels[rows]
    arrays = {
        **{f"map_{when}": found for when, found in places.items()},
        "map_labels": labels,
        "map_digests": digests[rows].view(np.int64),
    }
    return image_map(places, labels, material.class_names), arrays
