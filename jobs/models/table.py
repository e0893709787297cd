"""Generates the facts about networks that must be known without torch.

``python -m jobs.models.table`` writes ``layers.json`` (the names of each network's layers) and
``imagenet.json`` (its published weights and what images they expect).
"""

from __future__ import annotations

import json
from typing import Any

from jobs import layers, sources
from jobs.models import efficientnet_lite
from jobs.models.build import FAMILIES, skeleton


def models() -> list[str]:
    """All built-in networks, sorted."""
    return sorted(model for family in FAMILIES for model in family.MODELS)


def layer_table() -> dict[str, list[str]]:
    """The names of the layers of every network."""
    return {model: [layer.name for layer in skeleton(model, 2)[1]] for model in models()}


def imagenet_table() -> dict[str, dict[str, Any]]:
    """The published ImageNet weights of every network."""
    return {model: _imagenet(model) for model in models()}


def _imagenet(model: str) -> dict[str, Any]:
    if model in efficientnet_lite.MODELS:
        mean, std = efficientnet_lite.MEAN_STD
        file, package = efficientnet_lite.FILE, efficientnet_lite.PACKAGE
        interpolation = efficientnet_lite.INTERPOLATION
    else:
        from torchvision.models import get_model_weights

        # V1 is what the literature compares; the newer ones come from another training recipe
        weights = get_model_weights(model)["IMAGENET1K_V1"]
        expected = weights.transforms()
        mean, std, interpolation = expected.mean, expected.std, expected.interpolation.value
        file, package = weights.url.rpartition("/")[2], None
    return {
        "file": file,
        "package": package,
        "mean": mean,
        "std": std,
        "interpolation": interpolation,
    }


def text(table: dict[str, Any]) -> str:
    """A table as the shipped file has it: one network a line."""
    rows = ",\n".join(f"{json.dumps(name)}: {json.dumps(row)}" for name, row in table.items())
    return f"{{\n{rows}\n}}\n"


def main() -> None:
    """Write both tables."""
    layers.TABLE.write_text(text(layer_table()))
    sources.TABLE.write_text(text(imagenet_table()))


if __name__ == "__main__":
    main()
