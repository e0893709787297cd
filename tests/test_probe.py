"""The job probe: what it fits on what, what its parameters do, what it never does twice."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pydantic import ValidationError
from safetensors.torch import save_file

from ftd.errors import DataError, InputError, SpecError, WeightsError
from ftd.job import Completed
from ftd.planning.plan import make_plan
from ftd.seeds import streams
from ftd.spec.experiment import parse
from jobs.data import images as images_module
from jobs.features import extract
from jobs.features.shards import Shard
from jobs.measure.averaging import averaged
from jobs.measure.predictions import Predictions
from jobs.params.probe import ProbeParams
from jobs.probe import Probe
from jobs.solvers import run as run_module
from jobs.sources import PREDICTIONS
from tests.context import FolderContext
from tests.entries import Situation, check_entries
from tests.homes import LiveHome
from tests.networks import network
from tests.resume import (
    Case,
    Kill,
    Stop,
    at_random,
    check_ways,
    killed_during_resume,
    run_in_parts,
    run_whole,
    twice_in_a_row,
)

pytestmark = pytest.mark.usefixtures("torch_left_as_found")

BASE: dict[str, Any] = {
    "model": {"name": "mini8", "weights": "none"},
    "features": {"layer": "conv4"},
    "target": {
        "dataset": "digits", "decode_size": 30, "crop_size": 28, "test_per_class": 12,
        "val_per_class": 6, "per_class": 10,
    },
    "solver": {"C": [0.1, 10]},
}  # fmt: skip


def params(**changes: Any) -> ProbeParams:
    """The resolved base parameters with some keys replaced, in sections too."""
    raw = dict(BASE)
    for name, change in changes.items():
        both = isinstance(change, dict) and isinstance(raw.get(name), dict)
        raw[name] = {**raw[name], **change} if both else change
    job = Probe()
    return job.resolve(job.Params.model_validate(raw), Path())


def probe(
    root: Path, store: Path, wanted: ProbeParams, seeds: Mapping[str, int] | None = None
) -> tuple[FolderContext, Completed]:
    """One run in `root` on a shared `store`."""
    root.mkdir(parents=True)
    context = FolderContext(root, shared=store, seeds=seeds or streams(1, 0))
    return context, Probe().run(wanted, context)


def forwards(context: FolderContext) -> int:
    """How many images went through networks in a run."""
    return int(sum(value for name, value, _ in context.timings if name == "features/num_forwards"))


def said(root: Path) -> Predictions:
    return Predictions.read(root / "artifacts" / PREDICTIONS)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store in which the base's features are."""
    return tmp_path_factory.mktemp("shared") / "store"


@pytest.fixture
def only_wanted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sixteen views of all digits would take long: those that count are enough."""
    monkeypatch.setattr(extract, "LARGE", 0)
    monkeypatch.setattr(extract, "FEW", 2)


# --- what it fits on what -----------------------------------------------------------------------


def test_it_learns(tmp_path: Path, shared: Path) -> None:
    """Even random features tell digits apart; the result is measured and kept like a network's."""
    context, completed = probe(tmp_path / "a", shared, params())
    assert completed.metrics["test/top1"] > 0.6 and completed.flags == ()
    assert completed.metrics["data/num_train"] == 100
    assert completed.metrics["solver/converged"] == 1
    assert completed.metrics["solver/C"] in (0.1, 10)
    assert completed.metrics["solver/on_edge"] == 1
    assert completed.metrics["solver/num_dims"] == 48
    kept = said(tmp_path / "a")
    assert {split: len(found) for split, found in kept.splits.items()} == {"val": 60, "test": 120}
    top1 = (kept.splits["test"].logits.argmax(1) == kept.splits["test"].labels).mean()
    assert completed.metrics["test/top1"] == pytest.approx(top1)
    choices = {step: value for (name, step), value in context.metrics.items() if "choice" in name}
    assert set(choices) == {1, 2} and max(choices.values()) == completed.metrics["val/top1"]
    notes = dict(context.notes)
    assert notes["fitted"]["on"] == "train" and notes["fitted"]["num_images"] == 100


