"""Runs that start from the weights another run kept: found, waited for, verified, in the key."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from ftd.errors import DataError, InputError, SpecError, WeightsError
from ftd.files import seal_json
from ftd.job import Input, Stopped
from ftd.ledger import scheduling
from ftd.ledger.db import Ledger
from ftd.ledger.models import Dependency, Experiment, Membership, Run
from ftd.ledger.producers import producers
from ftd.planning.plan import make_plan
from ftd.planning.producers import Producer, picked
from ftd.spec.experiment import parse
from ftd.states import RunState
from ftd.worker.kept import kept_file
from jobs.finetune import Finetune
from jobs.layers import treatments
from jobs.models.kept import starting_weights
from jobs.params.model import ModelParams
from jobs.records import Preprocessing, preprocessing
from jobs.sources import WEIGHTS as FILE
from tests import ledgers
from tests.context import FolderContext
from tests.finetuning import torch_as_found
from tests.homes import LiveHome

SOURCE = """
experiment: source
job: finetune
model: {name: resnet18, weights: none}
layers: "R(1-last)"
target: {dataset: digits, decode_size: 32, crop_size: 28, val_per_class: 5, per_class: 4}
train: {epochs: 1, batch_size: 16, lr: 0.01}
seed: 3
"""
ADAPTED = (
    SOURCE.replace("source", "adapted")
    .replace("weights: none", "weights: {run: r1}")
    .replace("R(1-last)", "F(1-last-1)FT(last)")
)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> LiveHome:
    """A source run, and one that was enqueued with its weights before there were any."""
    live = LiveHome(tmp_path_factory.mktemp("kept") / "home", slots=2)
    live.enqueue(SOURCE)
    live.enqueue(ADAPTED)
    assert live.finish() == 0, live.log()
    return live


def artifact(home: LiveHome, run: str) -> Path:
    """The weights that a run kept."""
    (kept,) = (item for item in home.json("show", run)["artifacts"] if item["name"] == FILE)
    return home.root / kept["path"]


def test_a_run_waits_for_the_weights_it_starts_from(home: LiveHome) -> None:
    """It starts when the source is done, from just those weights, and is known by its key."""
    assert home.states() == ["done", "done"]
    source, adapted = home.json("show", "r1"), home.json("show", "r2")
    (first,), (second,) = source["attempts"], adapted["attempts"]
    assert first["ended_at"] <= second["started_at"]
    key = source["provenance"]["key"]
    assert adapted["provenance"]["inputs"]["weights"] == {
        "kind": "run",
        "where": "r1",
        "run": "r1",
        "fingerprint": key,
        "file": FILE,
    }
    before, after = load_file(artifact(home, "r1")), load_file(artifact(home, "r2"))
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert moved == {"fc.weight", "fc.bias"}


def test_the_key_is_the_sources(tmp_path: Path) -> None:
    """Another source is another question, the same source under another number is the same."""

    def key(source: str, run: str = "r1") -> str:
        spec = parse(ADAPTED.replace("r1}", f"{run}}}"), "s.yaml")
        found = (Producer(run, source),)
        plan = make_plan(spec, tmp_path, device_kind="cpu", producers=lambda _: found)
        return plan.runs[0].key

    assert key("a") == key("a", "r7")
    assert key("a") != key("b")


def test_each_replicate_starts_from_its_own_source(tmp_path: Path) -> None:
    """An experiment's name means its runs, one for each unit of replicates, or its only one."""
    nested = "replicates: {subset: 2, train: 2}\n"
    found = tuple(Producer(f"r{number}", f"key{number}") for number in (4, 5, 6))

    def read(number: int) -> list[tuple[str, str]]:
        spec = parse(ADAPTED.replace("r1}", "source}") + nested, "s.yaml")
        plan = make_plan(spec, tmp_path, device_kind="cpu", producers=lambda _: found[:number])
        inputs = [run.inputs["weights"] for run in plan.runs]
        assert {source["where"] for source in inputs} == {"source"}
        assert len({run.key for run in plan.runs}) == 4
        return [(source["run"], source["fingerprint"]) for source in inputs]

    assert read(3) == [("r4", "key4")] * 2 + [("r5", "key5")] * 2
    assert read(1) == [("r4", "key4")] * 4
    with pytest.raises(SpecError, match="experiment 'source' has 2 replicates, this one 3"):
        nested = "replicates: 3\n"
        read(2)


def test_a_run_that_is_not_there_is_told_with_its_line(home: LiveHome) -> None:
    """In a home with runs as in an empty one."""
    text = ADAPTED.replace("r1", "r99")
    done = home.ftd("enqueue", "-", "--dry-run", stdin=text)
    assert "4: model.weights.run: there is no run 'r99'" in done.stderr
    with pytest.raises(SpecError, match=r"4: model\.weights\.run: there is no run 'r99'"):
        make_plan(parse(text, "s.yaml"), Path("/"), device_kind="cpu")


