"""The job grow: what determines a run, its metrics, exact resumes, later runs."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import safetensors
import torch
from pydantic import ValidationError
from safetensors.torch import load_file, save_file

from ftd.errors import InputError
from ftd.job import Completed
from jobs.features.backbone import backbone
from jobs.finetune import Finetune
from jobs.grow import Grow, GrowParams
from jobs.growth import growing, surgery
from jobs.growth.place import classifier_path
from jobs.measure.predict import Classifier
from jobs.params.model import ModelParams
from jobs.probe import Probe, _backbones
from jobs.solvers.run import _samples, prepared, views_of
from jobs.sources import WeightsRun
from jobs.train.optimizer import optimizer_state
from jobs.train.state import TrainingState
from tests.context import FolderContext, Killed
from tests.entries import Situation, check_entries
from tests.growing import grown, params, random_state
from tests.networks import digest
from tests.resume import (
    Attempts,
    Case,
    Stop,
    at_random,
    check_ways,
    every_place,
    killed_during_resume,
    run_whole,
)

pytestmark = pytest.mark.usefixtures("torch_left_as_found")

Run = tuple[FolderContext, Completed]


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Pretrained weights, of other classes."""
    path = tmp_path_factory.mktemp("weights") / "source.safetensors"
    save_file(random_state("mini8"), path)
    return {"name": "mini8", "weights": {"file": str(path)}}


def run(root: Path, store: Path, wanted: GrowParams, job: Grow | None = None) -> Run:
    """Run to the end in `root`."""
    root.mkdir(parents=True, exist_ok=True)
    context = FolderContext(root, shared=store)
    return context, (job or Grow()).run(wanted, context)


def kept(context: FolderContext) -> dict[str, torch.Tensor]:
    """The weights that a run kept."""
    return load_file(context.root / "artifacts" / "weights.safetensors")


# --- results ------------------------------------------------------------------------------------


def test_without_growth_it_is_finetune(store: Path, tmp_path: Path) -> None:
    """The control arm is the same run, to the last bit of its weights and metrics."""
    wanted = params(growth={"type": "none"})
    context, completed = run(tmp_path / "none", store, wanted)
    raw = wanted.model_dump(mode="json", exclude={"growth", "forgetting"})
    plain = FolderContext(tmp_path / "plain", shared=store)
    plain.root.mkdir()
    reference = Finetune().run(Finetune.Params.model_validate(raw), plain)
    assert completed.state_sha256 == reference.state_sha256
    assert {n: v for n, v in completed.metrics.items() if n in reference.metrics} == (
        reference.metrics
    )
    assert completed.metrics["model/num_grown"] == 0
    assert {name for name, _ in context.metrics if name.startswith("pace/")} == {
        "pace/old", "pace/head"
    }  # fmt: skip


def test_what_a_grown_run_gives(store: Path, tmp_path: Path) -> None:
    """Numbers of parameters, the pace of some steps, all parts among the kept weights."""
    context, completed = run(tmp_path, store, params())
    state = kept(context)
    count = sum(t.numel() for t in state.values() if t.is_floating_point())
    assert completed.metrics["model/num_parameters"] == count
    assert completed.metrics["model/num_grown"] == 12 * 257 + 12 * 10 + 268
    paces = {key: value for key, value in context.metrics.items() if key[0].startswith("pace/")}
    assert {name for name, _ in paces} == {"pace/old", "pace/new", "pace/head"}
    assert {step for _, step in paces} == {1, 2, 4} and all(v > 0 for v in paces.values())
    assert {"grown.1.beside.weight", "grown.1.scale.gamma", "classifier.6.more.1"} <= set(state)


