"""The job ``distance``: which images it looks at, what it computes once, and that it resumes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pydantic import ValidationError

from ftd.errors import DataError, InputError
from ftd.job import Completed
from ftd.seeds import streams
from jobs.distance import Distance
from jobs.params.distance import DistanceParams
from tests.context import FolderContext
from tests.resume import Case, Stop, at_random, check_ways, run_whole

pytestmark = pytest.mark.usefixtures("torch_left_as_found")

DIGITS = {
    "dataset": "digits", "decode_size": 32, "per_class": 12, "test_per_class": 5,
    "val_per_class": 1,
}  # fmt: skip
MINI = {"name": "mini8", "weights": "none"}
LITE = {"name": "efficientnet_lite0", "weights": "imagenet"}
FEATURES = ["cosine", "mmd", "mmd_linear", "mmd_rbf", "svm"]
STEPS = {"steps": 12}


@pytest.fixture(scope="module")
def stripes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A dataset of stripes in colour, upright and lying."""
    root = tmp_path_factory.mktemp("stripes")
    draw = np.random.default_rng(1)
    for name in ("lying", "upright"):
        (root / name).mkdir()
        for number in range(70):
            pixels = np.zeros((32, 32, 3), np.uint8)
            pixels[:: draw.integers(2, 6)] = draw.integers(60, 255, 3)
            pixels = pixels if name == "lying" else pixels.transpose(1, 0, 2)
            Image.fromarray(pixels).save(root / name / f"{number}.png")
    return {
        "dataset": "folder", "folder": str(root), "decode_size": 32, "test_per_class": 5,
        "val_per_class": 1,
    }  # fmt: skip


def params(target: Mapping[str, Any], **more: Any) -> DistanceParams:
    """Resolved parameters; on mini8's fc7 unless said otherwise."""
    job = Distance()
    raw = {"model": MINI, "target": target, "repeats": 3, "num_images": 60, "cnn": STEPS, **more}
    return job.resolve(job.Params.model_validate(raw), Path())


def run(root: Path, wanted: DistanceParams, shared: Path | None = None) -> Completed:
    completed, _ = counted(root, wanted, shared)
    return completed


def counted(
    root: Path, wanted: DistanceParams, shared: Path | None = None
) -> tuple[Completed, dict[str, float]]:
    """What a run found, and how much work it was."""
    root.mkdir()
    context = FolderContext(root, shared=shared)
    completed = Distance().run(wanted, context)
    work: dict[str, float] = {}
    for name, value, _ in context.timings:
        work[name] = work.get(name, 0) + value
    return completed, work


def test_everything_between_two_datasets(
    stripes: dict[str, Any], tmp_path: Path, store: Path
) -> None:
    """Each measure has a value and a spread; stripes and digits are plainly different."""
    wanted = params(stripes, source=DIGITS, measures=[*FEATURES, "cnn"], cnn={"steps": 60})
    found = run(tmp_path / "a", wanted, store).metrics
    names = {
        "cosine", "mmd", "mmd_linear", "mmd_rbf", "svm_accuracy", "a_distance", "cnn_accuracy",
    }  # fmt: skip
    assert {name for name in found if name.startswith("distance/")} == {
        f"distance/{name}{part}" for name in names for part in ("", "_std")
    }
    assert found["distance/svm_accuracy"] > 0.9
    assert found["distance/cnn_accuracy"] > 0.9
    assert found["distance/a_distance"] == pytest.approx(4 * found["distance/svm_accuracy"] - 2)
    assert found["distance/mmd_rbf"] > 3 * found["distance/mmd_rbf_std"] > 0
    assert found["data/num_per_side"] == 60 and found["data/num_shared"] == 0


def test_a_dataset_and_itself(tmp_path: Path, store: Path) -> None:
    """Its images are shared out: about no distance, and nothing that tells the halves apart."""
    more = {**DIGITS, "per_class": 100}
    wanted = params(more, source=more, measures=[*FEATURES, "cnn"], num_images=400, repeats=5)
    found = run(tmp_path / "a", wanted, store).metrics
    assert found["data/num_shared"] == 1000
    assert found["distance/svm_accuracy"] == pytest.approx(0.5, abs=0.07)
    assert found["distance/cnn_accuracy"] == pytest.approx(0.5, abs=0.07)
    assert abs(found["distance/mmd_rbf"]) < 4 * found["distance/mmd_rbf_std"] + 1e-3
    assert found["distance/cosine"] < 0.01


