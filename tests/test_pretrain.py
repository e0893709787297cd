"""The job pretrain: which images a source learns, what it keeps, and that it resumes exactly."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from ftd.errors import DataError, InputError
from ftd.job import Budget, Completed, Input
from ftd.seeds import streams
from jobs.finetune import Finetune
from jobs.measure.chance import chance, near_chance
from jobs.pretrain import Pretrain, PretrainParams
from jobs.sources import WEIGHTS, checkpoint_name
from jobs.train.state import TENSORS
from tests.context import FolderContext
from tests.resume import Case, Stop, Whole, at_random, check_ways, run_in_parts, run_whole

pytestmark = pytest.mark.usefixtures("torch_left_as_found")

BASE: dict[str, Any] = {
    "model": {"name": "mini8"},
    "source": {
        "dataset": "digits", "decode_size": 16, "crop_size": 14, "val_per_class": 3,
        "test_per_class": 5, "per_class": 6, "classes": {"num_classes": 4},
    },
    "train": {"steps": 6, "batch_size": 8, "lr": 0.05, "crop": "random", "schedule": "constant"},
    "keep_at": [2, 5],
}  # fmt: skip


def params(**sections: Any) -> PretrainParams:
    """The resolved base parameters with some keys replaced."""
    raw = {name: dict(value) if isinstance(value, dict) else value for name, value in BASE.items()}
    for name, changes in sections.items():
        old = raw.get(name)
        raw[name] = {**old, **changes} if isinstance(old, dict) else changes
    job = Pretrain()
    return job.resolve(job.Params.model_validate(raw), Path())


Ran = tuple[FolderContext, Completed]


def run(root: Path, store: Path, wanted: PretrainParams, **fields: Any) -> Ran:
    """Run to the end in `root`."""
    root.mkdir(exist_ok=True)
    context = FolderContext(root, shared=store, **fields)
    return context, Pretrain().run(wanted, context)


def kept(context: FolderContext, name: str = WEIGHTS) -> dict[str, torch.Tensor]:
    """The weights that a run kept under `name`."""
    return load_file(context.root / "artifacts" / name)


def told(context: FolderContext, name: str = WEIGHTS) -> Mapping[str, Any]:
    """What a run says of the weights that it kept under `name`."""
    with safe_open(context.root / "artifacts" / name, "pt") as stream:
        found: Mapping[str, Any] = json.loads(stream.metadata()["ftd"])
    return found


def same(one: Mapping[str, torch.Tensor], other: Mapping[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.fixture(scope="module")
def case(store: Path) -> Case:
    """A source that keeps the weights after two of its steps, with validations in between."""
    return Case(Pretrain(), params(train={"ema_decay": 0.5}), store)


@pytest.fixture(scope="module")
def whole(case: Case, tmp_path_factory: pytest.TempPathFactory) -> Whole:
    """The case, uninterrupted."""
    return run_whole(case, tmp_path_factory.mktemp("whole"))


# --- left and killed --------------------------------------------------------------------------


def test_left_anywhere_it_keeps_the_same(case: Case, whole: Whole, tmp_path: Path) -> None:
    """Weights of earlier steps survive, whichever attempt took those steps."""
    assert {WEIGHTS, "weights-2.safetensors", "weights-5.safetensors"} <= {*whole.outcome.artifacts}
    after = [place + 1 for place, step in enumerate(whole.places) if step in (1, 2, 5, 6)]
    check_ways(case, whole, tmp_path, [[Stop(place)] for place in after])


def test_left_and_killed_at_random(case: Case, whole: Whole, tmp_path: Path) -> None:
    """Any mixture of stops and kills ends the same."""
    check_ways(case, whole, tmp_path, at_random(whole, seed=3, num_ways=3))


def test_a_resume_without_the_kept_weights_is_caught(
    case: Case, whole: Whole, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Were they left out of checkpoints, a resumed run would keep less, and that would be seen."""
    from jobs.train import state

    last = len(whole.places) - whole.places[::-1].index(5)  # the last place after step 5
    attempts = tmp_path / "run"
    real = state.TrainingState.restore

    def forgetful(self: Any, checkpoint: Any) -> None:
        real(self, checkpoint)
        self.kept.clear()

    monkeypatch.setattr(state.TrainingState, "restore", forgetful)
    found = run_in_parts(case, attempts, [Stop(last)])
    assert "weights-5.safetensors became None" in " ".join(
        f"{name} became {found.artifacts.get(name)}" for name in whole.outcome.artifacts
    )


