"""Testing by several looks at each image: the mean of what the network says of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy.special import softmax

from jobs.data.batches import Loader
from jobs.data.prepare import prepared
from jobs.features.views import SIXTEEN
from jobs.finetune import Finetune
from jobs.measure.evaluate import evaluate
from jobs.measure.predict import Classifier
from jobs.measure.predictions import Predictions
from jobs.sources import PREDICTIONS
from tests.context import FolderContext
from tests.finetuning import params
from tests.resume import Case, Stop, check_ways, run_whole

pytestmark = pytest.mark.usefixtures("torch_left_as_found")

TARGET = {"per_class": 2, "val_per_class": 1, "decode_size": 36, "crop_size": 32}
TRAIN = {"epochs": 2, "batch_size": 10, "flip": False, "keep": "last"}  # with random crops


def test_the_mean_of_sixteen_looks_is_tested(store: Path, tmp_path: Path) -> None:
    """Test predictions are the mean probabilities of all views; all else is as with one."""
    found = {}
    for number in (1, 16):
        root = tmp_path / str(number)
        root.mkdir()
        context = FolderContext(root, shared=store)
        wanted = params(target=TARGET, train={**TRAIN, "test_views": number})
        completed = Finetune().run(wanted, context)
        told = Predictions.read(root / "artifacts" / PREDICTIONS)
        found[number] = (Finetune().identity(wanted), completed, told, context.metrics)
    (one, plain, said, rows), (other, viewed, averaged, more_rows) = found[1], found[16]
    assert one != other and plain.state_sha256 == viewed.state_sha256
    for metrics in (rows, more_rows):
        assert {key: v for key, v in metrics.items() if not key[0].startswith("test")} == {
            key: v for key, v in rows.items() if not key[0].startswith("test")
        }
    assert (averaged.splits["val"].logits == said.splits["val"].logits).all()
    source = Finetune().inputs(wanted)["target"]
    data = prepared(wanted.target, source, "bicubic", context, None, ())
    classifier = Classifier.load(root / "artifacts" / "weights.safetensors")
    loader = Loader(data.images, 32, classifier.told.preprocessing, "cpu")
    shares = [
        softmax(
            evaluate(
                classifier.network, loader, data.splits.test, "cpu", lambda: None, view.look
            ).astype(np.float64),
            axis=1,
        )
        for view in SIXTEEN
    ]
    expected = np.mean(shares, axis=0)
    assert np.exp(averaged.splits["test"].logits) == pytest.approx(expected, rel=1e-4)
    assert not np.allclose(softmax(said.splits["test"].logits, axis=1), expected, rtol=1e-2)
    assert plain.metrics["test/nll"] != viewed.metrics["test/nll"]


def test_left_while_it_looks_it_ends_the_same(store: Path, tmp_path: Path) -> None:
    """Left inside the test, a run tests again."""
    case = Case(Finetune(), params(target=TARGET, train={**TRAIN, "test_views": 16}), store)
    whole = run_whole(case, tmp_path / "whole")
    check_ways(case, whole, tmp_path / "ways", [[Stop(len(whole.places) - 7)]])