def test_frozen_layers_are_untouched(store: Path, tmp_path: Path, weights: dict[str, Any]) -> None:
    """F stays byte-identical while parts grow beside it; new parts learn."""
    layers = "F(1-7)R(8)"
    before = digest(random_state("mini8"))
    wanted = params(model=weights, layers=layers, growth={"type": "wwa", "units": 8})
    context, _ = run(tmp_path, store, wanted)
    after = digest(kept(context))
    old = [name for name in before if not name.startswith("classifier.6")]
    assert {name: after[name] for name in old} == {name: before[name] for name in old}
    start = digest(grown(type="wwa", units=8).state())
    assert all(after[name] != start[name] for name in after if name.startswith("grown."))


def test_new_parts_learn_at_their_own_rate(store: Path, tmp_path: Path) -> None:
    """lr_factor counts for new parts alone: with a tiny one they hardly move, the rest does."""
    paces = {}
    for factor in (1e-6, 10.0):
        wanted = params(growth={"type": "wa", "units": 12, "lr_factor": factor})
        context, _ = run(tmp_path / str(factor), store, wanted)
        paces[factor] = {n: v for (n, step), v in context.metrics.items() if step == 4}
    assert paces[1e-6]["pace/new"] < 1e-5 * paces[10.0]["pace/new"]
    assert paces[1e-6]["pace/old"] > 1e-5


def test_blocks_are_tested_apart(store: Path, tmp_path: Path, weights: dict[str, Any]) -> None:
    """Classifiers on old units, new ones and both, fitted to training images alone."""
    target = {"per_class": 12, "val_per_class": 4, "test_fraction": 0.1}
    growth = {"type": "wa", "units": 2, "blocks": "on", "scale": "off"}
    context, completed = run(
        tmp_path, store, params(model=weights, layers="F(1-7)R(8)", target=target, growth=growth)
    )
    found = {block: completed.metrics[f"test_{block}/top1"] for block in ("old", "new", "both")}
    assert found["new"] < found["old"] and found["both"] > 0.3, "two units know little"
    notes = [data for kind, data in context.notes if kind == "block"]
    assert [note["block"] for note in notes] == ["old", "new", "both"]
    assert {note["fit_set"] for note in notes} == {"train"}
    assert {"test_old/auroc", "test_old/map", "test_old/balanced_accuracy"} <= set(
        completed.metrics
    )


def test_blocks_of_a_diverged_run_are_at_chance(store: Path, tmp_path: Path) -> None:
    """As all metrics of such a run are; without validation images there is nothing to choose by."""
    growth = {"type": "wa", "units": 2, "blocks": "on"}
    wanted = params(growth=growth, train={"lr": 1e30, "epochs": 20})
    assert run(tmp_path / "a", store, wanted)[1].metrics["test_new/top1"] == 0.1
    target = {"val_per_class": 0}
    wanted = params(growth=growth, target=target, train={"keep": "last", "select": None})
    context, _ = run(tmp_path / "b", store, wanted)
    chosen = [data["penalty"] for kind, data in context.notes if kind == "block"]
    assert chosen == [10.0] * 3


# each with what it changes, in a run that otherwise is the base run
KNOBS: dict[str, Mapping[str, Any]] = {
    "type": {"type": "zero_outgoing"},
    "units": {"units": 13},
    "parameters": {"units": None, "parameters": 9000},
    "init": {"init": "copy_rand"},
    "scale": {"scale": "off"},
    "gamma": {"gamma": 20},
    "lr_factor": {"lr_factor": 1},
    "at_step": {"at_step": 3},
    "units_below": {"type": "wwa", "units_below": 3},
    "units_on_top": {"type": "dwa", "units_on_top": 5},
    "noise": {"init": "copy_rand", "noise": 0.3},
    "blocks": {"blocks": "on"},
}
AGAINST: dict[str, Mapping[str, Any]] = {
    "units_below": {"type": "wwa"},
    "units_on_top": {"type": "dwa"},
    "noise": {"init": "copy_rand"},
}


def growth_of(change: Mapping[str, Any]) -> dict[str, Any]:
    """The base growth with a change."""
    return {"type": "wa", "units": 12, **change}


