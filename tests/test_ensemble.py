"""Ensembles: the mean of what runs said about the same images, whoever they are listed by."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ftd.errors import DataError, InputError, SpecError
from ftd.job import Completed
from ftd.planning.plan import make_plan
from ftd.planning.producers import Producer
from ftd.spec.experiment import parse
from jobs.data.keyed import splitmix64
from jobs.ensemble import Ensemble, EnsembleParams
from jobs.measure.averaging import averaged
from jobs.measure.predictions import Predicted, Predictions
from jobs.measure.scoring import Scoring
from jobs.sources import PREDICTIONS
from tests.context import FolderContext
from tests.homes import LiveHome
from tests.resume import Case, Stop, run_in_parts, run_whole

NAMES = ("a", "b", "c")


def said(seed: int, *, several: bool = False, count: int = 40) -> Predicted:
    """What a network draws about images 0, 1, ...; the labels do not depend on `seed`."""
    draw, shape = np.random.default_rng(seed), (count, len(NAMES))
    labels = np.random.default_rng(0).integers(0, 2 if several else 3, shape)
    digests = splitmix64(np.arange(count, dtype=np.uint64))
    logits = (draw.normal(size=shape) * 3).astype(np.float32)
    ids = tuple(f"{index}.png" for index in range(count))
    return Predicted(ids, digests, labels if several else labels[:, 0], logits)


def member(seed: int, *, several: bool = False, **splits: Predicted) -> Predictions:
    found = {"val": said(seed + 50, several=several), "test": said(seed, several=several), **splits}
    return Predictions(NAMES, several, (), found)


def softmax(logits: Any) -> Any:
    powers = np.exp(logits.astype(np.float64))
    return powers / powers.sum(axis=1, keepdims=True)


def sigmoid(logits: Any) -> Any:
    return 1 / (1 + np.exp(-logits.astype(np.float64)))


@pytest.mark.parametrize(("several", "shares"), [(False, softmax), (True, sigmoid)])
def test_probabilities_are_averaged(several: bool, shares: Any) -> None:
    """The mean of the members' probabilities, image by image."""
    members = {f"r{seed}": member(seed, several=several) for seed in (1, 2, 3)}
    mean = averaged(members)
    order = np.argsort(members["r1"].splits["test"].digests)
    wanted = np.mean([shares(one.splits["test"].logits[order]) for one in members.values()], axis=0)
    np.testing.assert_allclose(np.exp(mean.splits["test"].log_probabilities), wanted, rtol=1e-5)
    assert set(mean.splits) == {"val", "test"}


def test_sure_members_stay_told_apart() -> None:
    """Probabilities that round to one keep their order, and their complements their digits."""
    sure = np.array([[40, 0, 0], [50, 0, 0], [45, 0, 0]], np.float32)
    few = replace(said(1, count=3), logits=sure)
    found = averaged({"r1": member(1, test=few), "r2": member(2, test=few)}).splits["test"]
    order = np.argsort(few.digests)
    np.testing.assert_allclose(found.logits[:, 1] - found.logits[:, 0], -sure[order, 0], rtol=1e-6)


def test_images_are_matched_by_content() -> None:
    """Another order of the images, under other names, makes no difference."""
    one, other = member(1), member(2)
    test = other.splits["test"]
    turned = Predicted(
        tuple(f"x{name}" for name in test.ids[::-1]),
        test.digests[::-1],
        test.labels[::-1],
        test.logits[::-1],
    )
    moved = replace(other, splits={**other.splits, "test": turned})
    found = averaged({"r1": one, "r2": moved}).splits["test"]
    assert (found.logits == averaged({"r1": one, "r2": other}).splits["test"].logits).all()


def test_what_does_not_fit_is_refused() -> None:
    """Other classes, images or labels of the test; other validation images only leave it out."""
    one, test = member(1), said(2)
    other_labels = replace(test, labels=(test.labels + 1) % 3)
    for wrong in (said(2, count=39), other_labels):
        with pytest.raises(DataError, match=r"r1, r2 were not tested on the same images"):
            averaged({"r1": one, "r2": member(2, test=wrong)})
    with pytest.raises(DataError, match="r1 and r2 tell other classes apart"):
        averaged({"r1": one, "r2": replace(member(2), class_names=("a", "b", "d"))})
    assert set(averaged({"r1": one, "r2": member(2, val=said(2, count=9))}).splits) == {"test"}


# --- the job ----------------------------------------------------------------------------------


@pytest.fixture
def runs(tmp_path: Path) -> dict[str, Path]:
    """Three runs that kept their predictions."""
    found = {}
    for seed in (1, 2, 3):
        found[f"r{seed}"] = tmp_path / f"r{seed}"
        found[f"r{seed}"].mkdir()
        member(seed).write(found[f"r{seed}"] / PREDICTIONS)
    return found


def resolved(*names: str) -> EnsembleParams:
    return Ensemble().resolve(EnsembleParams(runs=list(names)), Path())


def vote(root: Path, runs: dict[str, Path], *names: str) -> Completed:
    root.mkdir()
    return Ensemble().run(resolved(*names), FolderContext(root, runs=runs))