def test_only_training_images_are_fitted_on(
    tmp_path: Path, shared: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Components and classifiers are given the training images' features and nothing else."""
    given: list[Any] = []
    for name in ("fitted", "candidates"):
        real = getattr(run_module, name)

        def recording(train: Any, *others: Any, real: Any = real) -> Any:
            given.append(np.array(train))
            return real(train, *others)

        monkeypatch.setattr(run_module, name, recording)
    wanted = params(normalise={"pca": 5, "l2": False})
    context, _ = probe(tmp_path / "a", shared, wanted)
    data = run_module.prepared(
        wanted.target, Probe().inputs(wanted)["target"], "bilinear", context, None, ()
    )
    found = run_module._samples(wanted, [_first(wanted)], data, _source(wanted), context, None)
    train = found.stacked(data.splits.train, run_module.views_of(1))
    assert np.array_equal(given[0], train)
    assert given[1].shape == (100, 5)
    np.testing.assert_allclose(given[1].mean(0), 0, atol=1e-5)


def _first(wanted: ProbeParams) -> Any:
    from jobs.probe import _backbones

    return _backbones(wanted)[0]


def _source(wanted: ProbeParams) -> Any:
    return Probe().inputs(wanted)["target"]


def test_test_labels_choose_nothing(tmp_path: Path, shared: Path) -> None:
    """Without validation images a grid is refused, rather than chosen from in another way."""
    without = {"val_per_class": 0}
    with pytest.raises(DataError, match="no validation images to choose by"):
        probe(tmp_path / "a", shared, params(target=without))
    _, completed = probe(tmp_path / "b", shared, params(target=without, solver={"C": 1}))
    assert "val/top1" not in completed.metrics and "test/top1" in completed.metrics


# --- parameters ---------------------------------------------------------------------------------

KNOBS: dict[str, dict[str, Any]] = {
    "layer": {"features": {"layer": "fc6"}},
    "grid": {"features": {"pooling": {"grid": 2}}},
    "by": {"features": {"pooling": {"by": "max"}}},
    "full": {"features": {"layer": "conv5", "pooling": {"grid": "full"}}},
    "l2": {"normalise": {"l2": False}},
    "pca": {"normalise": {"pca": 8}},
    "whiten": {"normalise": {"pca": 8, "whiten": True}},
    "power": {"normalise": {"power": 2}},
    "train_views": {"train_views": 16},
    "test_views": {"test_views": 16},
    "both views": {"train_views": 16, "test_views": 16},
    "concat": {"concat": [{"model": BASE["model"], "features": {"layer": "fc6"}}]},
    "scheme": {"solver": {"scheme": "ovo"}},
    "loss": {"solver": {"loss": "squared_hinge"}},
    "C": {"solver": {"C": 0.5}},
    "ridge": {"solver": {"kind": "ridge"}},
    "penalty": {"solver": {"kind": "ridge", "penalty": 1000}},
    "logistic": {"solver": {"kind": "logistic"}},
    "knn": {"solver": {"kind": "knn"}},
    "k": {"solver": {"kind": "knn", "k": 2}},
    "max_iterations": {"solver": {"max_iterations": 5}},
    "per_class": {"target": {"per_class": 4}},
    "interpolation": {"model": {**BASE["model"], "interpolation": "bicubic"}},
}


@pytest.mark.usefixtures("only_wanted")
@pytest.mark.parametrize("knob", KNOBS)
def test_every_parameter_does_something(knob: str, tmp_path: Path, shared: Path) -> None:
    """Each gives another key and another result than the base."""
    base, other = params(), params(**KNOBS[knob])
    assert Probe().identity(base) != Probe().identity(other)
    results = [
        probe(tmp_path / name, shared, wanted)[1]
        for name, wanted in (("base", base), ("other", other))
    ]
    assert results[0].state_sha256 != results[1].state_sha256
    assert results[1].metrics["test/top1"] > 0.3


def test_the_tolerance_and_the_selection_do_something(tmp_path: Path, shared: Path) -> None:
    """A loose tolerance stops elsewhere; another metric may choose another candidate."""
    loose = params(solver={"kind": "logistic", "C": 10, "tolerance": 0.5})
    tight = params(solver={"kind": "logistic", "C": 10})
    digests = {
        probe(tmp_path / name, shared, wanted)[1].state_sha256
        for name, wanted in (("loose", loose), ("tight", tight))
    }
    assert len(digests) == 2
    kinds = {
        select: probe(
            tmp_path / select[4:], shared, params(solver={"kind": "knn", "k": [1, 30],
                                                          "select": select}),
        )[1].metrics["solver/k"]
        for select in ("val/top1", "val/nll")
    }  # fmt: skip
    assert kinds["val/top1"] == 1 or kinds["val/nll"] != kinds["val/top1"]
    with pytest.raises(DataError, match=r"no val/micro_f1"):
        probe(tmp_path / "wrong", shared, params(solver={"select": "val/micro_f1"}))


@pytest.mark.parametrize(
    "change",
    [
        {"compute_also": [{"layer": "conv1"}]},
        {"solver": {"C": [10, 0.1, 10]}},
        {"solver": {"penalty": 7, "k": 3}},
        {"features": {"layer": 4}},
        {"features": {"pooling": {"grid": 1, "by": "mean"}}},
    ],
    ids=str,
)
def test_what_cannot_matter_is_in_no_key(change: dict[str, Any]) -> None:
    """What is computed along, parameters of other solvers, other spellings."""
    assert Probe().identity(params(**change)) == Probe().identity(params())


def test_one_value_needs_no_metric_to_choose_by() -> None:
    """The selection matters where there is something to select."""
    one, other = (params(solver={"C": 1, "select": f"val/{name}"}) for name in ("top1", "nll"))
    assert Probe().identity(one) == Probe().identity(other)
    one, other = (params(solver={"select": f"val/{name}"}) for name in ("top1", "nll"))
    assert Probe().identity(one) != Probe().identity(other)
    assert params().solver.select == "val/top1"


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"normalise": {"whiten": True}}, "whiten needs normalise.pca"),
        ({"solver": {"C": 0}}, "greater than 0"),
        ({"solver": {"C": []}}, "at least 1 item"),
        ({"train_views": 2}, "1 or 16"),
        ({"solver": {"kind": "ridge", "penalty": 1e-300}}, "greater than or equal to 0.000"),
    ],
)
def test_what_cannot_work_is_refused(change: dict[str, Any], says: str) -> None:
    """Before anything is run."""
    with pytest.raises(ValidationError, match=says):
        params(**change)


