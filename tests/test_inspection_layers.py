"""Two states of a real network: what moved in which layer, and what is drawn of it."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.metrics import silhouette_score

from jobs.inspection.canvas import NOTHING
from jobs.inspection.embedding import embedded
from jobs.inspection.pictures import (
    IMAGE_SIDE,
    Excited,
    class_colour,
    filter_sheet,
    image_map,
    top_images,
)
from jobs.inspection.representation import (
    Features,
    cka,
    most_exciting,
    most_selective,
    side,
)
from jobs.inspection.weights import first_filters, moved, unmoved
from tests.networks import network, scratch_state

LITE0 = "efficientnet_lite0"


@pytest.fixture
def states() -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """A network's state, and a copy to be changed."""
    before = dict(scratch_state(LITE0))
    return before, {name: tensor.clone() for name, tensor in before.items()}


def test_nothing_moved_in_any_layer(
    states: tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]],
) -> None:
    """Every layer has weights, all but the classifier BatchNorm, and none of them a change."""
    built = network(LITE0)
    found = [moved(built.module, layer, *states) for layer in built.layers]
    assert all(one is not None and one.weights.relative == 0 for one in found)
    assert [one is None or one.normalisation is None for one in found] == [False] * 18 + [True]
    assert all(unmoved(built.module, layer, *states) for layer in built.layers)


def test_what_moved_is_in_its_layer_alone(
    states: tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]],
) -> None:
    """A filter, and what BatchNorm stored, which is no weight."""
    before, after = states
    built = network(LITE0)
    block = built.layers[4]
    paths = [
        path
        for path, part in built.module.named_modules()
        if isinstance(part, torch.nn.BatchNorm2d) and block.holds(path)
    ]
    for path in paths:
        after[f"{path}.running_mean"] += 3 * (after[f"{path}.running_var"] + 1e-3).sqrt()
    assert unmoved(built.module, block, before, after), "statistics are no parameters"
    found = moved(built.module, block, before, after)
    assert found is not None and found.normalisation is not None and found.weights.relative == 0
    assert found.normalisation.mean == pytest.approx(3, rel=1e-3)
    assert found.normalisation.deviation == found.normalisation.scale == 0
    name = next(n for n in before if block.holds(n) and before[n].dim() == 4)
    after[name][0] *= 2
    found = moved(built.module, block, before, after)
    assert found is not None and found.weights.relative > 0
    assert not unmoved(built.module, block, before, after)
    assert all(
        unmoved(built.module, layer, before, after) for layer in built.layers if layer != block
    )


def test_the_first_filters_are_those_that_see_colours() -> None:
    """Of the layer's one convolution of three channels; deeper layers have none."""
    built = network("mini8")
    state = built.state()
    filters = first_filters(built.module, built.layers[0], state)
    assert filters is not None and filters.shape == (16, 3, 3, 3)
    assert np.array_equal(filters, state["features.0.weight"].double().numpy())
    assert first_filters(built.module, built.layers[1], state) is None


# --- features of one layer --------------------------------------------------------------------


def test_units_and_their_images() -> None:
    """The best detector first; its highest peaks first; a dead unit has none."""
    labels = np.array([0, 0, 1, 1, 2, 2])
    peaks = np.zeros((6, 3), np.float32)
    peaks[:, 1] = [1, 2, 9, 8, 0, 3]
    peaks[:, 2] = [5, 1, 5, 1, 1, 1]
    found = side(Features(peaks, peaks), labels, 3)
    assert most_selective(found, 2) == [1, 2]
    assert most_exciting(peaks, 1, 3) == [2, 3, 5]
    assert most_exciting(peaks, 1, 9) == [2, 3, 5, 1, 0]
    assert most_exciting(peaks, 0, 3) == []
    assert found.measures()["selective"] == pytest.approx(1 / 3)
    assert cka(Features(peaks, 2 * peaks), Features(3 * peaks, peaks)) == pytest.approx(1)


def test_a_map_keeps_neighbours_together_and_is_the_same_again() -> None:
    """Three far groups stay groups; another seed is another map."""
    draw = np.random.default_rng(1)
    labels = np.repeat([0, 1, 2], 20)
    features = (draw.normal(size=(60, 8)) + 20 * np.eye(8)[labels]).astype(np.float32)
    places = embedded(features, 5)
    assert places.shape == (60, 2) and silhouette_score(places, labels) > 0.5
    assert np.array_equal(embedded(features, 5), places)
    assert np.array_equal(embedded(features, 5 + (1 << 40)), places), "the seed's lower 32 bits"
    assert embedded(features[:8], 5).shape == (8, 2)


# --- pictures ---------------------------------------------------------------------------------


def colours(picture: Image.Image) -> Counter[tuple[int, ...]]:
    """How many pixels have each colour."""
    return Counter(map(tuple, np.asarray(picture).reshape(-1, 3).tolist()))


def test_filters_that_stay_have_a_grey_difference() -> None:
    """And the one that changed most has the strongest colour of all."""
    filters = np.random.default_rng(1).normal(size=(4, 3, 5, 5))
    same = filter_sheet(filters, filters)
    third = same.crop((2 * same.width // 3 + 20, 50, same.width - 20, same.height - 20))
    assert set(colours(third)) <= {(128, 128, 128), (255, 255, 255)}
    changed = filters.copy()
    changed[0, 0] = -changed[0, 0]
    other = filter_sheet(filters, changed)
    assert len(colours(other)) > len(colours(same))
    assert filter_sheet(np.zeros((2, 3, 2, 2)), np.zeros((2, 3, 2, 2))).width > 0


def test_a_unit_with_few_images_leaves_places_empty() -> None:
    """Rows keep their form, so that columns can be compared."""
    red = np.full((9, 9, 3), (200, 0, 0), np.uint8)
    full = top_images([Excited("unit 1", [red] * 3, [red] * 3)], 3)
    few = top_images([Excited("unit 1", [red], [])], 3)
    assert full.size == few.size
    empty = tuple(bytes.fromhex(NOTHING[1:]))
    assert colours(few)[empty] >= 5 * IMAGE_SIDE**2 > colours(full)[empty]


def test_every_class_has_a_colour_and_a_name() -> None:
    """Distinct ones, of as many classes as there are; beyond thirty names are counted."""
    assert len({class_colour(label, 40) for label in range(40)}) == 40
    places = np.random.default_rng(1).normal(size=(40, 2))
    few, many = (
        image_map({"before": places}, np.arange(40) % count, [f"class {n}" for n in range(count)])
        for count in (2, 40)
    )
    assert len(colours(many)) > len(colours(few))
    nowhere = np.zeros((3, 2))
    one = image_map({"before": nowhere, "after": nowhere}, np.zeros(3, np.int64), ["a"])
    assert one.height == few.height, "images on one spot are drawn too"