def test_the_result_is_measured_like_a_networks(tmp_path: Path, runs: dict[str, Path]) -> None:
    """All metrics of the mean's predictions; they are kept, and can vote themselves."""
    completed = vote(tmp_path / "a", runs, "r3", "r1")
    mean = averaged({name: Predictions.read(runs[name] / PREDICTIONS) for name in ("r1", "r3")})
    for split in ("val", "test"):
        found = mean.splits[split]
        for name, value in Scoring(3).metrics(found.logits, found.labels).items():
            assert completed.metrics[f"{split}/{name}"] == value
    kept = tmp_path / "a/artifacts"
    assert {path.name for path in kept.iterdir()} == {
        PREDICTIONS,
        "predictions.csv",
        "classes.json",
    }
    again = vote(tmp_path / "b", {**runs, "r4": kept}, "r4", "r2")
    assert again.state_sha256 != completed.state_sha256


def test_a_metric_that_there_is_not_is_refused(tmp_path: Path, runs: dict[str, Path]) -> None:
    """It would be missing in every summary; those that there are, are named."""
    wanted = EnsembleParams(runs=["r1", "r2"], metric="test/foo")
    with pytest.raises(InputError, match=r"no test/foo.*test/auroc.*val/top1"):
        Ensemble().run(wanted, FolderContext(tmp_path, runs=runs))


def test_the_order_of_the_runs_does_not_matter(tmp_path: Path, runs: dict[str, Path]) -> None:
    """Listed otherwise it is the same run; of other runs it is another."""
    one = vote(tmp_path / "a", runs, "r1", "r2", "r3")
    assert vote(tmp_path / "b", runs, "3", "r1", "r2") == one
    assert vote(tmp_path / "c", runs, "r1", "r2") != one


def test_left_before_it_began(tmp_path: Path, runs: dict[str, Path]) -> None:
    """An ensemble that is asked to leave is done again from the start, and is the same."""

    class Voting(Ensemble):
        """With runs at hand."""

        def run(self, params: EnsembleParams, context: Any) -> Completed:
            context.runs = runs
            return super().run(params, context)

    case = Case(Voting(), resolved("r1", "r2"), tmp_path / "store")
    whole = run_whole(case, tmp_path / "whole")
    assert not whole.outcome.difference(run_in_parts(case, tmp_path / "parts", [Stop(1)]))


@pytest.mark.parametrize(
    ("names", "says"), [(["r1", "1"], "r1 stands twice"), (["r2", "r3", "r2"], "r2 stands twice")]
)
def test_a_run_votes_once(names: list[str], says: str) -> None:
    """However it is written."""
    with pytest.raises(InputError, match=says):
        resolved(*names)


SPEC = """
experiment: vote
job: ensemble
runs: [{runs}]
metric: test/nll
device: cpu
"""


def key_of(runs: str, keys: dict[str, str]) -> tuple[str, str]:
    """The key of the ensemble's run, and the metric shown first."""
    spec = parse(SPEC.format(runs=runs), "vote.yaml")
    plan = make_plan(
        spec, Path("/"), device_kind="cpu", producers=lambda text: (Producer(text, keys[text]),)
    )
    return plan.runs[0].key, plan.primary_metric


def test_what_an_ensemble_is(tmp_path: Path) -> None:
    """It is known by the keys of its runs."""
    keys = {"r1": "x", "r2": "y", "r3": "z"}
    key, metric = key_of("r1, r2", keys)
    assert metric == "test/nll"
    assert key_of("r2, r1", keys)[0] == key
    assert key_of("r1, r3", keys)[0] != key and key_of("r1, r2, r3", keys)[0] != key
    assert key_of("r1, r2", {**keys, "r2": "w"})[0] != key
    with pytest.raises(SpecError, match="runs"):
        key_of("r1", keys)


def test_who_says_nothing_of_test_images_cannot_vote() -> None:
    """It is refused when enqueued, whether that run is done or not."""

    def vote_of(**known: Any) -> None:
        make_plan(
            parse(SPEC.format(runs="r1, r2"), "vote.yaml"), Path("/"), device_kind="cpu",
            producers=lambda text: (Producer(text, text, **known),),
        )  # fmt: skip

    vote_of(artifacts=("predictions.safetensors", "weights.safetensors"))
    with pytest.raises(InputError, match=r"'r1' of 'r1' kept no predictions.safetensors"):
        vote_of(artifacts=("ranks.csv",))


STUDY = """
experiment: members
job: finetune
model: {name: efficientnet_lite0, weights: imagenet}
layers: "F(1-18)R(19)"
target: {dataset: digits, decode_size: 32, test_per_class: 5, val_per_class: 1, per_class: 4}
train: {epochs: 1, batch_size: 20, lr: 0.1}
seeds: {split: 0}
replicates: 2
"""


def test_an_ensemble_waits_for_its_runs(tmp_path: Path) -> None:
    """Asked for together with its members, it runs after them, on what they kept."""
    home = LiveHome(tmp_path / "home", slots=2)
    home.enqueue(STUDY)
    home.enqueue(SPEC.format(runs="r1, r2"))
    assert home.finish() == 0, home.log()
    *members, vote = home.runs()
    assert vote["state"] == "done", vote["error"]
    mean = np.mean([one["metrics"]["test/nll"] for one in members])
    assert 0 < vote["metrics"]["test/nll"] <= mean, "the logarithm is concave"