@pytest.mark.parametrize("knob", KNOBS)
def test_every_knob_makes_another_run(knob: str, store: Path, tmp_path: Path) -> None:
    """Each parameter is in the key, and changes the kept weights, or what is measured of them."""
    one, other = (params(growth=growth_of(c)) for c in (KNOBS[knob], AGAINST.get(knob, {})))
    assert Grow().identity(one) != Grow().identity(other)
    found = [
        run(tmp_path / name, store, wanted)[1] for name, wanted in (("one", one), ("other", other))
    ]
    assert found[0] != found[1]
    assert (found[0].state_sha256 != found[1].state_sha256) == (knob != "blocks")


def test_no_knob_is_missing_above() -> None:
    """Every parameter of growth is tried."""
    from jobs.params.growth import GrowthParams

    assert set(KNOBS) == set(GrowthParams.model_fields)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"type": "none", "gamma": 3, "lr_factor": 5, "at_step": 3}, {"type": "none"}),
        ({"units": 12, "noise": 0.5}, {"units": 12}),
        ({"units": 12, "scale": "on"}, {"units": 12}),
        ({"units": 12, "scale": "off", "gamma": 3}, {"units": 12, "scale": "off"}),
        ({"type": "lora", "units": 3, "gamma": 3}, {"type": "lora", "units": 3, "noise": 0.5}),
        ({"type": "wwa", "units": 12, "units_below": 6}, {"type": "wwa", "units": 12}),
        ({"type": "dwa", "units": 12, "units_on_top": 12}, {"type": "dwa", "units": 12}),
    ],
)
def test_what_cannot_matter_is_no_part_of_the_identity(
    one: dict[str, Any], other: dict[str, Any]
) -> None:
    """Parameters that this type does not use make no other run."""
    found = [Grow().identity(params(growth={"type": "wa", **some})) for some in (one, other)]
    assert found[0] == found[1] and json.dumps(found[0]["growth"])


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"layers": "FT(1-7)F(8)"}, "freeze"),
        ({"layers": "FT(1-8)", "growth": {"type": "da", "units": 3}}, "R\\(last\\)"),
        (
            {"growth": {"type": "wa", "units": 3, "at_step": 2},
             "train": {"l2_sp": {"alpha": 0.1, "beta": 0.1}}},
            "l2_sp",
        ),
        (
            {"growth": {"type": "wa", "units": 3, "at_step": 5},
             "train": {"epochs": None, "steps": 5}},
            "grow after step 5, and training has 5",
        ),
        ({"growth": {}}, "type"),
        ({"growth": {"type": "dwa", "units": 65536}}, "more than 268435456 weights"),
        ({"growth": {"type": "wa", "units": 3, "gamma": 1e39}}, "less than or equal to 1000000"),
    ],
)  # fmt: skip
def test_what_cannot_work_is_refused_when_planned(
    change: dict[str, Any], says: str, weights: dict[str, Any]
) -> None:
    """Contradictions between growth, layers and training are found before anything is enqueued."""
    with pytest.raises((InputError, ValidationError), match=says):
        params(**{"model": weights, **change})


def test_growing_after_the_end_is_refused_when_run(store: Path, tmp_path: Path) -> None:
    """How many steps epochs have is known when the images are."""
    with pytest.raises(InputError, match="training has 6"):
        run(tmp_path, store, params(growth={"type": "wa", "units": 3, "at_step": 6}))


# --- in the middle of training ------------------------------------------------------------------

MIDDLE = {"type": "wa", "units": 12, "at_step": 2}


