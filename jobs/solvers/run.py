"""One probe from images to predictions: features, normalisation, solver, choice, test."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from functools import cache, partial
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ftd.job import Checkpoint, Completed, Context, Input
from jobs.data.images import Images, decoded
from jobs.data.keyed import Indices
from jobs.data.prepare import Data, as_it_stands, prepared
from jobs.features.fingerprint import fingerprint, version
from jobs.features.samples import Samples, part_of, samples, views_of
from jobs.features.views import View
from jobs.measure.details import keep_predictions
from jobs.measure.predictions import Predicted, Predictions
from jobs.measure.scoring import Scoring, named
from jobs.params.probe import BackboneParams, ProbeParams
from jobs.solvers.choose import Chosen, candidates, check_choice, choose
from jobs.solvers.linear import Fitted, Floats
from jobs.solvers.normalise import Normaliser, fitted

SCORES = "scores.json"  # of the candidates that are done
FILES = (SCORES,)
LIBRARIES = ("numpy", "scipy", "scikit-learn")

Logits = npt.NDArray[np.float32]


def run(
    params: ProbeParams, backbones: Sequence[BackboneParams], target: Input, context: Context
) -> Completed:
    """The resolved probe on features of the `backbones`; `target` is where the images are.

    It can be left at any batch of a pass and between candidates.  What its state holds are the
    candidates' validation metrics; everything else that takes long is in the store.
    """
    numerics = {
        **fingerprint(context),
        **{name: version(name) for name in LIBRARIES},
    }
    context.fingerprint(numerics)
    checkpoint = context.restore()
    data = prepared(
        params.target,
        target,
        backbones[0].model.preprocessing.interpolation,
        context,
        checkpoint,
        FILES,
    )
    scoring = Scoring(
        len(data.listing.class_names),
        params.target.multi_label,
        data.terciles,
        by_response=params.solver.kind != "logistic",
    )
    labels = {name: data.listing.labels[i] for name, i in data.splits.by_name().items()}
    check_choice(scoring, params.solver, labels["val"])

    found = _samples(params, backbones, data, target, context, checkpoint)
    train_views, test_views = views_of(params.train_views), views_of(params.test_views)
    train = found.stacked(data.splits.train, train_views)
    normaliser = fitted(train, params.normalise, context.store, numerics)
    train = normaliser(train)
    seen = {
        split: _Seen(found, normaliser, data.splits.by_name()[split], test_views)
        for split in ("val", "test")
    }

    def told(scores: Sequence[float]) -> None:
        step, name = len(scores), (params.solver.select or "").partition("/")[2]
        context.metric(f"choice/{name}", scores[-1], step)
        context.progress(step, len(params.solver.candidates))
        context.checkpoint(step, lambda: {SCORES: partial(_write_scores, scores=scores)})

    chosen = choose(
        lambda solver: candidates(
            train,
            np.concatenate([labels["train"]] * len(train_views)),
            scoring.num_classes,
            solver,
            context.seeds["order"],
        ),
        params.solver,
        seen["val"].scores,
        scoring,
        labels["val"],
        _scores_in(checkpoint),
        told,
    )
    logits = {name: one.scores(chosen.fitted).astype(np.float32) for name, one in seen.items()}
    return _conclude(params, data, scoring, chosen, logits, train.shape[1], context)


def _scores_in(checkpoint: Checkpoint | None) -> list[float]:
    """The validation metrics of the candidates that are done."""
    if checkpoint is None or checkpoint.step == 0:
        return []
    scores: list[float] = json.loads(checkpoint.path(SCORES).read_text())
    if len(scores) != checkpoint.step:
        raise ValueError(f"{len(scores)} candidates in a checkpoint of {checkpoint.step}")
    return scores


def _write_scores(path: Path, scores: Sequence[float]) -> None:
    path.write_text(json.dumps(scores))


class _Seen:
    """The images of a split as a solver sees them in all their views, made when first asked for."""

    def __init__(
        self, found: Samples, normaliser: Normaliser, indices: Indices, views: Sequence[View]
    ) -> None:
        self._indices = indices
        self._views = views
        self._in_view = cache(lambda view: normaliser(found.of(indices, view)))

    def scores(self, classifier: Fitted) -> Floats:
        """(N, K): of the responses' mean over the views."""
        total: Floats | None = None
        for view in self._views:
            responses = classifier.responses(self._in_view(view))
            total = responses if total is None else total + responses
        assert total is not None, "there is at least one view"
        return classifier.scores(total / len(self._views))


def _samples(
    params: ProbeParams,
    backbones: Sequence[BackboneParams],
    data: Data,
    target: Input,
    context: Context,
    checkpoint: Checkpoint | None,
) -> Samples:
    """The features of all images that are trained, validated and tested on."""
    splits = data.splits
    held_out = np.concatenate([splits.val, splits.test])
    step = 0 if checkpoint is None else checkpoint.step

    def leave(done: int, total: int) -> None:
        shown = f"{done}/{total}"
        context.progress(step, len(params.solver.candidates), features=shown)
        context.checkpoint(step, lambda: as_it_stands(checkpoint, FILES))

    def images(interpolation: str) -> Images:
        if interpolation == backbones[0].model.preprocessing.interpolation:
            return data.images
        return decoded(
            data.listing,
            context.verified(target),
            params.target.decode_size,
            interpolation,
            store=context.store,
            threads=context.threads,
            progress=leave,
            wanted=np.sort(np.concatenate([splits.train, held_out])),
            skip_unreadable=params.target.corrupt == "skip",
        )

    return samples(
        backbones,
        images,
        params.target.crop_size or params.target.decode_size,
        [(splits.train, views_of(params.train_views)), (held_out, views_of(params.test_views))],
        context,
        l2=params.normalise.l2,
        also=[part_of(one) for one in params.compute_also],
        progress=leave,
    )


def _conclude(
    params: ProbeParams,
    data: Data,
    scoring: Scoring,
    chosen: Chosen,
    logits: Mapping[str, Logits],
    num_dims: int,
    context: Context,
) -> Completed:
    """Measure and keep what the chosen classifier says."""
    num_steps, members = len(params.solver.candidates), data.splits.by_name()
    metrics: dict[str, float] = {
        f"solver/{params.solver.tuned}": chosen.value,
        "solver/on_edge": float(chosen.on_edge),
        "solver/converged": float(chosen.fitted.converged),
        "solver/num_dims": float(num_dims),
    }
    splits = {}
    digest = hashlib.sha256()
    for split, found in logits.items():
        splits[split] = said = Predicted.of(data.images, members[split], found)
        digest.update(said.digests.tobytes() + found.tobytes())
        if len(found):
            metrics |= named(split, scoring.metrics(found, said.labels))
    for name, value in metrics.items():
        context.metric(name, value, num_steps)
    predictions = Predictions.of(data.listing.class_names, scoring, splits)
    keep_predictions(context, scoring, predictions)
    context.note(
        "fitted",
        on="train",
        num_images=len(data.splits.train),
        num_views=params.train_views,
        chosen_on="val" if chosen.on_validation else None,
        candidates={
            f"{value:g}": score
            for value, score in zip(params.solver.candidates, chosen.on_validation, strict=False)
        },
    )
    return Completed(
        {**data.metrics, **metrics},
        digest.hexdigest(),
        num_steps,
        () if chosen.fitted.converged else ("unconverged",),
    )