def test_layers_that_are_not_there_are_refused() -> None:
    """With the names of those that are; of every network, and of what is computed along."""
    for change in (
        {"features": {"layer": "fc9"}},
        {"concat": [{"model": BASE["model"], "features": {"layer": "9"}}]},
        {"compute_also": [{"layer": "last-8"}]},
    ):
        with pytest.raises(InputError, match="mini8 has no layer"):
            params(**change)


@pytest.mark.usefixtures("only_wanted")
def test_views_are_samples_in_training_and_averaged_in_the_test(
    tmp_path: Path, shared: Path
) -> None:
    """Sixteen times as many samples are fitted; a test image still has one prediction."""
    seen: list[int] = []
    real = run_module.candidates

    def counting(train: Any, *others: Any) -> Any:
        seen.append(len(train))
        return real(train, *others)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run_module, "candidates", counting)
        for number, views in enumerate(({}, {"train_views": 16}, {"test_views": 16})):
            _, completed = probe(tmp_path / str(number), shared, params(**views))
            assert len(said(tmp_path / str(number)).splits["test"]) == 120
            assert completed.metrics["test/top1"] > 0.2, "mirrored digits are no digits"
    assert seen == [100, 1600, 100]


# --- work done once -----------------------------------------------------------------------------


def test_work_is_done_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Other layers, solvers and replicates share one pass; an image is decoded once."""
    decoded: list[int] = []
    real = images_module.square

    def counting(*arguments: Any) -> Any:
        decoded.append(1)
        return real(*arguments)

    monkeypatch.setattr(images_module, "square", counting)
    store = tmp_path / "store"
    context, first = probe(tmp_path / "first", store, params())
    assert (forwards(context), len(decoded)) == (1797, 1797)
    others = [
        params(features={"layer": "fc6"}),
        params(solver={"kind": "ridge"}),
        params(target={"per_class": 3}),
        params(features={"pooling": {"grid": 2, "by": "max"}}, normalise={"pca": 4}),
    ]
    for number, wanted in enumerate(others):
        context, _ = probe(tmp_path / f"other{number}", store, wanted)
        assert forwards(context) == 0
    seeds = {**streams(1, 1), "init": streams(1, 0)["init"]}
    context, replicate = probe(tmp_path / "replicate", store, params(), seeds)
    assert forwards(context) == 0 and replicate != first
    assert len(decoded) == 1797


@pytest.mark.usefixtures("only_wanted")
def test_from_the_store_or_from_the_network(tmp_path: Path) -> None:
    """Cached and recomputed features give the same result, bit for bit."""
    store = tmp_path / "store"
    wanted = params(normalise={"pca": 6, "whiten": True}, test_views=16)
    results = [
        probe(tmp_path / name, where, wanted)[1]
        for name, where in (("a", store), ("b", store), ("c", tmp_path / "fresh"))
    ]
    assert results[0] == results[1] == results[2]


def test_what_is_computed_along_serves_others(tmp_path: Path) -> None:
    """A grid that names the poolings of all its cells has one pass."""
    store, thirds = tmp_path / "store", {"layer": "conv3", "pooling": {"grid": 3}}
    probe(tmp_path / "a", store, params(compute_also=[thirds]))
    context, _ = probe(tmp_path / "b", store, params(features=thirds))
    assert forwards(context) == 0


# --- left and killed ------------------------------------------------------------------------------


def test_left_or_killed_anywhere(tmp_path: Path, shared: Path) -> None:
    """With everything in the store, it ends the same wherever it is left, and twice in a row."""
    case = Case(Probe(), params(normalise={"pca": 8}), shared)
    run_whole(case, tmp_path / "first")
    whole = run_whole(case, tmp_path / "whole")
    check_ways(case, whole, tmp_path / "each", at_random(whole, seed=7, num_ways=8))
    places = [1, len(whole.places)]
    check_ways(case, whole, tmp_path / "twice", twice_in_a_row(places))
    check_ways(case, whole, tmp_path / "resume", killed_during_resume(places))


def test_every_entry_of_a_checkpoint_matters(tmp_path: Path, shared: Path) -> None:
    """The metrics of the candidates that are done are needed, as they are, to choose as before."""
    case = Case(Probe(), params(solver={"C": [0.001, 0.1, 10]}), shared)
    whole = run_whole(case, tmp_path / "whole")
    last = len(whole.places)
    assert whole.places[-3:] == (1, 2, 3)
    situations = [Situation(case, whole, place) for place in (last - 2, last - 1, last)]
    assert check_entries(situations, tmp_path / "entries") == 3


def test_left_or_killed_in_the_pass(tmp_path: Path) -> None:
    """Begun without any features, it ends the same, and computes no shard twice when stopped."""
    case = Case(Probe(), params(), tmp_path / "store")
    whole = run_whole(case, tmp_path / "whole")
    draw = random.Random(3)
    ways = [
        [Stop(draw.randint(4, len(whole.places))), Kill(draw.randint(1, 60)), Stop(2)]
        for _ in range(3)
    ]
    for number, way in enumerate(ways):
        fresh = replace(case, store=tmp_path / f"store{number}")
        found = run_in_parts(fresh, tmp_path / str(number), way)
        assert not whole.outcome.difference(found), way


# --- other networks -------------------------------------------------------------------------------


def kept_weights(folder: Path, seed: int) -> Path:
    """What a run that trained mini8 for three classes would keep."""
    folder.mkdir()
    preprocessing = params().model.preprocessing
    told = {
        "model": "mini8",
        "layers": "FT(1-8)",
        "class_names": ["cat", "dog", "newt"],
        "multi_label": False,
        "preprocessing": {
            "mean": preprocessing.mean, "std": preprocessing.std,
            "interpolation": preprocessing.interpolation, "size": 28, "decode_size": 28,
        },
    }  # fmt: skip
    state = network("mini8", init_seed=seed).state()
    save_file(state, folder / "weights.safetensors", {"ftd": json.dumps(told)})
    return folder


def test_the_network_that_another_run_trained(tmp_path: Path, shared: Path) -> None:
    """Its kept weights are the features' network, with its own classifier; by content."""
    results = []
    for number, seed in enumerate((1, 1, 2)):
        run = kept_weights(tmp_path / f"kept{number}", seed)
        root = tmp_path / str(number)
        root.mkdir()
        context = FolderContext(root, shared=shared, runs={"r4": run})
        wanted = params(
            model={"name": "mini8", "weights": {"run": "r4"}}, features={"layer": "last"}
        )
        assert Probe().inputs(wanted)["weights"].where == "r4"
        completed = Probe().run(wanted, context)
        assert completed.metrics["solver/num_dims"] == 3
        results.append((forwards(context), completed.state_sha256))
    assert results[0][0] == results[2][0] == 1797 and results[1][0] == 0
    assert results[0][1] == results[1][1] != results[2][1]