def test_checkpoints_hold_what_is_kept_so_far(case: Case, whole: Whole, tmp_path: Path) -> None:
    """And nothing of steps that are not to be kept."""
    place = whole.places.index(4) + 1
    context = FolderContext(tmp_path, shared=case.store, stop_at=place)
    with pytest.raises(BaseException, match="asked"):
        Pretrain().run(case.params, context)
    (folder,) = tmp_path.glob("checkpoint-*")
    steps = {name.split("/")[1] for name in load_file(folder / TENSORS) if name.startswith("kept/")}
    assert steps == {"2"}


# --- what is kept -----------------------------------------------------------------------------


@pytest.mark.parametrize("decay", [None, 0.5])
def test_weights_kept_on_the_way_are_those_of_a_shorter_run(
    decay: float | None, store: Path, tmp_path: Path
) -> None:
    """After 2 of 6 steps, the weights are those that a run of 2 steps ends with."""
    train = {"ema_decay": decay, "keep": "last"}
    long, completed = run(tmp_path / "long", store, params(train=train))
    short, _ = run(tmp_path / "short", store, params(train={**train, "steps": 2}, keep_at=[]))
    assert same(kept(long, checkpoint_name(2)), kept(short))
    assert not same(kept(long, checkpoint_name(2)), kept(long))
    assert told(long, checkpoint_name(2)) == told(long)
    plain, other = run(tmp_path / "plain", store, params(train=train, keep_at=[]))
    assert other == completed and plain.metrics == long.metrics, "keeping changes nothing else"
    assert [path.name for path in (plain.root / "artifacts").glob("weights*")] == [WEIGHTS]


def test_steps_that_are_never_reached_are_refused(store: Path, tmp_path: Path) -> None:
    """When planned where the number of steps is known, else before the first step."""
    with pytest.raises(InputError, match="after step 7, and training has 6"):
        params(keep_at=[7])
    with pytest.raises(InputError, match=r"keep_at: 40: training ends after \d+ steps"):
        run(tmp_path, store, params(train={"steps": None, "epochs": 1}, keep_at=[40]))


def test_a_target_starts_from_it(store: Path, tmp_path: Path) -> None:
    """Final weights or those of a step, the classifier too where the classes are the same."""
    source, _ = run(tmp_path / "source", store, params())
    names = told(source)["class_names"]
    job, found = Finetune(), {}
    for checkpoint in (None, 2):
        weights = {"run": "r1"} | ({} if checkpoint is None else {"checkpoint": checkpoint})
        raw = {
            "model": {"name": "mini8", "weights": weights},
            "layers": "F(1-7)FT(8)",
            "target": {**BASE["source"], "classes": {"only": names}},
            "train": {"steps": 1, "lr": 1e-6},
        }
        wanted = job.resolve(job.Params.model_validate(raw), Path())
        folders = {"r1": source.root / "artifacts"}
        context = FolderContext(tmp_path / f"target{checkpoint}", shared=store, runs=folders)
        context.root.mkdir()
        job.run(wanted, context)
        found[checkpoint] = kept(context)
        assert job.identity(wanted)["weights"] == ({} if checkpoint is None else {"checkpoint": 2})
    for checkpoint, name in ((None, WEIGHTS), (2, checkpoint_name(2))):
        assert torch.equal(
            found[checkpoint]["features.0.weight"], kept(source, name)["features.0.weight"]
        )


# --- which images -----------------------------------------------------------------------------


def data_of(context: FolderContext) -> Mapping[str, Any]:
    """What the run noted of its images."""
    return next(data for kind, data in context.notes if kind == "data")


def test_classes_and_images_are_nested(store: Path, tmp_path: Path) -> None:
    """The 3 classes are among the 6, the 4 images of a class among its 6; by seed."""
    from jobs.data.prepare import prepared
    from jobs.train.state import FILES

    def chosen(num_classes: int, per_class: int, replicate: int) -> tuple[set[str], set[int]]:
        source = params(
            source={"classes": {"num_classes": num_classes}, "per_class": per_class}
        ).source
        root = tmp_path / f"{num_classes}-{per_class}-{replicate}"
        root.mkdir(exist_ok=True)
        context = FolderContext(root, shared=store, seeds=streams(1, replicate))
        own = dict.fromkeys(context.seeds, context.seeds["source"])
        data = prepared(
            source, Input("package", "scikit-learn"), "bilinear", context, None, FILES, own
        )
        digests = data.images.digests[data.splits.train].tolist()
        return set(data.listing.class_names), set(digests)

    few, more = chosen(3, 4, 0), chosen(6, 4, 0)
    assert few[0] < more[0] and few[1] < more[1]
    assert chosen(3, 4, 0)[1] < chosen(3, 6, 0)[1]
    assert chosen(3, 4, 1)[0] != few[0], "another replicate draws other classes"


