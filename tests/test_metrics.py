"""Metrics agree with scikit-learn's, and a digest with what it stands for."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn import metrics as oracle

from jobs.data.digits import digits_listing
from jobs.measure.digest import state_sha256
from jobs.measure.metrics import auroc, chance, log_probabilities, measures
from jobs.measure.predictions import write_predictions

Logits = npt.NDArray[np.float32]


@st.composite
def predictions(draw: st.DrawFn, num_classes: int) -> tuple[Logits, npt.NDArray[np.int64]]:
    """Logits with many ties, and labels that hold every class."""
    num_samples = draw(st.integers(num_classes, 40))
    size = num_samples * num_classes
    values = draw(st.lists(st.integers(-3, 3), min_size=size, max_size=size))
    labels = draw(st.permutations([index % num_classes for index in range(num_samples)]))
    logits = np.array(values, np.float32).reshape(num_samples, num_classes) / 2
    return logits, np.array(labels, dtype=np.int64)


@given(predictions(3))
def test_metrics_of_three_classes(drawn: tuple[Logits, npt.NDArray[np.int64]]) -> None:
    """Top-1, balanced accuracy and NLL are scikit-learn's; there is no AUROC."""
    logits, labels = drawn
    found = measures(logits, labels)
    predicted = logits.argmax(axis=1)
    assert found["top1"] == pytest.approx(oracle.accuracy_score(labels, predicted))
    wanted = oracle.balanced_accuracy_score(labels, predicted)
    assert found["balanced_accuracy"] == pytest.approx(wanted)
    probabilities = np.exp(log_probabilities(logits))
    wanted = oracle.log_loss(labels, probabilities, labels=[0, 1, 2])
    assert found["nll"] == pytest.approx(wanted)
    assert "auroc" not in found


@given(predictions(2))
def test_auroc_with_ties(drawn: tuple[Logits, npt.NDArray[np.int64]]) -> None:
    """AUROC counts ties half, as scikit-learn does, and does not care which class is positive."""
    logits, labels = drawn
    scores = logits[:, 1].astype(np.float64) - logits[:, 0]
    wanted = oracle.roc_auc_score(labels, scores)
    assert measures(logits, labels)["auroc"] == pytest.approx(wanted)
    assert auroc(-scores, labels == 0) == pytest.approx(wanted)


@given(predictions(4))
def test_balanced_accuracy_leaves_out_absent_classes(
    drawn: tuple[Logits, npt.NDArray[np.int64]],
) -> None:
    """A class that the set does not hold is not part of the mean."""
    logits, labels = drawn
    present = labels != 1
    if present.any():
        predicted = logits[present].argmax(axis=1)
        recalls = [
            (predicted[labels[present] == c] == c).mean() for c in np.unique(labels[present])
        ]
        found = measures(logits[present], labels[present])
        assert found["balanced_accuracy"] == pytest.approx(np.mean(recalls))


@pytest.mark.parametrize("num_classes", [2, 5])
def test_chance_is_what_equal_logits_give(num_classes: int) -> None:
    """The metrics of chance are the NLL of uniform predictions and the expected accuracy."""
    labels = np.arange(num_classes * 3, dtype=np.int64) % num_classes
    found = measures(np.zeros((len(labels), num_classes), np.float32), labels)
    assert found == pytest.approx(chance(num_classes))


def test_huge_logits_stay_finite() -> None:
    """Logits at the limits of float32 give a finite NLL."""
    logits = np.array([[3e38, -3e38], [-3e38, 3e38]], np.float32)
    assert np.isfinite(measures(logits, np.array([1, 0]))["nll"])


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


def test_predictions_can_be_read_back(tmp_path: Path) -> None:
    """The table has a row per sample with its probabilities, whatever a file is called."""
    names = ('with, comma and "quotes"', "broken \udcff byte", "plain")
    listing = replace(digits_listing(), ids=names, labels=np.array([0, 1, 2]))
    logits = np.eye(10, dtype=np.float32)[:2] * 9
    path = tmp_path / "predictions.csv"
    write_predictions(
        path, listing, {"val": (np.array([2]), logits[:1]), "test": (np.array([0, 1]), logits)}
    )
    with path.open(newline="", errors="surrogateescape") as stream:
        rows = list(csv.DictReader(stream))
    assert [row["id"] for row in rows] == [names[2], names[0], names[1]]
    assert [row["split"] for row in rows] == ["val", "test", "test"]
    assert [(row["label"], row["predicted"]) for row in rows] == [
        ("2", "0"),
        ("0", "0"),
        ("1", "1"),
    ]
    total = sum(float(rows[0][f"p({name})"]) for name in listing.class_names)
    assert total == pytest.approx(1, abs=1e-4)
