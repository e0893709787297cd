"""A comparison from its material to its end: measured, recorded, kept."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image
from safetensors.numpy import save_file

from ftd.errors import InputError
from ftd.job import Completed
from jobs.inspection import album
from jobs.inspection.album import Arrays
from jobs.inspection.material import Material
from jobs.inspection.probing import probed
from jobs.inspection.representation import cka, side
from jobs.inspection.weights import Moved, moved
from jobs.layers import Treatment

ARRAYS = "changes.safetensors"
FILTERS, UNITS, MAP = "filters.png", "units.png", "map.png"


@dataclass(frozen=True)
class Findings:
    """What was measured: ``metrics`` by ``split/measure_layer``, and what is too much for metrics,
    ``arrays`` by ``measure/layer``."""

    metrics: dict[str, float] = field(default_factory=dict)
    arrays: Arrays = field(default_factory=dict)

    def add(self, split: str, layer: str, found: Mapping[str, float]) -> None:
        """Measures of one layer; what is no finite number (constant features) is left out."""
        self.metrics.update(
            (f"{split}/{measure}_{layer}", value)
            for measure, value in found.items()
            if math.isfinite(value)
        )

    def sha256(self) -> str:
        """Equal for equal findings."""
        digest = hashlib.sha256(json.dumps(self.metrics, sort_keys=True).encode())
        for name in sorted(self.arrays):
            digest.update(name.encode() + np.ascontiguousarray(self.arrays[name]).tobytes())
        return digest.hexdigest()


def conclude(material: Material) -> Completed:
    """Measure every layer, keep arrays and pictures."""
    context, findings = material.context, Findings()
    unheard = []
    for layer in material.layers:
        _measure_weights(material, layer, findings)
        if not _measure_features(material, layer, findings):
            unheard.append(material.name(layer))
        elif material.params.probe:
            _probe(material, layer, findings)
        context.progress(0, 1, layer=material.name(layer))
        context.checkpoint(0, dict)
    if unheard:
        context.note("no features", layers=unheard, why="not a single map behind them")
    _keep_pictures(material, findings)
    for name, value in findings.metrics.items():
        context.metric(name, value, 1)
    context.artifact(ARRAYS, lambda path: _write_arrays(path, material, findings.arrays))
    return Completed(findings.metrics, findings.sha256(), num_steps=1)


def _measure_weights(material: Material, layer: int, findings: Findings) -> None:
    networks = material.networks
    if networks.treatment(layer) == Treatment.R:
        return  # it had no weights before
    before, after = networks.before, networks.after
    found = moved(before.module, networks.layer(layer), before.state(), after.state())
    if found is not None:
        findings.add("change", material.name(layer), weight_measures(found))
        findings.arrays[f"unit_drift/{material.name(layer)}"] = found.weights.unit_drifts


def _measure_features(material: Material, layer: int, findings: Findings) -> bool:
    """Whether the layer has features; of layers that were asked for by name, InputError says so."""
    try:
        sides = material.features(layer)
    except InputError:
        if material.params.layers is not None:
            raise
        return False
    name, split = material.name(layer), material.params.images
    if "before" in sides:
        findings.add(split, name, {"cka": cka(sides["before"], sides["after"])})
    for when, one in sides.items():
        found = side(one, material.labels, len(material.class_names))
        measures = found.measures().items()
        findings.add(split, name, {f"{measure}_{when}": value for measure, value in measures})
        findings.arrays.update(
            {
                f"average_precision_{when}/{name}": found.units.best,
                f"best_class_{when}/{name}": found.units.best_class,
                f"label_entropy_{when}/{name}": found.units.entropy_area,
            }
        )
    return True


def _probe(material: Material, layer: int, findings: Findings) -> None:
    train, val = (material.labelled(layer, split) for split in ("train", "val"))
    for when in train:
        value = probed(train[when], val[when], len(material.class_names))
        findings.add("val", material.name(layer), {f"probe_{when}": value})


def weight_measures(found: Moved) -> dict[str, float]:
    """By name: ``relative``, ``drift``, mean and quartiles of the units' drift, and BatchNorm's."""
    measures = {"relative": found.weights.relative, "drift": found.weights.drift}
    drifts = found.weights.unit_drifts
    if len(drifts):
        low, middle, high = np.quantile(drifts, [0.25, 0.5, 0.75])
        measures |= {
            "unit_drift_mean": float(drifts.mean()),
            "unit_drift_q1": float(low),
            "unit_drift_median": float(middle),
            "unit_drift_q3": float(high),
        }
    shift = found.normalisation
    if shift is not None:
        measures |= {
            "batchnorm_mean": shift.mean,
            "batchnorm_deviation": shift.deviation,
            "batchnorm_scale": shift.scale,
            "batchnorm_shift": shift.shift,
        }
    return measures


def _keep_pictures(material: Material, findings: Findings) -> None:
    found = {FILTERS: album.filters(material), UNITS: album.units(material)}
    found |= {f"units-{name}.png": picture for name, picture in album.new_units(material).items()}
    mapped = album.mapped(material)
    if mapped is not None:
        found[MAP] = mapped[0]
        findings.arrays.update(mapped[1])
    for name, picture in found.items():
        if picture is not None:
            _keep(material, name, picture)


def _keep(material: Material, name: str, picture: Image.Image) -> None:
    material.context.artifact(name, lambda path: picture.save(path, "PNG"))


def _write_arrays(path: Path, material: Material, arrays: Arrays) -> None:
    told = {
        "class_names": list(material.class_names),
        "images": material.params.images,
        "num_images": len(material.indices),
    }
    whole = {name: np.ascontiguousarray(one) for name, one in arrays.items()}
    save_file(whole, path, {"ftd": json.dumps(told, sort_keys=True)})
