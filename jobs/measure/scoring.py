"""Which metrics a target has, and their values: from logits, or for a predictor that knows nothing.

All are means over samples, or over the classes for which they are defined.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ftd.errors import DataError
from jobs.data.keyed import Indices
from jobs.measure import ranking
from jobs.measure.calibration import (
    binary_cross_entropy,
    brier,
    expected_calibration_error,
    log_probabilities,
)
from jobs.measure.confusion import confusion, f1_scores, macro, recalls
from jobs.measure.truth import truth

Logits = npt.NDArray[np.float32]
Labels = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Found = dict[str, float]

TOP = 5
TERCILES = ("head", "middle", "tail")


@dataclass(frozen=True)
class Scoring:
    """The metrics of one target.

    Labels are class numbers (int64, N), or zeros and ones (int64, (N, K)) with `multi_label`.
    Under imbalance ``terciles`` are the classes with the most, middling and fewest training images.
    ``by_response``: the logits are those of one classifier per class, whose probabilities are no
    estimates; images are then ranked by the logits as they are, not by their softmax.
    """

    num_classes: int
    multi_label: bool = False
    terciles: Sequence[Indices] = ()
    by_response: bool = False

    def metrics(self, logits: Logits, labels: Labels) -> Found:
        """All metrics of finite `logits` (N, K) against `labels`, N >= 1."""
        if self.multi_label:
            return self._several_labels(logits, labels)
        log_p = log_probabilities(logits)
        probabilities = np.exp(log_p)
        predicted = logits.argmax(axis=1)
        counts = confusion(predicted, labels, self.num_classes)
        right, taken, occurring = np.diag(counts), counts.sum(axis=0), counts.sum(axis=1)
        recall = recalls(counts)
        found = {
            "top1": float((predicted == labels).mean()),
            "balanced_accuracy": macro(recall),
            "macro_f1": macro(f1_scores(right, taken, occurring)),
            "nll": float(-log_p[np.arange(len(labels)), labels].mean()),
            "ece": expected_calibration_error(probabilities, labels),
            "brier": brier(probabilities, labels),
        }
        if self.num_classes > TOP:
            first = np.argsort(-logits, axis=1, kind="stable")[:, :TOP]
            found["top5"] = float((first == labels[:, None]).any(axis=1).mean())
        ranked = _ranked(self._ranking(logits), truth(labels, self.num_classes))
        return found | ranked | self._by_tercile(recall)

    def chance(self, labels: Labels) -> Found:
        """What :meth:`metrics` expects of a predictor that guesses uniformly: the same names.

        Averages that depend on how often classes occur are those for `labels`.
        """
        is_class = truth(labels, self.num_classes)
        share = is_class.mean(axis=0)
        occurs = share > 0
        ranked = {"map": float(share[occurs].mean())} if occurs.any() else {}
        ranked |= {"map_voc07": ranked["map"]} if ranked else {}
        if (occurs & (share < 1)).any():
            ranked["auroc"] = 0.5
        if self.multi_label:
            half = 2 * share * 0.5 / (share + 0.5)  # F1 of tossing a coin
            total = float(share.mean())
            macro_f1 = float(half.mean())
            return ranked | {
                "micro_f1": total / (total + 0.5), "macro_f1": macro_f1, "bce": math.log(2)
            }  # fmt: skip
        k = self.num_classes
        found = {
            "top1": 1 / k,
            "balanced_accuracy": 1 / k,
            "macro_f1": float((2 * share / k / (share + 1 / k)).mean()),
            "nll": math.log(k),
            "ece": 0.0,
            "brier": 1 - 1 / k,
        }
        if k > TOP:
            found["top5"] = TOP / k
        recall = np.where(occurs, 1 / k, np.nan)
        return found | ranked | self._by_tercile(recall)

    def per_class(self, logits: Logits, labels: Labels) -> Mapping[str, list[float | int | None]]:
        """Per class: num_images, recall, f1, average_precision, auroc; None where undefined."""
        is_class = truth(labels, self.num_classes)
        if self.multi_label:
            said = logits > 0
        else:
            said = logits.argmax(axis=1)[:, None] == np.arange(self.num_classes)
        right, taken, occurring = (said & is_class).sum(0), said.sum(0), is_class.sum(0)
        recall = np.where(occurring > 0, right / np.maximum(occurring, 1), np.nan)
        ranks = _Ranks.of(self._ranking(logits), is_class)
        found: dict[str, list[float | int | None]] = {"num_images": list(occurring.tolist())}
        columns = {
            "recall": recall,
            "f1": f1_scores(right, taken, occurring),
            "average_precision": ranks.average_precision,
            "auroc": ranks.auroc,
        }
        for name, values in columns.items():
            found[name] = [None if math.isnan(value) else value for value in values.tolist()]
        return found

    def check_selection(self, select: str, labels: Labels) -> None:
        """Raise DataError when validation images with these `labels` do not give `select`."""
        if not len(labels):
            raise DataError(
                "train.keep: best needs validation images, and there are none",
                fix="Use keep: last, or set target.val_fraction or target.val_per_class",
            )
        known = named("val", self.chance(labels))
        if select not in known:
            raise DataError(
                f"train.select: this target has no {select} (it has {self.num_classes} classes"
                f"{', several labels per image' if self.multi_label else ''})",
                fix=f"Use one of {', '.join(sorted(known))}",
            )

    def _several_labels(self, logits: Logits, labels: Labels) -> Found:
        is_class, said = truth(labels, self.num_classes), logits > 0
        right, taken, occurring = (said & is_class).sum(0), said.sum(0), is_class.sum(0)
        per_class = f1_scores(right, taken, occurring)
        found = {
            "micro_f1": float(2 * right.sum() / max(int((taken + occurring).sum()), 1)),
            # a class neither there nor predicted counts as 0, as is usual
            "macro_f1": float(np.nan_to_num(per_class).mean()),
            "bce": binary_cross_entropy(logits, labels),
        }
        return found | _ranked(self._ranking(logits), is_class)

    def _ranking(self, logits: Logits) -> Floats:
        """What images are ranked by, class by class (N, K)."""
        own = logits.astype(np.float64)
        if self.multi_label:
            return own
        if self.num_classes == 2:  # exactly opposite ranks: one class says it all
            odds = own[:, 1] - own[:, 0]
            return np.stack([-odds, odds], axis=1)
        return own if self.by_response else ranking.log_odds(logits)

    def _by_tercile(self, recall: Floats) -> Found:
        found = {}
        for name, classes in zip(TERCILES, self.terciles, strict=False):
            if not np.isnan(recall[classes]).all():
                found[f"recall_{name}"] = macro(recall[classes])
        return found


@dataclass(frozen=True)
class _Ranks:
    """Per class how well its scores rank; NaN where that is undefined."""

    average_precision: Floats
    voc07: Floats
    auroc: Floats

    @classmethod
    def of(cls, scores: Floats, is_class: npt.NDArray[np.bool_]) -> _Ranks:
        found = np.full((3, scores.shape[1]), math.nan)
        for label in np.flatnonzero(is_class.any(axis=0)).tolist():
            one = ranking.Ranking.of(scores[:, label], is_class[:, label])
            found[:2, label] = one.average_precision, one.voc07_average_precision
            if not is_class[:, label].all():
                found[2, label] = one.auroc
        return cls(*found)


def _ranked(scores: Floats, is_class: npt.NDArray[np.bool_]) -> Found:
    ranks = _Ranks.of(scores, is_class)
    means = {"map": ranks.average_precision, "map_voc07": ranks.voc07, "auroc": ranks.auroc}
    return {name: macro(values) for name, values in means.items() if not np.isnan(values).all()}


def named(split: str, found: Mapping[str, float]) -> Found:
    """Metrics under the names they are recorded by, such as ``val/top1``."""
    return {f"{split}/{name}": value for name, value in found.items()}
