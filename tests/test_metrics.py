"""Metrics agree with scikit-learn or their definition, and a digest with what it stands for."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn import metrics as oracle

from ftd.errors import DataError
from jobs.data.keyed import splitmix64
from jobs.measure import ranking
from jobs.measure.calibration import (
    NUM_BINS,
    binary_cross_entropy,
    brier,
    expected_calibration_error,
    log_probabilities,
)
from jobs.measure.details import write_details
from jobs.measure.digest import state_sha256
from jobs.measure.predictions import Predicted, Predictions
from jobs.measure.scoring import Scoring
from jobs.train.loss import Objective

Logits = npt.NDArray[np.float32]
Labels = npt.NDArray[np.int64]


@st.composite
def predictions(draw: st.DrawFn, num_classes: int) -> tuple[Logits, Labels]:
    """Logits with many ties, and labels that hold every class."""
    num_samples = draw(st.integers(num_classes, 40))
    size = num_samples * num_classes
    values = draw(st.lists(st.integers(-3, 3), min_size=size, max_size=size))
    labels = draw(st.permutations([index % num_classes for index in range(num_samples)]))
    logits = np.array(values, np.float32).reshape(num_samples, num_classes) / 2
    return logits, np.array(labels, dtype=np.int64)


@st.composite
def several_labels(draw: st.DrawFn) -> tuple[Logits, Labels]:
    """Logits with ties, and zeros and ones in which every class is both."""
    num_samples = draw(st.integers(2, 30))
    bits = draw(st.lists(st.integers(0, 1), min_size=num_samples * 3, max_size=num_samples * 3))
    values = draw(st.lists(st.integers(-3, 3), min_size=num_samples * 3, max_size=num_samples * 3))
    labels = np.array(bits, np.int64).reshape(-1, 3)
    labels[0], labels[1] = 0, 1
    return np.array(values, np.float32).reshape(-1, 3) / 2, labels


@given(predictions(3))
def test_metrics_of_three_classes(drawn: tuple[Logits, Labels]) -> None:
    """Top-1, balanced accuracy, macro-F1, NLL are scikit-learn's; there is no top-5."""
    logits, labels = drawn
    found = Scoring(3).metrics(logits, labels)
    predicted = logits.argmax(axis=1)
    assert found["top1"] == pytest.approx(oracle.accuracy_score(labels, predicted))
    wanted = oracle.balanced_accuracy_score(labels, predicted)
    assert found["balanced_accuracy"] == pytest.approx(wanted)
    wanted = oracle.f1_score(labels, predicted, average="macro")
    assert found["macro_f1"] == pytest.approx(wanted)
    probabilities = np.exp(log_probabilities(logits))
    wanted = oracle.log_loss(labels, probabilities, labels=[0, 1, 2])
    assert found["nll"] == pytest.approx(wanted)
    assert "top5" not in found and "recall_head" not in found


@pytest.mark.parametrize("seed", range(5))
def test_ranks_of_several_classes(seed: int) -> None:
    """AUROC is scikit-learn's macro one-vs-rest, mAP the mean of its average precisions."""
    draw = np.random.default_rng(seed)
    logits = (draw.normal(size=(60, 4)) * 3).astype(np.float32)
    labels = draw.permutation(np.arange(60) % 4)
    probabilities = np.exp(log_probabilities(logits))
    found = Scoring(4).metrics(logits, labels)
    wanted = oracle.roc_auc_score(labels, probabilities, multi_class="ovr")
    assert found["auroc"] == pytest.approx(wanted)
    wanted = oracle.average_precision_score(np.eye(4)[labels], probabilities)
    assert found["map"] == pytest.approx(wanted)