def test_a_source_draws_apart_from_a_target_of_the_same_images(store: Path, tmp_path: Path) -> None:
    """Its classes follow the seed stream source and no other that draws images."""
    seeds = streams(1, 0)
    classes = []
    for number, changes in enumerate(
        ({}, {"split": 5, "classes": 6, "subset": 7}, {"source": seeds["source"] + 1})
    ):
        context, _ = run(tmp_path / str(number), store, params(), seeds={**seeds, **changes})
        classes.append((data_of(context)["content_sha256"], kept(context)["classifier.6.weight"]))
    assert classes[0][0] == classes[1][0] and torch.equal(classes[0][1], classes[1][1])
    assert classes[0][0] != classes[2][0]


def test_a_budget_of_images_is_spread_over_classes(store: Path, tmp_path: Path) -> None:
    """The same number altogether, whatever the number of classes."""
    for num_classes in (2, 5):
        source = {
            "classes": {"num_classes": num_classes}, "per_class": None, "num_images": 30
        }  # fmt: skip
        root = tmp_path / str(num_classes)
        context, completed = run(root, store, params(source=source, train={"steps": 2}, keep_at=[]))
        assert completed.metrics["data/num_train"] == 30
        counts = data_of(context)["images_per_class"]["train"]
        assert len(counts) == num_classes and max(counts) - min(counts) <= 1


def test_coarse_labels(store: Path, tmp_path: Path) -> None:
    """Merged classes make one class each, of the images that fine labels tell apart."""
    merge = {"low": ["0", "1", "2"], "high": ["7", "8", "9"]}
    source = {"classes": {"merge": merge, "only": [*merge]}}
    context, _ = run(tmp_path, store, params(source=source, train={"steps": 2}, keep_at=[]))
    assert set(told(context)["class_names"]) == {"low", "high"}


# --- several sources --------------------------------------------------------------------------


def test_several_sources_are_one(store: Path, tmp_path: Path) -> None:
    """The union of images and of classes; those of the same name are one class."""
    first = {"classes": {"only": ["0", "1"]}}
    second = {**BASE["source"], "classes": {"only": ["1", "2"]}, "per_class": 4}
    wanted = params(source=first, more_sources=[second])
    context, completed = run(tmp_path / "both", store, wanted)
    assert told(context)["class_names"] == ["0", "1", "2"]
    assert completed.metrics["data/num_train"] == 2 * 6 + 2 * 4
    assert completed.metrics["data/num_test"] == 2 * 5 + 2 * 5
    ids = {row.split(",")[0] for row in (context.root / "artifacts/predictions.csv").open()}
    assert {name.split("/")[0] for name in ids} >= {"1", "2"}
    assert set(Pretrain().inputs(wanted)) == {"source", "source 2"}


def test_images_keep_their_digests_in_a_union(store: Path, tmp_path: Path) -> None:
    """What is drawn by image does not depend on what is beside it; twins are told apart."""
    from jobs.data.prepare import prepared
    from jobs.data.union import united
    from jobs.train.state import FILES

    context = FolderContext(tmp_path, shared=store)
    source = params(source={"classes": {"only": ["3", "5"]}}).source
    part = prepared(source, Input("package", "scikit-learn"), "bilinear", context, None, FILES)
    both = united([part, part])
    count = len(part.listing)
    assert united([part]) is part
    assert (both.images.digests[:count] == part.images.digests).all()
    assert len(np.unique(both.images.digests)) == 2 * count
    for name, indices in both.splits.by_name().items():
        own = part.splits.by_name()[name]
        assert indices.tolist() == [*own.tolist(), *(own + count).tolist()]
    index = int(part.splits.test[0])
    assert (both.images.pixels(count + index) == part.images.pixels(index)).all()
    assert (both.images.pixels(index) == part.images.pixels(index)).all()
    assert both.metrics["data/identical_in_train"] == part.metrics["data/identical_in_train"]
    labels = both.listing.labels
    assert (labels[:count] == labels[count:]).all()