def test_the_order_of_the_two_does_not_matter(
    stripes: dict[str, Any], tmp_path: Path, store: Path
) -> None:
    """The other way round every symmetric measure is the same number, and not computed again."""
    measures = [*FEATURES, "cnn"]
    one, _ = counted(tmp_path / "a", params(stripes, source=DIGITS, measures=measures), store)
    other, work = counted(tmp_path / "b", params(DIGITS, source=stripes, measures=measures), store)
    own = run(tmp_path / "c", params(DIGITS, source=stripes, measures=measures))
    for name, value in one.metrics.items():
        if name.startswith("distance/"):
            assert other.metrics[name] == own.metrics[name] == value
    assert work["distance/num_computed"] == 0
    assert work.get("features/num_forwards", 0) == 0


def test_a_distance_is_computed_once(stripes: dict[str, Any], tmp_path: Path) -> None:
    """Whoever asks for more computes only that, from the features that there are."""
    measures = ["cosine", "mmd_rbf"]
    whole = {"source": DIGITS, "num_images": 55}
    _, work = counted(
        tmp_path / "a", params(stripes, measures=measures, **whole), tmp_path / "store"
    )
    assert work["distance/num_computed"] == 2 and work["features/num_forwards"] > 0
    more = params(stripes, measures=[*measures, "svm"], **whole)
    _, work = counted(tmp_path / "b", more, tmp_path / "store")
    assert work == {"distance/num_computed": 1, "features/num_forwards": 0}
    _, work = counted(tmp_path / "c", more, tmp_path / "store")
    assert work == {"distance/num_computed": 0}


def test_the_test_images_are_never_looked_at(stripes: dict[str, Any], tmp_path: Path) -> None:
    """Whatever they show, nothing changes: of both sides the training images count."""

    def found(name: str) -> Mapping[str, float]:
        """With test images of one colour."""
        root = tmp_path / name
        for split, count in (("train", 20), ("test", 5)):
            for label in ("lying", "upright"):
                folder = root / split / label
                folder.mkdir(parents=True)
                files = sorted((Path(stripes["folder"]) / label).iterdir())[:count]
                for number, file in enumerate(files):
                    colour = (number + 1, 2 * len(name), 9)
                    made = split == "test"
                    image = Image.new("RGB", (32, 32), colour) if made else Image.open(file)
                    image.save(folder / file.name)
        own = {"dataset": "folder", "folder": str(root), "decode_size": 32, "val_per_class": 1}
        one = run(tmp_path / f"{name}-source", params(DIGITS, source=own, measures=FEATURES))
        other = run(tmp_path / f"{name}-target", params(own, measures=["logme", "transrate"]))
        return {**one.metrics, **other.metrics}

    assert found("a") == found("another")


def test_what_labels_tell(tmp_path: Path, store: Path) -> None:
    """All transferability scores of real weights, and the proxy for want of a source."""
    wanted = params(DIGITS, model=LITE)
    completed = run(tmp_path / "a", wanted, store)
    found = completed.metrics
    scores = ("logme", "leep", "nce", "h_score", "h_score_regularised", "transrate")
    for name in scores:
        assert np.isfinite(found[f"transfer/{name}"]) and found[f"transfer/{name}_std"] > 0
    assert found["transfer/leep"] < 0 and found["transfer/nce"] < 0
    assert 0 < found["distance/proxy_batchnorm"] < 100
    layers = json.loads((tmp_path / "a/artifacts/proxy_batchnorm.json").read_text())
    assert np.mean([*layers.values()]) == pytest.approx(found["distance/proxy_batchnorm"])
    assert len(layers) == 49
    assert Distance().primary_metric(wanted) == "distance/proxy_batchnorm"


def test_no_proxy_without_batchnorm(tmp_path: Path, store: Path) -> None:
    """A network that remembers nothing of its source is refused where only that was asked."""
    weights = tmp_path / "weights.safetensors"
    from safetensors.torch import save_file

    from tests.networks import scratch_state

    save_file(scratch_state("mini8"), weights)
    model = {"name": "mini8", "weights": {"file": str(weights)}}
    with pytest.raises(DataError, match="mini8 has no BatchNorm"):
        run(tmp_path / "a", params(DIGITS, model=model, measures=["proxy_batchnorm"]), store)
    found = run(tmp_path / "b", params(DIGITS, model=model), store).metrics
    assert "transfer/leep" in found and "distance/proxy_batchnorm" not in found


# --- parameters -------------------------------------------------------------------------------

CHANGES: dict[str, dict[str, Any]] = {
    "layer": {"features": {"layer": "fc6"}},
    "pooling": {"features": {"layer": "conv5", "pooling": {"grid": 2, "by": "max"}}},
    "num_images": {"num_images": 40},
    "repeats": {"repeats": 4},
    "cnn steps": {"cnn": {"steps": 13}},
    "cnn size": {"cnn": {**STEPS, "size": 16}},
    "cnn lr": {"cnn": {**STEPS, "lr": 0.1}},
    "measures": {"measures": ["cosine"]},
    "source": {"source": {**DIGITS, "per_class": 11}},
    "target": {"target": {**DIGITS, "classes": {"drop": ["3"]}}},
}