@pytest.mark.parametrize("seed", range(5))
def test_ranks_of_votes(seed: int) -> None:
    """Classifiers of one class each rank by what they say: equal shares of votes are ties, whatever
    the other classes got."""
    draw = np.random.default_rng(seed)
    shares = draw.multinomial(5, [0.25] * 4, size=80) / 5
    labels = draw.permutation(np.arange(80) % 4)
    logits = np.log((shares * 5 + 0.25) / 6).astype(np.float32)
    scoring = Scoring(4, by_response=True)
    found, per_class = scoring.metrics(logits, labels), scoring.per_class(logits, labels)
    wanted = [oracle.roc_auc_score(labels == k, shares[:, k]) for k in range(4)]
    assert found["auroc"] == pytest.approx(np.mean(wanted))
    assert per_class["auroc"] == pytest.approx(wanted)
    wanted = oracle.average_precision_score(np.eye(4)[labels], shares)
    assert found["map"] == pytest.approx(wanted)


@given(predictions(2))
def test_auroc_with_ties(drawn: tuple[Logits, Labels]) -> None:
    """AUROC counts ties half, as scikit-learn does, and does not care which class is positive."""
    logits, labels = drawn
    scores = logits[:, 1].astype(np.float64) - logits[:, 0]
    wanted = oracle.roc_auc_score(labels, scores)
    assert Scoring(2).metrics(logits, labels)["auroc"] == pytest.approx(wanted)
    assert ranking.Ranking.of(-scores, labels == 0).auroc == pytest.approx(wanted)


@given(several_labels())
def test_metrics_of_several_labels(drawn: tuple[Logits, Labels]) -> None:
    """Each class by itself: scikit-learn's mAP, macro AUROC, F1 at one half, log-loss."""
    logits, labels = drawn
    found = Scoring(3, multi_label=True).metrics(logits, labels)
    said = (logits > 0).astype(int)
    assert found == {
        "map": pytest.approx(oracle.average_precision_score(labels, logits)),
        "map_voc07": pytest.approx(np.mean([voc07(logits[:, k], labels[:, k]) for k in range(3)])),
        "auroc": pytest.approx(oracle.roc_auc_score(labels, logits)),
        "micro_f1": pytest.approx(oracle.f1_score(labels, said, average="micro", zero_division=0)),
        "macro_f1": pytest.approx(oracle.f1_score(labels, said, average="macro", zero_division=0)),
        "bce": pytest.approx(
            np.mean([
                oracle.log_loss(labels[:, k], 1 / (1 + np.exp(-logits[:, k].astype(float))))
                for k in range(3)
            ])
        ),
    }  # fmt: skip


def voc07(scores: npt.NDArray[np.floating], labels: Labels) -> float:
    """The definition, on scikit-learn's curve less the point that no threshold reaches."""
    precision, recall, _ = oracle.precision_recall_curve(labels, scores)
    precision, recall = precision[:-1], recall[:-1]
    return float(np.mean([precision[recall >= t - 1e-9].max() for t in np.arange(11) / 10]))


@given(predictions(2))
def test_eleven_points(drawn: tuple[Logits, Labels]) -> None:
    """VOC 2007's measure is the mean of eleven best precisions, ties included."""
    logits, labels = drawn
    scores = logits[:, 0].astype(np.float64)
    found = ranking.Ranking.of(scores, labels == 1).voc07_average_precision
    assert found == pytest.approx(voc07(scores, labels))


def test_odds_tell_apart_what_rounds_to_one() -> None:
    """Three probabilities of 1 in float64 still have an order, and huge logits stay finite."""
    logits = np.array([[80, 0, 0], [90, 0, 0], [85, 0, 0], [3e38, -3e38, 0]], np.float32)
    odds = ranking.log_odds(logits)
    assert np.argsort(odds[:3, 0]).tolist() == [0, 2, 1]
    assert np.isfinite(odds).all()


@given(predictions(3))
def test_odds_are_those_of_the_softmax(drawn: tuple[Logits, Labels]) -> None:
    """Log-odds are log p - log(1 - p)."""
    p = np.exp(log_probabilities(drawn[0]))
    assert ranking.log_odds(drawn[0]) == pytest.approx(np.log(p) - np.log1p(-p))


