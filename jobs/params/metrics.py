"""The metrics that a selection can go by, whatever the kind of target."""

from __future__ import annotations

from typing import Literal

ValidationMetric = Literal[
    "val/top1", "val/top5", "val/balanced_accuracy", "val/macro_f1", "val/micro_f1", "val/auroc",
    "val/map", "val/map_voc07", "val/nll", "val/bce", "val/ece", "val/brier", "val/recall_head",
    "val/recall_middle", "val/recall_tail",
]  # fmt: skip