@pytest.mark.parametrize("name", CHANGES)
def test_every_parameter_counts(
    name: str, stripes: dict[str, Any], tmp_path: Path, store: Path
) -> None:
    """Each belongs to the key, and changes what is found."""
    job = Distance()
    some, others = ({**DIGITS, "classes": {"only": list(names)}} for names in ("0149", "35678"))
    base = {"target": some, "source": others, "measures": ["cosine", "svm", "cnn"]}
    if name in ("source", "target"):
        base["target" if name == "source" else "source"] = stripes
    before = params(**base)
    after = params(**{**base, **CHANGES[name]})
    assert job.identity(after) != job.identity(before)
    if name == "pooling":
        before = params(**base, features={"layer": "conv5"})
    old = run(tmp_path / "a", before, store).metrics
    new = run(tmp_path / "b", after, store).metrics
    assert old != new


def test_what_cannot_matter_is_no_part_of_the_key(stripes: dict[str, Any]) -> None:
    """The small network where it is not trained, the layer where none is asked, and so on."""
    job = Distance()

    def same(measures: list[str], **changes: Any) -> bool:
        base = {"target": stripes, "source": DIGITS, "measures": measures}
        one, other = params(**base), params(**{**base, **changes})
        return (job.identity(one), job.inputs(one)) == (job.identity(other), job.inputs(other))

    fc6 = {"features": {"layer": "fc6"}}
    assert same(["cosine"], cnn={"steps": 99}) and not same(["cosine", "cnn"], cnn={"steps": 99})
    assert same(["cnn"], **fc6) and not same(["cosine"], **fc6)
    assert same(["cnn"], model={"name": "alexnet", "weights": "none"})
    assert same(["logme"], source={**DIGITS, "per_class": 3})
    one, other = (
        params(stripes, source=DIGITS, measures=list(names))
        for names in (("cosine", "mmd"), ("mmd", "cosine"))
    )
    assert job.identity(one) == job.identity(other)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"measures": ["cosine"]}, "needs source"),
        ({"measures": []}, "must not be empty"),
        ({"measures": ["logme", "logme"]}, "stands twice"),
        ({"measures": ["leep"]}, "give model.weights"),
        ({"measures": ["proxy_batchnorm"]}, "give model.weights"),
        ({"source": {**DIGITS, "crop_size": 24}}, "shown at 24 and 32 pixels"),
        ({"features": {"layer": "fc9"}}, "has no layer 'fc9'"),
    ],
)
def test_what_cannot_work_is_refused(changes: dict[str, Any], says: str) -> None:
    """Before anything runs."""
    with pytest.raises((ValidationError, InputError), match=says):
        params(DIGITS, **changes)


def test_too_few_images(stripes: dict[str, Any], tmp_path: Path, store: Path) -> None:
    """Sets too small to be compared are refused."""
    few = {**DIGITS, "per_class": 1, "classes": {"num_classes": 4}}
    with pytest.raises(DataError, match="4 training images are too few"):
        run(tmp_path / "a", params(stripes, source=few, measures=["cosine"]), store)


def test_seeds_draw_images_and_halves(stripes: dict[str, Any], tmp_path: Path, store: Path) -> None:
    """Another replicate looks at other images."""
    wanted = params(stripes, source=DIGITS, measures=["cosine"])
    found = []
    for replicate in (0, 1):
        root = tmp_path / str(replicate)
        root.mkdir()
        context = FolderContext(root, seeds=streams(1, replicate), shared=store)
        found.append(Distance().run(wanted, context).metrics["distance/cosine"])
    assert found[0] != found[1]


# --- left and killed --------------------------------------------------------------------------


def test_left_and_killed_anywhere(stripes: dict[str, Any], tmp_path: Path) -> None:
    """Interrupted in decoding, in a pass or in a measure, it ends the same."""
    wanted = params(
        stripes, source=DIGITS, num_images=30, repeats=2, cnn={"steps": 3},
        measures=["cosine", "svm", "cnn", "logme"],
    )  # fmt: skip
    case = Case(Distance(), wanted, tmp_path / "store")
    whole = run_whole(case, tmp_path / "whole")
    last = len(whole.places)
    spread = sorted({*range(1, last + 1, max(1, last // 8)), *range(max(1, last - 5), last + 1)})
    check_ways(case, whole, tmp_path / "ways", [[Stop(place)] for place in spread])
    fresh = [replace(case, store=tmp_path / f"store-{number}") for number in range(4)]
    for number, ways in enumerate(at_random(whole, seed=2, num_ways=4)):
        check_ways(fresh[number], whole, tmp_path / f"fresh-{number}", [ways])