@given(predictions(3))
def test_calibration(drawn: tuple[Logits, Labels]) -> None:
    """Brier is scikit-learn's class by class; ECE is its definition, bin by bin."""
    logits, labels = drawn
    p = np.exp(log_probabilities(logits))
    wanted = sum(oracle.brier_score_loss(labels == k, p[:, k]) for k in range(3))
    assert brier(p, labels) == pytest.approx(wanted)
    confidence, right = p.max(axis=1), p.argmax(axis=1) == labels
    gap = 0.0
    for b in range(NUM_BINS):
        inside = (confidence > b / NUM_BINS) & (confidence <= (b + 1) / NUM_BINS)
        if inside.any():
            gap += inside.mean() * abs(right[inside].mean() - confidence[inside].mean())
    assert expected_calibration_error(p, labels) == pytest.approx(gap)


def test_top5() -> None:
    """With more than five classes, a label among the five largest logits counts."""
    draw = np.random.default_rng(1)
    logits, labels = draw.normal(size=(50, 7)).astype(np.float32), np.arange(50) % 7
    wanted = oracle.top_k_accuracy_score(labels, logits, k=5)
    assert Scoring(7).metrics(logits, labels)["top5"] == pytest.approx(wanted)


def test_recall_of_terciles() -> None:
    """Head, middle and tail are means of per-class recall over their classes."""
    labels = np.repeat(np.arange(6), 4)
    predicted = labels.copy()
    predicted[[0, 4, 5]] = 5  # classes 0 and 1 lose one and two of four
    terciles = (np.array([0, 1]), np.array([4, 2]), np.array([3, 5]))
    found = Scoring(6, terciles=terciles).metrics(np.eye(6, dtype=np.float32)[predicted], labels)
    assert found["recall_head"] == pytest.approx((0.75 + 0.5) / 2)
    assert found["recall_middle"] == found["recall_tail"] == 1


@given(predictions(4))
def test_balanced_accuracy_leaves_out_absent_classes(drawn: tuple[Logits, Labels]) -> None:
    """A class that the set does not hold is not part of the mean."""
    logits, labels = drawn
    present = labels != 1
    predicted = logits[present].argmax(axis=1)
    recalls = [(predicted[labels[present] == c] == c).mean() for c in np.unique(labels[present])]
    found = Scoring(4).metrics(logits[present], labels[present])
    assert found["balanced_accuracy"] == pytest.approx(np.mean(recalls))


@pytest.mark.parametrize("num_classes", [2, 5, 8])
def test_chance_is_what_equal_logits_give(num_classes: int) -> None:
    """For classes that are equally frequent, chance is the value of uniform predictions."""
    labels = np.arange(num_classes * 3, dtype=np.int64) % num_classes
    terciles = np.array_split(np.arange(num_classes), 3)
    scoring = Scoring(num_classes, terciles=terciles if num_classes > 2 else ())
    found = scoring.metrics(np.zeros((len(labels), num_classes), np.float32), labels)
    chance = scoring.chance(labels)
    assert found.keys() == chance.keys()
    # equal logits always predict the first class, which chance does not
    guessing = {"macro_f1", "recall_head", "recall_middle", "recall_tail"}
    for name in found.keys() - guessing:
        assert found[name] == pytest.approx(chance[name], abs=1e-12), name
    assert chance["macro_f1"] == pytest.approx(1 / num_classes)


@given(several_labels(), st.booleans())
def test_chance_has_the_names_of_the_metrics(drawn: tuple[Logits, Labels], one_class: bool) -> None:
    """Whatever the labels, the metrics of chance are those that predictions have."""
    logits, labels = drawn
    if one_class:
        labels = np.zeros_like(labels)
    several = Scoring(3, multi_label=True)
    assert several.metrics(logits, labels).keys() == several.chance(labels).keys()
    first = np.array([0]) if one_class else np.arange(len(labels)) % 3
    one = Scoring(3)
    assert one.metrics(logits[: len(first)], first).keys() == one.chance(first).keys()


