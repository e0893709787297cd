"""Generates the facts about networks that must be known without torch.

``python -m jobs.models.table`` writes ``layers.json`` (the names of each network's layers) and
``imagenet.json`` (its published weights and what images they expect).
"""

from __future__ import annotations

import json
from typing import Any

from jobs import layers, records
from jobs.models import alexnet, deep, efficientnet_lite, mini8, zoo
from jobs.models.build import FAMILIES, skeleton
from jobs.records import USUAL


def models() -> list[str]:
    """All built-in networks, sorted."""
    return sorted(model for family in FAMILIES for model in family.MODELS)


def layer_table() -> dict[str, str]:
    """The names of the layers of every network."""
    return {
        model: layers.packed([layer.name for layer in skeleton(model, 2)[1]]) for model in models()
    }


def imagenet_table() -> dict[str, dict[str, Any]]:
    """The published ImageNet weights of every network, less what most records have in common."""
    return {
        model: {name: value for name, value in _imagenet(model).items() if value != USUAL.get(name)}
        for model in models()
    }


def _imagenet(model: str) -> dict[str, Any]:
    if model in efficientnet_lite.MODELS:
        mean, std = efficientnet_lite.MEAN_STD
        return {
            "file": efficientnet_lite.FILE,
            "package": efficientnet_lite.PACKAGE,
            "mean": mean,
            "std": std,
            "interpolation": efficientnet_lite.INTERPOLATION,
        }
    if model in mini8.MODELS:
        return {
            "file": None,
            "mean": mini8.MEAN_STD,
            "std": mini8.MEAN_STD,
            "resize": mini8.SIZE,
            "crop": mini8.SIZE,
            "least": mini8.LEAST,
        }
    for shapes in (alexnet.SHAPES, deep.SHAPES):
        if model in shapes:
            return {"least": shapes[model].least}
    from torchvision.models import get_model_weights

    # V1 is what the literature compares; the newer ones come from another training recipe.  Where
    # there is none: a classifier trained on ImageNet, on top of features that are left alone.
    published = get_model_weights(model)
    names = ("IMAGENET1K_V1", "IMAGENET1K_SWAG_LINEAR_V1")
    weights = next(published[name] for name in names if name in published.__members__)
    expected = weights.transforms()
    family = zoo.family_of(model)
    sizes = family.sizes if family else "least"
    return {
        "file": weights.url.rpartition("/")[2],
        "mean": expected.mean,
        "std": expected.std,
        "interpolation": expected.interpolation.value,
        "resize": expected.resize_size[0],
        "crop": expected.crop_size[0],
        "least": weights.meta["min_size"][0] if sizes == "least" else 1,
        "only": sizes == "only",
    }


def text(table: dict[str, Any]) -> str:
    """A table as the shipped file has it: one network a line."""
    rows = ",\n".join(f"{json.dumps(name)}: {json.dumps(row)}" for name, row in table.items())
    return f"{{\n{rows}\n}}\n"


def main() -> None:
    """Write both tables."""
    layers.TABLE.write_text(text(layer_table()))
    records.TABLE.write_text(text(imagenet_table()))


if __name__ == "__main__":
    main()