def test_networks_side_by_side(tmp_path: Path, shared: Path) -> None:
    """Several networks' features are concatenated, each of length 1; their images may differ."""
    other = {"name": "mini8", "weights": "none", "interpolation": "bicubic", "std": [0.2, 0.2, 0.2]}
    wanted = params(concat=[{"model": other, "features": {"layer": "fc7"}}])
    _, completed = probe(tmp_path / "a", shared, wanted)
    assert completed.metrics["solver/num_dims"] == 48 + 256
    assert completed.metrics["test/top1"] > 0.6


def test_features_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    """Weights of a network that diverged are the user's error, said in one line."""
    state = network("mini8").state()
    for name in ("features.0.weight", "features.3.weight"):
        state[name] = state[name] * 1e30
    save_file(state, tmp_path / "far.safetensors")
    weights = {"file": str(tmp_path / "far.safetensors")}
    wanted = params(model={"name": "mini8", "weights": weights}, features={"layer": "fc7"})
    with pytest.raises(WeightsError, match=r"layer 7 gives features that are not finite"):
        probe(tmp_path / "a", tmp_path / "store", wanted)


# --- results --------------------------------------------------------------------------------------


def test_probes_can_vote(tmp_path: Path, shared: Path) -> None:
    """What they keep is what ensembles read."""
    members = {}
    for name, change in (("r1", {}), ("r2", {"solver": {"kind": "logistic"}})):
        probe(tmp_path / name, shared, params(**change))
        members[name] = said(tmp_path / name)
    assert len(averaged(members).splits["test"]) == 120