def test_an_interrupted_run_goes_on_from_the_same_weights(home: LiveHome, tmp_path: Path) -> None:
    """Stopped on its way and resumed, it ends as the run that was not."""
    raw = parse(ADAPTED.replace("F(1-last-1)FT(last)", "F(1-5)FT(6-)"), "s.yaml").params
    job = Finetune()
    wanted = job.resolve(job.Params.model_validate(raw), tmp_path)
    folders = {"r1": artifact(home, "r1").parent}
    ends = []
    with torch_as_found():
        for name, stop_at in (("whole", None), ("cut", 3)):
            (tmp_path / name).mkdir()
            context = FolderContext(tmp_path / name, runs=folders, stop_at=stop_at)
            if stop_at:
                with pytest.raises(Stopped):
                    job.run(wanted, context)
                context = FolderContext(tmp_path / name, runs=folders)
            ends.append(job.run(wanted, context))
            assert (context.resumed_from > 0) == bool(stop_at)
    assert ends[0] == ends[1]


# ledger


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    """A new ledger with one queued run, r1."""
    made = ledgers.new_ledger(tmp_path)
    ledgers.enqueue(made, ledgers.plan("source", [1], 1))
    yield made
    made.close()


def found(ledger: Ledger, text: str, **asked: Any) -> tuple[Producer, ...]:
    """The runs that a spec means by `text`."""
    return picked(Input("run", text, **asked), producers(ledger, text))


def dependent(ledger: Ledger) -> None:
    """Enqueue r2, which reads files of r1."""
    planned = ledgers.plan("adapted", [2], 1)
    source = {"kind": "run", "where": "r1", "fingerprint": producers(ledger, "r1")[0].key}
    run = replace(planned.runs[0], inputs={"weights": source})
    ledgers.enqueue(ledger, replace(planned, runs=(run,)))


def test_what_reads_a_run_is_not_eligible_before(ledger: Ledger) -> None:
    """Once the source is done it is; enqueueing it again changes nothing."""
    dependent(ledger)
    dependent(ledger)
    assert [(row["run"], row["needs_run"]) for row in ledger.rows(Dependency.select())] == [(2, 1)]
    assert scheduling.eligible_runs(ledger, "cpu", 0, 9) == [1]
    ledger.write(Run.update(state=RunState.DONE).where(Run.id == 1))
    assert scheduling.eligible_runs(ledger, "cpu", 0, 9) == [2]


@pytest.mark.parametrize("state", [RunState.FAILED, RunState.CANCELLED])
def test_sources_that_will_never_be_done_are_refused(ledger: Ledger, state: RunState) -> None:
    """What failed or was cancelled has nothing to read."""
    ledger.write(Run.update(state=state).where(Run.id == 1))
    with pytest.raises(InputError, match=f"run 'r1' is {state}"):
        found(ledger, "r1")


def test_an_experiment_of_one_cell_is_its_runs_by_replicate(ledger: Ledger) -> None:
    """Its name, or its number; one with several cells means no one network."""
    ledgers.enqueue(ledger, ledgers.plan("many", [7], 3))
    ledgers.enqueue(ledger, ledgers.plan("wide", [7, 8], 1))
    (experiment,) = ledger.values(Experiment.select(Experiment.id).where(Experiment.name == "many"))
    runs = ledger.values(
        Membership.select(Membership.run)
        .where(Membership.experiment == experiment)
        .order_by(Membership.replicate)
    )
    assert [one.run for one in found(ledger, "many")] == [f"r{run}" for run in runs]
    assert found(ledger, f"e{experiment}") == found(ledger, "many")
    with pytest.raises(InputError, match="experiment 'wide' has several cells"):
        found(ledger, "wide")


def test_a_diverged_source_is_refused(ledger: Ledger) -> None:
    """Its weights mean nothing."""
    ledger.write(Run.update(state=RunState.DONE, flags=["diverged"]).where(Run.id == 1))
    with pytest.raises(InputError, match="run 'r1' diverged"):
        found(ledger, "r1")


# the file


KEY = "k" * 64


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """Runs of which r1 kept a file in its second attempt."""
    for number, outcome in ((1, "stopped"), (2, "completed")):
        attempt = tmp_path / "r1" / "attempts" / str(number)
        (attempt / "artifacts").mkdir(parents=True)
        (attempt / "artifacts" / "w").write_bytes(b"weights")
        seal_json(attempt / "order.json", {"key": KEY})
        digest = "9f3dcb0dbf5a4fb5d2d7a5d2ab2e8d7a"
        kept = [{"name": "w", "bytes": 7, "sha256": digest}]
        seal_json(attempt / "result.json", {"outcome": outcome, "artifacts": kept})
    return tmp_path


def sealed(runs: Path, changes: Mapping[str, Any], file: str = "result.json") -> None:
    """Write another result, or order, for the attempt that ended well."""
    path = runs / "r1" / "attempts" / "2" / file
    value = json.loads(path.read_text()) | changes
    path.unlink()
    seal_json(path, value)