def test_old_tensors_keep_what_training_knows_of_them(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At the growth, weights, momentum and average of old parts stay; new momentum is 0."""
    seen = []
    original = surgery.grow_state

    def watched(state: TrainingState, *args: Any, **kwargs: Any) -> None:
        def known() -> dict[str, torch.Tensor]:
            found = optimizer_state(state.network.trainable(), state.optimizer)
            found |= {f"weights/{n}": t for n, t in state.weights().items()}
            average = {} if state.average is None else state.average.tensors
            found |= {f"average/{n}": t for n, t in average.items()}
            return {name: tensor.clone() for name, tensor in found.items()}

        before = known()
        original(state, *args, **kwargs)
        seen.append((before, known()))

    monkeypatch.setattr(growing, "grow_state", watched)
    run(tmp_path, store, params(growth=MIDDLE, train={"ema_decay": 0.5}))
    ((before, after),) = seen
    assert before and all(torch.equal(after[name], before[name]) for name in before)
    new = {name: tensor for name, tensor in after.items() if name not in before}
    momentum = {name: t for name, t in new.items() if name.startswith("momentum_buffer/")}
    assert len(momentum) == 4 and not any(bool(tensor.any()) for tensor in momentum.values())
    assert {name.partition("/")[2] for name in new if name.startswith("average/")} == {
        "grown.1.beside.weight", "grown.1.beside.bias", "grown.1.scale.gamma",
        "classifier.6.more.1",
    }  # fmt: skip


def test_before_it_grows_it_is_the_run_without_growth(store: Path, tmp_path: Path) -> None:
    """Growing later changes nothing before: the first validation's metrics are the same."""
    plain, _ = run(tmp_path / "plain", store, params(growth={"type": "none"}))
    late, _ = run(tmp_path / "late", store, params(growth={**MIDDLE, "at_step": 4}))
    rows = [{n: v for (n, s), v in c.metrics.items() if s == 3} for c in (plain, late)]
    assert rows[0] == rows[1] and "val/nll" in rows[0]
    last = [{n: v for (n, s), v in c.metrics.items() if s == 6} for c in (plain, late)]
    assert last[0] != last[1]
    steps = {step for name, step in late.metrics if name == "pace/new"}
    assert steps == {5, 6}, "the first and second step after the growth"


@pytest.mark.parametrize("kind", ["zero_outgoing", "net2deeper", "lora", "gradmax"])
def test_what_changes_nothing_changes_nothing_in_the_middle(
    kind: str, store: Path, tmp_path: Path
) -> None:
    """Grown at a validated step, a network validates as if it had not."""
    sizes = {} if kind == "net2deeper" else {"units": 8}
    plain, _ = run(tmp_path / "plain", store, params(growth={"type": "none"}))
    late, _ = run(tmp_path / "late", store, params(growth={"type": kind, "at_step": 3, **sizes}))
    assert late.metrics["val/nll", 3] == pytest.approx(plain.metrics["val/nll", 3], rel=1e-5)
    assert late.metrics["val/nll", 6] != plain.metrics["val/nll", 6]


def test_training_does_not_end_before_the_growth(store: Path, tmp_path: Path) -> None:
    """Patience begins with the grown network, however little the one before it improved."""
    early = {"patience_steps": 1, "min_delta": 9.0}
    train = {"epochs": 8, "early_stop": early, "validate_every_epochs": 1}
    wanted = params(growth={**MIDDLE, "at_step": 14}, train=train)
    context, completed = run(tmp_path, store, wanted)
    assert completed.metrics["model/num_grown"] > 0
    (told,) = [about for kind, about in context.notes if kind == "early_stop"]
    assert 14 < told["step"] == completed.num_steps < told["num_steps"]


def test_weights_of_before_the_growth_are_not_selected(store: Path, tmp_path: Path) -> None:
    """What is kept is a grown network, also where an earlier validation was better."""
    train = {"lr": 0.3, "schedule": "constant", "epochs": 3, "select": "val/nll"}
    wanted = params(growth={**MIDDLE, "at_step": 8}, train=train)
    context, completed = run(tmp_path, store, wanted)
    rows = {step: v for (name, step), v in context.metrics.items() if name == "val/nll"}
    assert "diverged" not in completed.flags
    assert min(rows, key=lambda step: rows[step]) < 8, "the example must end worse"
    assert "grown.1.beside.weight" in kept(context)


# --- left and killed anywhere -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("growth", "train"),
    [
        ({"type": "wwa", "units": 8, "blocks": "on"}, {}),
        (MIDDLE, {"ema_decay": 0.5, "early_stop": {"patience_steps": 50}}),
        ({"type": "gradmax", "units": 12, "at_step": 3}, {"optimizer": "adamw", "lr": 1e-3}),
    ],
    ids=["before", "in the middle", "gradmax"],
)
def test_left_anywhere_it_ends_the_same(
    growth: dict[str, Any], train: dict[str, Any], store: Path, tmp_path: Path
) -> None:
    """Left or killed before, at and after the growth, a run ends with the same weights."""
    case = Case(Grow(), params(growth=growth, train=train), store)
    whole = run_whole(case, tmp_path / "whole")
    ways = [way for number, way in enumerate(every_place(whole)) if number % 2 or number < 8]
    check_ways(case, whole, tmp_path / "ways", ways)
    check_ways(case, whole, tmp_path / "again", killed_during_resume((4, 5, 6)))
    check_ways(case, whole, tmp_path / "random", at_random(whole, seed=6, num_ways=3))


