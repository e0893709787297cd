"""``ftd advise`` on real ledgers and datasets: numbers traced to runs, gaps said, specs to run."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

from ftd.cli.main import main
from ftd.ledger.db import Ledger
from ftd.ledger.enqueue import write_plan
from ftd.ledger.execution import record
from ftd.ledger.wishes import admit
from ftd.planning.plan import make_plan
from ftd.planning.producers import Producer
from ftd.spec.experiment import parse
from jobs.data.prepare import prepared
from jobs.inspection.labels import counts
from jobs.params.target import TargetParams
from jobs.targets import inputs, resolve
from tests.context import FolderContext
from tests.finished import complete
from tests.ledgers import new_ledger

STUDY = """
experiment: study
job: finetune
model: {name: mini8, weights: {run: r1}}
target: {dataset: digits, decode_size: 16, val_per_class: 5, per_class: 20}
train: {steps: 10, batch_size: 10}
factors:
  layers: [F(1-7)R(8), FT(1-7)R(8)]
replicates: 3
seed: 1
"""
SOURCE = """
experiment: source
job: finetune
model: {name: mini8, weights: none}
layers: "R(1-8)"
target: {dataset: digits, decode_size: 16, val_per_class: 5, classes: {only: ["1", "2"]}}
train: {steps: 10, batch_size: 10, lr: 0.1}
"""
DISTANCE = """
experiment: distances
job: distance
model: {name: mini8, weights: {run: r1}}
source: {dataset: digits, decode_size: 16, classes: {only: ["1", "2"]}}
target: {dataset: digits, decode_size: 16}
"""


def write(ledger: Ledger, text: str, *known: Producer) -> None:
    """Enqueue a spec without a daemon."""
    planned = make_plan(
        parse(text, "s.yaml"), Path("/"), device_kind="cpu", producers=lambda _: known
    )
    write_plan(
        ledger, planned, spec_text=text, base="/", owner="ann", priority=0,
        announce=lambda experiment: admit(ledger, experiment),
    )  # fmt: skip


@pytest.fixture
def ledger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Ledger]:
    """A source net (r1), three replicates frozen (r2-r4) and tuned (r5-r7), and a distance (r8)."""
    monkeypatch.setenv("FTD_HOME", str(tmp_path / "home"))
    opened = new_ledger(tmp_path)
    write(opened, SOURCE)
    key = opened.db.execute_sql("SELECT key FROM run").fetchone()[0]
    write(opened, STUDY.replace("train: {", "train: {lr: 0.1, "), Producer("r1", key))
    write(opened, DISTANCE, Producer("r1", key))
    complete(opened, 1, {"test/balanced_accuracy": 0.9})
    for run, value in zip(range(2, 8), (0.5, 0.6, 0.7, 0.6, 0.7, 0.83), strict=True):
        record(opened, "data", run=run, data={"images_per_class": {"train": [20, 10, 30]}})
        complete(opened, run, {"test/balanced_accuracy": value, "test/top1": 0.5})
    yield opened
    opened.close()


def advice(capsys: pytest.CaptureFixture[str], *options: str) -> Any:
    """The object that ``ftd advise --json`` prints."""
    capsys.readouterr()
    assert main(["advise", *options, "--json"]) == 0, capsys.readouterr().err
    return json.loads(capsys.readouterr().out)


def text(capsys: pytest.CaptureFixture[str], *options: str) -> str:
    """What it prints for people."""
    capsys.readouterr()
    assert main(["advise", *options]) == 0
    return capsys.readouterr().out


def test_the_ledgers_pairs_speak(ledger: Ledger, capsys: pytest.CaptureFixture[str]) -> None:
    """With their interval and run ids; one learning rate for both sides is pointed out."""
    found = advice(capsys, "--target", "digits", "--per-class", "25")
    (one,) = found["comparisons"]
    assert one["mean"] == pytest.approx(0.11) and one["n"] == 3 and one["images_per_class"] == 20
    assert one["pairs"] == [["r5", "r2"], ["r6", "r3"], ["r7", "r4"]]
    assert one["model"] == "mini8" and one["weights"] == "r1" and not one["tuned"]
    assert found["verdict"]["word"] == "tune" and one["interval"][0] > 0
    assert found["labels"]["class_names"] == list("0123456789")
    shown = text(capsys, "--target", "digits", "--per-class", "25")
    assert "tune: fine-tuning the copied layers was better" in shown
    assert "r2-r7" in shown and "(=)" in shown and "not fitted: no distance is recorded" in shown
    other = advice(capsys, "--target", "digits", "--per-class", "25", "--metric", "test/top1")
    assert other["comparisons"][0]["mean"] == 0


def test_nobody_knows(ledger: Ledger, capsys: pytest.CaptureFixture[str]) -> None:
    """Another network, weights or number of images: it is said, with what to run."""
    for options in (["--model", "resnet18"], ["--weights", "imagenet"]):
        found = advice(capsys, "--target", "digits", *options)
        assert found["comparisons"] == [] and found["verdict"]["word"] == "unknown"
        assert found["chu_2016"] is None and set(found["specs"]) == {
            "its distance", "whether to freeze or tune",
        }  # fmt: skip
    assert advice(capsys, "--target", "digits")["verdict"]["word"] == "unknown", "107 per class"
    shown = text(capsys, "--target", "digits", "--model", "resnet18")
    assert "unknown: there is no such evidence here" in shown
    assert "to know its distance, enqueue this spec" in shown


def test_what_to_run_can_be_run(ledger: Ledger, capsys: pytest.CaptureFixture[str]) -> None:
    """The specs plan as they are, for the network with evidence and for one without."""
    key = ledger.db.execute_sql("SELECT key FROM run WHERE id = 1").fetchone()[0]
    for options in ([], ["--model", "resnet18", "--weights", "imagenet", "--per-class", "7"]):
        specs = advice(capsys, "--target", "digits", *options)["specs"]
        assert len(specs) == 2
        for spec in specs.values():
            plan = make_plan(
                parse(spec, "s.yaml"), Path("/"), device_kind="cpu",
                producers=lambda _: (Producer("r1", key),),
            )  # fmt: skip
            assert plan.runs
            assert plan.runs[0].params["model"]["name"] == ("resnet18" if options else "mini8")
            if not options:
                assert plan.runs[0].params["target"]["decode_size"] == 16, "as its source was"


def test_what_to_run_starts_from_what_there_is(
    ledger: Ledger, capsys: pytest.CaptureFixture[str]
) -> None:
    """Weights that are named have their own network, and no more replicates than they have."""
    twice = SOURCE.replace("experiment: source", "experiment: twice\nreplicates: 2")
    write(ledger, twice.replace("lr: 0.1", "lr: 0.2"))
    for name, number in (("r1", 5), ("source", 5), ("twice", 2)):
        specs = advice(capsys, "--target", "digits", "--weights", name)["specs"]
        found = yaml.safe_load(specs["whether to freeze or tune"])
        assert found["model"] == {"name": "mini8", "weights": {"run": name}}
        assert found["replicates"] == number


def test_ranks_and_distances(ledger: Ledger, capsys: pytest.CaptureFixture[str]) -> None:
    """Once a run has measured it, the target's place among known ones; the paper's table not."""
    complete(ledger, 8, {"distance/cosine": 0.25, "distance/mmd": 3.0, "distance/cosine_std": 0.1})
    found = advice(capsys, "--target", "digits", "--per-class", "25")
    first = found["distances"][0]
    assert (first["measure"], first["rank"], first["source"]) == ("cosine", 1, "digits only 1, 2")
    assert first["targets"] == [{"target": "digits", "value": 0.25, "runs": ["r8"]}]
    assert "its distance" not in found["specs"] and found["chu_2016"] is None
    assert found["comparisons"][0]["distance"] == 0.25
    assert "at least 3" in found["no_boundary"] and found["boundary"] is None
    shown = text(capsys, "--target", "digits", "--per-class", "25")
    assert "rank 1 of 1" in shown and "digits <" in shown and "does not apply" in shown


def test_targets_as_specs_have_them(
    ledger: Ledger, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A YAML file with a section target, or a folder; labels are counted as they would be used."""
    for name in ("a", "b"):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for number in range(20):
            image = Image.fromarray(np.full((9, 9, 3), number, np.uint8))
            image.save(tmp_path / "photos" / name / f"{number}.png")
    found = advice(capsys, "--target", f"{tmp_path}/photos")
    assert found["labels"] == {"class_names": ["a", "b"], "available": [20, 20], "train": [12, 12]}
    spec = tmp_path / "spec.yaml"
    spec.write_text("target: {dataset: folder, folder: photos, per_class: 5}\n")
    found = advice(capsys, "--target", str(spec))
    assert found["images_per_class"] == 5
    assert found["target"]["folder"] == str(tmp_path / "photos"), "a spec elsewhere finds it"