def test_sources_of_other_sizes_are_refused() -> None:
    """One network sees them all."""
    other = {**BASE["source"], "decode_size": 20}
    with pytest.raises(InputError, match=r"more_sources: the sources differ in decode_size"):
        params(more_sources=[other])


# --- parameters -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "change",
    [
        {"model": {"name": "mini8-w2"}},
        {"source": {"per_class": 5}},
        {"source": {"classes": {"num_classes": 5}}},
        {"more_sources": [BASE["source"]]},
        {"train": {"lr": 0.1}},
        {"keep_at": [2]},
    ],
    ids=str,
)
def test_what_matters_is_part_of_the_identity(change: dict[str, Any]) -> None:
    """Every parameter that is used makes another run."""
    job = Pretrain()
    assert job.identity(params(**change)) != job.identity(params())


def test_what_cannot_matter_is_not() -> None:
    """Settings of other datasets, and the order in which steps to keep are listed."""
    job = Pretrain()
    same_thing = params(source={"glyphs": {"variants": 3}}, keep_at=[5, 2, 5])
    assert job.identity(same_thing) == job.identity(params())
    resolved = params()
    assert job.Params.model_validate(json.loads(resolved.model_dump_json())) == resolved
    assert job.resolve(resolved, Path("/elsewhere")) == resolved


def test_errors_speak_of_the_source(store: Path, tmp_path: Path) -> None:
    """Where a target would be named, the source is."""
    with pytest.raises(InputError, match=r"and the source asks for none.*source\.val_per_class"):
        params(source={"val_per_class": 0})
    with pytest.raises(DataError, match=r"source\.classes\.num_classes: 40 asked for"):
        run(tmp_path, store, params(source={"classes": {"num_classes": 40}}))


def test_a_route_of_several_steps(store: Path, tmp_path: Path) -> None:
    """A source that starts from another's weights keeps learning them under a new classifier."""
    first, _ = run(tmp_path / "first", store, params())
    wanted = params(
        model={"weights": {"run": "r1"}}, source={"classes": {"only": ["8", "9"]}},
        train={"lr": 1e-6, "steps": 1}, keep_at=[],
    )  # fmt: skip
    second, _ = run(tmp_path / "second", store, wanted, runs={"r1": first.root / "artifacts"})
    one, other = kept(first)["features.3.weight"], kept(second)["features.3.weight"]
    assert torch.allclose(one, other, atol=1e-4) and not torch.equal(one, other)
    assert told(second)["class_names"] == ["8", "9"]


def test_budgets_count_the_sources_images() -> None:
    """There is no target whose images could be counted."""
    raw = {**BASE, "train": {"batch_size": 10}}
    found = Pretrain().with_budget(raw, Budget(match="total_images", value=95))
    assert found["train"]["steps"] == 10
    with pytest.raises(InputError, match="without images of a target"):
        Pretrain().with_budget(raw, Budget(match="target_images", value=95))


# --- near chance ------------------------------------------------------------------------------


def test_a_source_near_chance_is_flagged(store: Path, tmp_path: Path) -> None:
    """One that learned nothing is; one that tells its validation images apart is not."""
    train = {"lr": 1e-9, "steps": 2}
    assert "near_chance" in run(tmp_path / "a", store, params(train=train, keep_at=[]))[1].flags
    only = {"classes": {"only": ["0", "1"]}}
    source = {**only, "per_class": 40, "val_per_class": 10, "crop_size": 16}
    learned = {"optimizer": "adamw", "lr": 0.002, "batch_size": 20, "steps": 40}
    _, completed = run(tmp_path / "b", store, params(source=source, train=learned, keep_at=[]))
    assert completed.metrics["val/top1"] > 0.9 and completed.flags == ()


def test_what_chance_is() -> None:
    """The commonest class, or the commoner answer for each class, and a standard error more."""
    labels = np.array([0] * 64 + [1] * 36)
    assert chance(labels) == 0.64
    assert chance(np.array([[1, 0], [1, 1], [1, 0], [0, 0]])) == 0.75

    def right(num_right: int) -> np.ndarray[Any, np.dtype[np.float32]]:
        said = np.where(np.arange(100) < num_right, labels, 1 - labels)
        return np.eye(2, dtype=np.float32)[said]

    error = 4.8  # sqrt(0.64 * 0.36 / 100) of 100 images
    assert near_chance(right(64 + int(error)), labels)
    assert not near_chance(right(64 + int(error) + 1), labels)