@pytest.mark.parametrize("after", [1, 2])
def test_killed_inside_surgery(
    after: int, store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed while the network grows, in the run or in its resume, it grows the same again."""
    case = Case(Grow(), params(growth=MIDDLE), store)
    whole = run_whole(case, tmp_path / "whole")
    attempts = Attempts(case, tmp_path / "run")
    if after == 2:  # the growth that a resume repeats
        assert attempts.run(Stop(whole.places.index(2) + 1)) is None
    original = surgery.filling

    def dies(*args: Any) -> Any:
        monkeypatch.setattr(surgery, "filling", original)
        raise Killed

    monkeypatch.setattr(surgery, "filling", dies)
    assert attempts.run() is None
    completed = attempts.run()
    assert completed is not None
    assert not whole.outcome.difference(attempts.outcome(completed))


def test_every_entry_of_a_checkpoint_matters(
    store: Path, tmp_path: Path, weights: dict[str, Any]
) -> None:
    """What growth adds to a checkpoint is needed there."""
    train = {"epochs": 3, "batch_size": 10, "lr": 0.01}
    target = {"per_class": 1}

    def case_of(**changed: Any) -> Case:
        wanted = params(
            model=weights, layers="F(1-7)R(8)", target=target, train={**train, **changed},
            growth={"type": "wa", "units": 4, "at_step": 1},
        )  # fmt: skip
        return Case(Grow(), wanted, store)

    last_best, first_best = case_of(), case_of(lr=3.0, schedule="constant")
    wholes = [run_whole(case, tmp_path / name) for case, name in (
        (last_best, "last"), (first_best, "first")
    )]  # fmt: skip
    assert "test_last/nll" in wholes[1].outcome.completed.metrics
    step_two = [whole.places.index(2) + 1 for whole in wholes]
    end = [len(whole.places) for whole in wholes]
    situations = [
        Situation(last_best, wholes[0], step_two[0]),
        Situation(first_best, wholes[1], end[1]),
        Situation(last_best, wholes[0], end[0]),
    ]
    assert check_entries(situations, tmp_path / "entries") >= 6 * 3 + 1


# --- later runs ---------------------------------------------------------------------------------


def test_a_grown_network_predicts_and_goes_on(store: Path, tmp_path: Path) -> None:
    """Its kept weights are a network of their own: for predictions, for finetune, to grow again."""
    context, completed = run(tmp_path / "a", store, params(layers="FT(1-7)R(8)"))
    path = context.root / "artifacts" / "weights.safetensors"
    classifier = Classifier.load(path)
    assert digest(classifier.network.state()) == digest(kept(context))
    with safetensors.safe_open(path, "pt") as stream:
        told = json.loads(stream.metadata()["ftd"])
    assert [growth["beside"] for growth in told["grown"]] == [12]
    runs = {"r1": context.root / "artifacts"}
    looks = FolderContext(tmp_path / "looks", shared=store, runs=runs)
    model = ModelParams.model_validate({"name": "mini8", "weights": {"run": "r1"}})
    assert digest(backbone(model, looks).network.state()) == digest(kept(context))
    route = {"name": "mini8", "weights": {"run": "r1"}}
    raw = params(model=route, layers="F(1-7)R(8)").model_dump(mode="json")

    def goes_on(job: Finetune, name: str) -> dict[str, torch.Tensor]:
        fields = job.Params.model_fields
        found = job.Params.model_validate({k: v for k, v in raw.items() if k in fields})
        root = tmp_path / name
        root.mkdir()
        job.run(found, FolderContext(root, shared=store, runs=runs))
        return load_file(root / "artifacts" / "weights.safetensors")

    tuned, again = goes_on(Finetune(), "finetune"), goes_on(Grow(), "grow")
    assert set(tuned) == set(kept(context))
    frozen = [name for name in tuned if not name.startswith("classifier.6")]
    assert all(torch.equal(tuned[name], kept(context)[name]) for name in frozen)
    assert all(torch.equal(again[name], kept(context)[name]) for name in frozen)
    assert {"grown.2.beside.weight", "classifier.6.more.1", "classifier.6.more.2"} <= set(again)
    assert completed.metrics["model/num_grown"] > 0


@pytest.mark.parametrize(
    "growth",
    [
        {"type": "wa", "units": 12},
        {"type": "wa", "units": 12, "scale": "off"},
        {"type": "dwa", "units": 12},
        {"type": "none"},
    ],
    ids=["wa", "wa unscaled", "dwa", "none"],
)
def test_what_the_classifier_of_a_grown_network_reads_is_a_layer(
    growth: dict[str, Any], store: Path, tmp_path: Path
) -> None:
    """`features.layer: read` is what the logits are made of, old and new units together."""
    context, _ = run(tmp_path / "grown", store, params(growth=growth))
    runs = {"r1": context.root / "artifacts"}
    job = Probe()

    def context_of(name: str) -> FolderContext:
        (tmp_path / name).mkdir()
        return FolderContext(tmp_path / name, shared=store, runs=runs)

    def seen(layer: str) -> torch.Tensor:
        looks = context_of(layer)
        raw = {
            "model": {"name": "mini8", "weights": {"run": "r1"}},
            "features": {"layer": layer},
            "target": params().target.model_dump(mode="json"),
            "normalise": {"l2": False},
        }
        wanted = job.resolve(job.Params.model_validate(raw), tmp_path)
        assert job.run(wanted, looks).metrics["test/top1"] >= 0
        source = job.inputs(wanted)["target"]
        data = prepared(wanted.target, source, "bilinear", looks, None, ())
        found = _samples(wanted, _backbones(wanted), data, source, looks, None)
        return torch.from_numpy(found.stacked(data.splits.train, views_of(1)))

    read, logits = seen("read"), seen("last")
    model = ModelParams(name="mini8", weights=WeightsRun(run="r1"))
    network = backbone(model, context_of("network")).network
    head = network.module.get_submodule(classifier_path(network))
    with torch.no_grad():
        torch.testing.assert_close(head.forward(read), logits)
    if growth["type"] == "none":
        assert torch.equal(read, seen("last-1"))


def test_rows_of_a_grown_classifier_follow_their_classes(store: Path, tmp_path: Path) -> None:
    """With the classes in another order, new columns are permuted like the old ones."""
    from jobs.models.kept import with_rows

    state = grown(type="wa", units=5).state()
    turned = with_rows(state, "mini8", (2, 0, 1))
    for name in ("classifier.6.weight", "classifier.6.bias", "classifier.6.more.1"):
        assert torch.equal(turned[name], state[name][[2, 0, 1]]), name
    assert torch.equal(turned["grown.1.beside.weight"], state["grown.1.beside.weight"])