@pytest.mark.parametrize(
    ("scoring", "select", "says"),
    [
        (Scoring(3), "val/top5", "no val/top5"),
        (Scoring(3), "val/recall_tail", "no val/recall_tail"),
        (Scoring(3), "val/bce", "no val/bce"),
        (Scoring(3, multi_label=True), "val/top1", "several labels"),
    ],
)
def test_a_selection_that_does_not_exist(scoring: Scoring, select: str, says: str) -> None:
    """What keep: best goes by must be a metric that the target has."""
    labels = np.eye(3, dtype=np.int64) if scoring.multi_label else np.arange(3)
    with pytest.raises(DataError, match=says):
        scoring.check_selection(select, labels)
    with pytest.raises(DataError, match="there are none"):
        scoring.check_selection(select, labels[:0])
    scoring.check_selection("val/map", labels)


def test_huge_logits_stay_finite() -> None:
    """Logits at the limits of float32 give finite metrics."""
    logits = np.array([[3e38, -3e38], [-3e38, 3e38]], np.float32)
    assert np.isfinite(list(Scoring(2).metrics(logits, np.array([1, 0])).values())).all()
    several = Scoring(2, multi_label=True).metrics(logits, np.array([[1, 0], [1, 0]]))
    assert np.isfinite(list(several.values())).all()


def test_the_loss_follows_the_labels() -> None:
    """Class numbers are learned by cross-entropy, zeros and ones by binary cross-entropy."""
    logits = torch.randn(5, 3, generator=torch.Generator().manual_seed(1))
    numbers = torch.tensor([0, 2, 1, 1, 0])
    wanted = -torch.log_softmax(logits, 1)[torch.arange(5), numbers].mean()
    one, several = Objective(3), Objective(3, several=True)
    assert torch.allclose(one.sum(logits, numbers) / 5, wanted)
    ones = torch.tensor([[0, 0, 0], [1, 1, 1], [1, 0, 0], [0, 1, 1], [0, 0, 1]])
    wanted = binary_cross_entropy(logits.numpy(), ones.numpy())
    assert several.sum(logits, ones).item() / 5 == pytest.approx(wanted, rel=1e-6)
    assert one.num_right(logits, logits.argmax(1)) == 5
    assert several.num_right(logits, (logits > 0).long()).item() == 5
    assert several.num_right(logits, (logits <= 0).long()).item() == 0


def said(labels: Any, logits: Logits, ids: Sequence[str] = ()) -> Predicted:
    """Predictions of samples with these labels."""
    count = len(labels)
    digests = splitmix64(np.arange(count, dtype=np.uint64))
    return Predicted(
        ids or tuple(map(str, range(count))), digests, np.array(labels, np.int64), logits
    )


def test_details_class_by_class(tmp_path: Path) -> None:
    """The JSON has recall, F1, AP, AUROC and confusion of every class, null where undefined."""
    logits = np.eye(3, dtype=np.float32)[[0, 1, 1, 1, 2]] * 4
    path = tmp_path / "classes.json"
    splits = {"test": said([0, 0, 1, 1, 0], logits), "val": said([], logits[:0])}
    write_details(path, Scoring(3), Predictions(("a", "b", "c"), False, (), splits))
    found = json.loads(path.read_text())
    assert set(found) == {"class_names", "test"}
    test = found["test"]
    assert test["num_images"] == [3, 2, 0]
    assert test["confusion"] == [[1, 1, 1], [0, 2, 0], [0, 0, 0]]
    assert test["recall"] == [pytest.approx(1 / 3), 1, None]
    assert test["f1"] == [pytest.approx(0.5), pytest.approx(0.8), 0]
    assert test["auroc"][2] is None and test["average_precision"][2] is None
    wanted = oracle.roc_auc_score([0, 0, 1, 1, 0], np.exp(log_probabilities(logits))[:, 1])
    assert test["auroc"][1] == pytest.approx(wanted)