@pytest.mark.parametrize(
    ("target", "says"),
    [
        (["digitz"], "Did you mean 'digits'?"),
        (["torchvision/CIFAR10"], "needs a folder"),
        (["digits", "--folder", "."], "takes no folder"),
        (["missing.yaml"], "cannot read it"),
        (["digits", "--per-class", "0"], "--per-class"),
        (["digits", "--per-class", "many"], "--per-class"),
        (["./digits"], "no folder ./digits"),
        (["digits", "--metric", "val/top1"], "--metric"),
        (["digits", "--model", "nosuch"], "no network is called 'nosuch'"),
        (["digits", "--model", "mini8", "--weights", "imagenet"], "no published weights of mini8"),
        (["digits", "--weights", "none"], "nothing to freeze"),
        (["digits", "--weights", "r99"], "no run r99"),
        (["digits", "--weights", "sources"], "no experiment sources"),
        (["digits", "--weights", "source", "--model", "resnet18"], "source is of mini8"),
    ],
)
def test_a_wrong_target_is_told(
    ledger: Ledger, target: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """In a line, before anything is computed."""
    assert main(["advise", "--target", *target]) == 2
    assert says in capsys.readouterr().err


@pytest.mark.parametrize(
    "section",
    [
        {},
        {"per_class": 9, "test_per_class": 3, "val_per_class": 2},
        {"num_images": 50, "val_fraction": 0},
        {"per_class": 60, "imbalance": {"ratio": 5, "hold": "max"}},
        {"classes": {"only": ["1", "3"]}, "test_fraction": 0.5},
    ],
)
def test_labels_are_counted_as_a_run_would(section: dict[str, Any], tmp_path: Path) -> None:
    """Without decoding: as many of each class train as in a run, or under imbalance as many as in
    a run with other seeds."""
    raw = TargetParams.model_validate({"dataset": "digits", "decode_size": 8, **section})
    target = resolve(raw, Path("/"))
    data = prepared(target, inputs(target)["target"], "bilinear", FolderContext(tmp_path), None, ())
    found = counts(target)
    wanted = data.listing.images_per_class(data.splits.train).tolist()
    assert sorted(found["train"]) == sorted(wanted)
    assert found["class_names"] == list(data.listing.class_names)