def test_a_kept_file_is_found_and_verified(runs: Path) -> None:
    """That of the attempt which ended well, if it is what was kept."""
    with pytest.raises(DataError, match="is not what r1 kept"):
        kept_file(runs, "r1", KEY, "w")
    digest = sha256(b"weights").hexdigest()
    sealed(runs, {"artifacts": [{"name": "w", "bytes": 7, "sha256": digest}]})
    path = kept_file(runs, "r1", KEY, "w")
    assert path == runs / "r1" / "attempts" / "2" / "artifacts" / "w"
    with pytest.raises(DataError, match="r1 kept no v"):
        kept_file(runs, "r1", KEY, "v")
    path.unlink()
    with pytest.raises(DataError, match="cannot read"):
        kept_file(runs, "r1", KEY, "w")


def test_another_run_under_that_number_is_refused(runs: Path) -> None:
    """After a ledger was restored, a number may be given again."""
    sealed(runs, {"key": "other"}, "order.json")
    with pytest.raises(DataError, match="r1 is another run"):
        kept_file(runs, "r1", KEY, "w")


def test_a_run_that_did_not_end_well_kept_nothing(runs: Path) -> None:
    """A failed attempt's files do not count, nor those of a run that is not there."""
    sealed(runs, {"outcome": "failed"})
    for run in ("r1", "r2"):
        with pytest.raises(DataError, match=f"{run} has not ended well"):
            kept_file(runs, run, KEY, "w")


# the tensors


DIGITS = tuple("0123456789")


def started(
    home: LiveHome,
    tmp_path: Path,
    class_names: tuple[str, ...] = DIGITS,
    text: str = "FT(1-)",
    expected: Preprocessing | None = None,
    **model: Any,
) -> dict[str, torch.Tensor]:
    """What a network starts from, and the kept tensors altered by `tmp_path` where it has some."""
    altered = tmp_path / FILE
    if not altered.exists():
        shutil.copy(artifact(home, "r1"), altered)
    context = FolderContext(tmp_path, runs={"r1": tmp_path})
    chosen = ModelParams.model_validate({"name": "resnet18", "weights": {"run": "r1"}} | model)
    wanted = expected or preprocessing(chosen.name)
    state = starting_weights(chosen, class_names, treatments(text, 10), wanted, context)
    assert state is not None
    return state


def test_rows_of_the_classifier_follow_their_classes(home: LiveHome, tmp_path: Path) -> None:
    """Classes in another order keep their own rows; everything else is as it was."""
    kept = load_file(artifact(home, "r1"))
    state = started(home, tmp_path, DIGITS[::-1])
    assert torch.equal(state["fc.weight"], kept["fc.weight"].flip(0))
    assert torch.equal(state["fc.bias"], kept["fc.bias"].flip(0))
    assert all(torch.equal(state[name], kept[name]) for name in kept if "fc." not in name)


def test_other_classes_need_another_classifier(home: LiveHome, tmp_path: Path) -> None:
    """Rows of other classes are refused, and do not matter where they are thrown away."""
    others = ("ant", *DIGITS[1:])
    with pytest.raises(WeightsError, match=r"knows other classes.*R\(last\)"):
        started(home, tmp_path, others)
    assert started(home, tmp_path, others, "FT(1-9)R(10)")


def test_weights_of_another_network_are_refused(home: LiveHome, tmp_path: Path) -> None:
    """The file says which network it is of."""
    with pytest.raises(
        WeightsError, match=r"r1 kept weights of resnet18, not of resnet34.*name: resnet18"
    ):
        started(home, tmp_path, name="resnet34")


def test_other_images_are_refused_unless_they_are_wanted(home: LiveHome, tmp_path: Path) -> None:
    """Preprocessing that differs silently would cost accuracy; said aloud, it is a choice."""
    other = preprocessing("resnet18", interpolation="bicubic")
    with pytest.raises(WeightsError, match=r"Set model\.interpolation: bilinear"):
        started(home, tmp_path, expected=other)
    assert started(home, tmp_path, expected=other, interpolation="bicubic")


@pytest.mark.parametrize(
    ("value", "says"), [("nan", "r1 diverged"), ("plain", "does not say which network")]
)
def test_weights_of_no_use_are_refused(
    home: LiveHome, tmp_path: Path, value: str, says: str
) -> None:
    """Those that diverged while they were waited for, and a file of another job."""
    kept = artifact(home, "r1")
    with safe_open(kept, "pt") as stream:
        metadata = stream.metadata()
    state = load_file(kept)
    if value == "nan":
        state["conv1.weight"][0, 0, 0, 0] = torch.nan
    save_file(state, tmp_path / FILE, metadata if value == "nan" else None)
    with pytest.raises(WeightsError, match=says):
        started(home, tmp_path)