def test_the_digest_sees_every_difference() -> None:
    """Another name, dtype, shape or bit changes the digest; order and memory layout do not."""
    tensor = torch.arange(24, dtype=torch.float32).reshape(1, 2, 3, 4)
    state = {"a": tensor, "b": torch.zeros((), dtype=torch.int64)}
    same = {"b": state["b"].clone(), "a": tensor.to(memory_format=torch.channels_last)}
    assert state_sha256(same) == state_sha256(state)
    flipped = tensor.clone()
    flipped.view(torch.int32)[0, 1, 2, 3] ^= 1
    others = [
        {"c": tensor, "b": state["b"]},
        {"a": tensor, "b": torch.zeros((), dtype=torch.int32)},
        {"a": tensor.reshape(2, 1, 3, 4), "b": state["b"]},
        {"a": flipped, "b": state["b"]},
        {"a": tensor},
    ]
    assert len({state_sha256(other) for other in [state, *others]}) == 6


def test_the_table_of_predictions(tmp_path: Path) -> None:
    """A row per sample with its probabilities, whatever a file is called."""
    names = ('with, comma and "quotes"', "broken \udcff byte", "plain")
    logits = np.eye(10, dtype=np.float32)[:2] * 9
    splits = {"val": said([2], logits[:1], names[2:]), "test": said([0, 1], logits, names[:2])}
    path = tmp_path / "predictions.csv"
    Predictions(tuple("0123456789"), False, (), splits).write_table(path)
    with path.open(newline="", errors="surrogateescape") as stream:
        rows = list(csv.DictReader(stream))
    assert [row["id"] for row in rows] == [names[2], names[0], names[1]]
    assert [row["split"] for row in rows] == ["val", "test", "test"]
    assert [(row["label"], row["predicted"]) for row in rows] == [
        ("2", "0"),
        ("0", "0"),
        ("1", "1"),
    ]
    total = sum(float(rows[0][f"p({name})"]) for name in range(10))
    assert total == pytest.approx(1, abs=1e-4)


def test_the_table_of_several_labels(tmp_path: Path) -> None:
    """Labels are listed; predicted are those with a probability above one half."""
    path = tmp_path / "predictions.csv"
    logits = np.array([[2, -2], [0, 1]], np.float32)
    splits = {"test": said([[1, 1], [0, 0]], logits)}
    Predictions(("a", "b"), True, (), splits).write_table(path)
    rows = list(csv.DictReader(path.open(newline="")))
    assert [(row["label"], row["predicted"]) for row in rows] == [("a;b", "a"), ("", "b")]
    assert float(rows[0]["p(a)"]) == pytest.approx(1 / (1 + np.exp(-2)), rel=1e-5)


@pytest.mark.parametrize("labels", [[0, 1], [[1, 0], [1, 1]]])
def test_predictions_can_be_read_back(tmp_path: Path, labels: Any) -> None:
    """Every digit of the logits, names of any kind, empty splits; equal ones are equal files."""
    logits = np.random.default_rng(1).normal(size=(2, 2)).astype(np.float32)
    several = isinstance(labels[0], list)
    splits = {
        "val": said(np.zeros((0, 2)) if several else [], logits[:0]),
        "test": said(labels, logits, ("broken \udcff byte", "plain")),
    }
    kept = Predictions(("a", "ü"), several, ((0,), (), (1,)), splits)
    one, other = tmp_path / "one", tmp_path / "other"
    kept.write(one)
    found = Predictions.read(one)
    found.write(other)
    assert one.read_bytes() == other.read_bytes()
    assert (found.class_names, found.multi_label, found.terciles) == (
        kept.class_names, kept.multi_label, kept.terciles
    )  # fmt: skip
    assert found.splits["test"].ids == kept.splits["test"].ids and len(found.splits["val"]) == 0
    for name in ("digests", "labels", "logits"):
        assert (getattr(found.splits["test"], name) == getattr(splits["test"], name)).all()
    one.write_bytes(b"something else")
    with pytest.raises(DataError, match="no predictions"):
        Predictions.read(one)