def test_several_labels_per_image(tmp_path: Path) -> None:
    """Each class is learned by itself, and measured so."""
    draw = np.random.default_rng(0)
    rows = ["path,label"]
    for number in range(40):
        kinds = {"red": number % 2, "large": number // 2 % 2}
        pixels = draw.integers(0, 60, (30, 30, 3))
        side = 24 if kinds["large"] else 8
        pixels[:side, :side, 0 if kinds["red"] else 2] += 180
        Image.fromarray(pixels.astype(np.uint8)).save(tmp_path / f"{number}.png")
        rows.append(f"{number}.png,{';'.join(name for name, is_so in kinds.items() if is_so)}")
    (tmp_path / "all.csv").write_text("\n".join(rows) + "\n")
    target = {
        "dataset": "csv", "file": str(tmp_path / "all.csv"), "multi_label": True,
        "decode_size": 28, "test_count": 12, "val_count": 8,
    }  # fmt: skip
    for kind in ("svm", "ridge", "logistic", "knn"):
        raw = {**BASE, "target": target, "solver": {"kind": kind}}
        wanted = Probe().resolve(ProbeParams.model_validate(raw), Path())
        assert wanted.solver.select == "val/map"
        _, completed = probe(tmp_path / kind, tmp_path / "store", wanted)
        assert completed.metrics["test/map"] > 0.8, kind
    with pytest.raises(ValidationError, match="ovo needs one label per image"):
        ProbeParams.model_validate({**BASE, "target": target, "solver": {"scheme": "ovo"}})


SPEC = """
experiment: layers
job: probe
model: {name: mini8, weights: none}
target: {dataset: digits, decode_size: 28, test_per_class: 12, val_per_class: 6, per_class: 10}
factors:
  features.layer: [conv3, conv4, fc6]
  solver.kind: [svm, ridge]
solver: {C: [0.1, 10]}
device: cpu
replicates: 2
"""


def test_a_grid_is_a_spec() -> None:
    """Layers and solvers are factors like any others; runs are planned without torch."""
    plan = make_plan(parse(SPEC, "layers.yaml"), Path("/"), device_kind="cpu")
    assert (len(plan.cells), len(plan.runs)) == (6, 12)
    assert plan.primary_metric == "test/top1"
    with pytest.raises(SpecError, match="no layer 'fc9'"):
        make_plan(parse(SPEC.replace("fc6", "fc9"), "layers.yaml"), Path("/"), device_kind="cpu")


def test_a_grid_through_the_daemon(tmp_path: Path) -> None:
    """All its runs end well, and its cells share what they can."""
    home = LiveHome(tmp_path / "home", slots=2)
    home.enqueue(SPEC)
    assert home.finish() == 0, home.log()
    runs = home.runs()
    assert {run["state"] for run in runs} == {"done"}, [run["error"] for run in runs]
    assert min(run["metrics"]["test/top1"] for run in runs) > 0.4
    passes = sum(
        json.loads(line)["value"]
        for path in home.root.glob("runs/*/attempts/*/events.jsonl")
        for line in path.read_text().splitlines()
        if "num_forwards" in line
    )
    there = [Shard(index.parent).num_rows for index in (home.root / "store").glob("*/*/index.json")]
    assert passes == sum(there) <= 2 * 1797, "one pass per replicate's random network"
