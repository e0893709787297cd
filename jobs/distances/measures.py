"""All measures by name: what each is a function of, and how it is computed."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from ftd.seeds import keyed_hash
from jobs.data.keyed import Indices
from jobs.distances.halves import Estimate, Half, halves, over_halves
from jobs.distances.looks import Floats, Looks
from jobs.distances.means import cosine_of_means, distance_of_means
from jobs.distances.mmd import mmd2_linear, mmd2_rbf
from jobs.distances.separation import a_distance, svm_accuracy
from jobs.distances.sides import Side
from jobs.params.distance import OF_LABELS, OF_PIXELS, CnnParams, Measure, compares
from jobs.transferability.features import h_score, h_score_regularised, transrate
from jobs.transferability.labels import leep, nce
from jobs.transferability.logme import logme

Labels = npt.NDArray[np.int64]

BETWEEN_FEATURES: Mapping[str, Callable[[Floats, Floats], float]] = {
    "cosine": cosine_of_means,
    "mmd": distance_of_means,
    "mmd_linear": mmd2_linear,
    "mmd_rbf": mmd2_rbf,
}
OF_FEATURES_AND_LABELS: Mapping[str, Callable[[Floats, Labels], float]] = {
    "logme": logme,
    "h_score": h_score,
    "h_score_regularised": h_score_regularised,
    "transrate": transrate,
}


@dataclass(frozen=True)
class Found:
    """What a measure found: metrics by their names, and perhaps details by theirs."""

    estimates: Mapping[str, Estimate]
    details: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Draws:
    """What is random: halves, how a small network begins, and which order it sees images in."""

    half_seed: int
    init_seed: int
    order_seed: int
    repeats: int


@dataclass(frozen=True)
class Measuring:
    """One comparison of a `target` and, where there is a source, of a `pair` of sides."""

    looks: Looks
    target: Side
    pair: tuple[Side, ...]
    draws: Draws
    cnn: CnnParams

    def key(self, measure: Measure, numerics: Mapping[str, Any]) -> dict[str, Any]:
        """The JSON values that `measure` is a function of."""
        draws, versions = self.draws, [np.__version__]
        key: dict[str, Any] = {
            "measure": measure,
            "images": [side.sha256 for side in self._sides(measure)],
            "halves": [draws.half_seed, draws.repeats],
            "numerics": dict(numerics),
        }
        if measure not in OF_PIXELS:
            key["backbone"] = dict(self.looks.backbone.identity)
        if measure in (*BETWEEN_FEATURES, *OF_FEATURES_AND_LABELS, "svm"):
            key["features"] = self.looks.wanted.model_dump(mode="json")
        if measure in OF_LABELS:
            key["labels"] = self.target.labels_sha256
        if measure == "svm":
            versions.append(importlib.metadata.version("scikit-learn"))
            key["seeds"] = [draws.order_seed]
        if measure == "cnn":
            key["seeds"] = [draws.init_seed, draws.order_seed]
            key["cnn"] = self.cnn.model_dump(mode="json")
        return {**key, "versions": versions}

    def prepare(self, measure: Measure) -> None:
        """Have the features that `measure` needs: they are entries of the store themselves."""
        if measure not in (*OF_PIXELS, "proxy_batchnorm"):
            self.looks.prepare(self._sides(measure))

    def measured(self, measure: Measure) -> Found:
        """Compute a measure."""
        if measure in BETWEEN_FEATURES:
            return self._between(measure, BETWEEN_FEATURES[measure])
        if measure in OF_FEATURES_AND_LABELS:
            features = self.looks.features(self.target)
            return self._of_labels(measure, features, OF_FEATURES_AND_LABELS[measure])
        match measure:
            case "svm":
                return self._svm()
            case "cnn":
                return self._cnn()
            case "leep":
                return self._of_labels(measure, self.looks.probabilities(self.target), leep)
            case "nce":
                logits = self.looks.logits(self.target)
                return self._of_labels(measure, logits, lambda rows, y: nce(rows.argmax(1), y))
            case _:
                return self._batchnorm()

    def _sides(self, measure: Measure) -> tuple[Side, ...]:
        return self.pair if compares(measure) else (self.target,)

    def _halves(self, measure: Measure) -> list[Half]:
        digests = [side.digests for side in self._sides(measure)]
        return halves(digests[0], digests[-1], self.draws.half_seed, self.draws.repeats)

    def _between(self, measure: Measure, distance: Callable[[Floats, Floats], float]) -> Found:
        one, other = (self.looks.features(side) for side in self.pair)

        def between(first: Indices, second: Indices) -> float:
            return distance(one[first], other[second])

        found = over_halves(between, len(one), len(other), self._halves(measure))
        return Found({f"distance/{measure}": found})

    def _of_labels(
        self, measure: Measure, rows: Floats, score: Callable[[Floats, Labels], float]
    ) -> Found:
        labels = self.target.images.listing.labels[self.target.indices]

        def scored(members: Indices, _: Indices) -> float:
            return score(rows[members], labels[members])

        found = over_halves(scored, len(rows), len(rows), self._halves(measure))
        return Found({f"transfer/{measure}": found})

    def _svm(self) -> Found:
        one, other = (self.looks.features(side) for side in self.pair)
        said = []
        for half in self._halves("svm"):
            said.append(svm_accuracy(one, other, half, self.draws.order_seed))
            self.looks.progress(len(said), self.draws.repeats)
        accuracies = [accuracy for accuracy, _ in said]
        converged = [float(ended) for _, ended in said]
        return Found(
            {
                "distance/svm_accuracy": Estimate.of_repeats(accuracies),
                "distance/a_distance": Estimate.of_repeats([*map(a_distance, accuracies)]),
            },
            {"converged": sum(converged) / len(converged)},
        )

    def _cnn(self) -> Found:
        from jobs.distances.cnn import cnn_accuracy
        from jobs.train import numerics

        numerics.configure(self.looks.context.numerics, self.looks.context.threads)
        draws = self.draws
        first, second = self.pair
        small = [self.looks.small_pixels(side, self.cnn.size) for side in self.pair]
        accuracies: list[float] = []
        for repeat, half in enumerate(self._halves("cnn")):
            accuracy = cnn_accuracy(
                small[0],
                small[1],
                (first.digests, second.digests),
                half,
                self.cnn,
                init_seed=keyed_hash(draws.init_seed, repeat),
                order_seed=keyed_hash(draws.order_seed, repeat),
                device=self.looks.context.device,
            )
            accuracies.append(accuracy)
            self.looks.progress(len(accuracies), draws.repeats)
        return Found({"distance/cnn_accuracy": Estimate.of_repeats(accuracies)})

    def _batchnorm(self) -> Found:
        from jobs.distances.batchnorm import batchnorm_distance, has_statistics

        module = self.looks.backbone.network.module
        if not has_statistics(module):
            return Found({})
        places = np.arange(len(self.target.indices))
        members = [np.isin(places, half.first) for half in self._halves("proxy_batchnorm")]
        batches = self.looks.batches(self.target)
        found, layers = batchnorm_distance(module, batches, members)
        return Found({"distance/proxy_batchnorm": found}, layers)
