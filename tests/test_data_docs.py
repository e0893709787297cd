"""The guide to images and metrics: its manifest works, and it names what there is."""

from __future__ import annotations

import re
from pathlib import Path
from typing import get_args

import numpy as np

from jobs.data.files import FORMATS
from jobs.data.perceptual import NEAR_BITS
from jobs.manifest import OPTIONAL, REQUIRED, read_manifest
from jobs.measure.calibration import NUM_BINS
from jobs.measure.details import DETAILS
from jobs.measure.predictions import TABLE
from jobs.measure.scoring import Scoring
from jobs.params.target import Dataset, TargetParams
from jobs.sources import PREDICTIONS
from jobs.targets import default_metric

GUIDE = (Path(__file__).parent.parent / "docs" / "data.md").read_text()


def rows(heading: str) -> dict[str, str]:
    """The first table below a heading: what stands in code in the first cell -> the whole row."""
    section = GUIDE.split(f"## {heading}\n")[1].split("\n## ")[0]
    return {
        name: line
        for line in section.splitlines()
        if line.startswith("| `")
        for name in re.findall(r"`([^`]+)`", line.split("|")[1])
    }


def test_the_example_is_a_manifest(tmp_path: Path) -> None:
    """What people copy is read as it is explained."""
    (text,) = re.findall(r"```\n(path,.*?)```", GUIDE, flags=re.DOTALL)
    (tmp_path / "m.csv").write_text(text)
    manifest = read_manifest(tmp_path / "m.csv", multi_label=False)
    assert manifest.columns == {*REQUIRED, *OPTIONAL}
    assert manifest.rows[1].box == (12, 8, 140, 136) and manifest.rows[0].box is None


def test_every_metric_is_explained() -> None:
    """A row for each metric that any target has, and no other; the one shown first is said."""
    terciles = [np.array([number]) for number in range(3)]
    one = Scoring(6, terciles=terciles).chance(np.arange(6))
    several = Scoring(2, multi_label=True).chance(np.eye(2, dtype=np.int64))
    found = rows("Metrics")
    artifacts = {TABLE, DETAILS, PREDICTIONS, "weights.safetensors"}
    assert set(found) == {*one, *several, *artifacts}
    several_labels = TargetParams(dataset="csv", file="m.csv", multi_label=True)
    imbalance = {"imbalance": {"ratio": 2}, "per_class": 5}
    for target in (
        TargetParams(dataset="digits"),
        TargetParams(dataset="elpv"),
        several_labels,
        TargetParams.model_validate({"dataset": "digits", **imbalance}),
    ):
        assert "hown" in found[default_metric(target)]


def test_every_dataset_and_format_is_named() -> None:
    """Kinds of datasets, kinds of files, and the numbers in the text."""
    named = set(rows("Where images come from"))
    simple = {name for name in get_args(Dataset) if isinstance(name, str) and "/" not in name}
    assert simple <= named | {"elpv", "digits"}
    for name in FORMATS:
        assert name in GUIDE.replace("WebP", "WEBP")
    assert f"at most {NEAR_BITS} bits" in GUIDE and f"{NUM_BINS} equally wide bins" in GUIDE
