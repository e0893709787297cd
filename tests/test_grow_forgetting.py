"""Growing and what came before: forgetting its source, and what is done against it; routes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from scipy.special import rel_entr, softmax

from ftd.errors import DataError, InputError
from ftd.job import Completed
from ftd.seeds import streams
from jobs.grow import Grow, GrowParams
from jobs.growth import growing
from jobs.growth.forgetting import Source
from jobs.growth.rehearsing import Rehearsing
from jobs.growth.remembering import Remembering
from jobs.growth.source_classifier import SourceClassifier
from jobs.params.growth import LwfParams
from jobs.train.loop import Training
from jobs.train.state import TrainingState
from tests.context import FolderContext
from tests.growing import grow_again, grown, images, params, random_state
from tests.networks import network
from tests.resume import Case, Stop, check_ways, killed_during_resume, run_whole

pytestmark = pytest.mark.usefixtures("torch_left_as_found")

Run = tuple[FolderContext, Completed]

LOW = {"classes": {"only": ["0", "1", "2", "3", "4"]}, "per_class": 8, "test_fraction": 0.05}
HIGH = {"classes": {"only": ["5", "6", "7", "8", "9"]}}


@pytest.fixture(scope="module")
def source(store: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A source run that learned some digits."""
    wanted = params(
        target=LOW, train={"epochs": 30, "lr": 0.05, "flip": False}, growth={"type": "none"}
    )
    context = FolderContext(tmp_path_factory.mktemp("source"), shared=store)
    return context, Grow().run(wanted, context)


def after(source: Run, **sections: Any) -> GrowParams:
    """Parameters of a run on other digits that starts from the source and looks back at it."""
    images = {**params(target=LOW).target.model_dump(mode="json"), "per_class": 1}
    changes = {"target": HIGH, "forgetting": {"source": images}} | sections
    return params(model={"name": "mini8", "weights": {"run": "r1"}}, **changes)


def looking_back(source: Run, root: Path, store: Path, **fields: Any) -> FolderContext:
    """What such a run is executed in."""
    root.mkdir()
    runs = {"r1": source[0].root / "artifacts"}
    return FolderContext(root, shared=store, runs=runs, **fields)


def forgets(source: Run, root: Path, store: Path, wanted: GrowParams, **fields: Any) -> Completed:
    """Such a run."""
    return Grow().run(wanted, looking_back(source, root, store, **fields))


def test_forgetting_is_measured_on_the_sources_test(
    source: Run, store: Path, tmp_path: Path
) -> None:
    """Before, it is the source's own test result; frozen layers forget nothing, tuned ones do."""
    own = source[1].metrics["test/top1"]
    assert own > 0.3, "the source must know something"
    frozen = forgets(source, tmp_path / "frozen", store, after(source, layers="F(1-7)R(8)"))
    assert frozen.metrics["source_before/top1"] == frozen.metrics["source_after/top1"] == own
    harsh = after(source, train={"lr": 0.1, "epochs": 6})
    tuned = forgets(source, tmp_path / "tuned", store, harsh, seeds=streams(9, 9))
    assert tuned.metrics["source_before/auroc"] == source[1].metrics["test/auroc"]
    assert tuned.metrics["source_after/top1"] < own
    broken = forgets(source, tmp_path / "broken", store, after(source, train={"lr": 1e30}))
    assert broken.flags == ("diverged",) and broken.metrics["source_after/top1"] == 0.2


def test_looking_back_changes_nothing_else(source: Run, store: Path, tmp_path: Path) -> None:
    """It is part of the key and of the metrics, and of no weight; images must be the source's."""
    with_it, without = after(source), after(source, forgetting={})
    assert Grow().identity(with_it) != Grow().identity(without)
    assert set(Grow().inputs(with_it)) - set(Grow().inputs(without)) == {"source"}
    context = looking_back(source, tmp_path / "one", store)
    one = Grow().run(with_it, context)
    known = [(kind, told["class_names"]) for kind, told in context.notes if "class_names" in told]
    assert known == [("data", list("56789")), ("source", list("01234"))]
    other = forgets(source, tmp_path / "other", store, without)
    assert one.state_sha256 == other.state_sha256
    assert set(one.metrics) - set(other.metrics) == {
        f"source_{when}/{name}"
        for when in ("before", "after")
        for name in ("top1", "balanced_accuracy", "auroc", "map")
    } | {"data/num_source_test"}
    images = {"dataset": "digits", "classes": HIGH["classes"], "decode_size": 20, "crop_size": 16}
    strange = after(source, forgetting={"source": images})
    with pytest.raises(DataError, match="tested on none"):
        forgets(source, tmp_path / "strange", store, strange)
    del images["classes"]
    more = after(source, forgetting={"source": images})
    with pytest.raises(DataError, match=r"learned other classes .* than these images have"):
        forgets(source, tmp_path / "more", store, more)
    with pytest.raises(InputError, match="Start from a run"):
        params(forgetting={"source": images})


def test_images_of_another_size_are_not_what_it_knew(
    source: Run, store: Path, tmp_path: Path
) -> None:
    """The source's run learned 16 of 20 pixels: measured on 20 it would seem to know less."""
    larger = after(source).forgetting
    assert larger is not None
    larger_images = {**larger.source.model_dump(mode="json"), "crop_size": 20}
    wanted = after(source, forgetting={"source": larger_images})
    with pytest.raises(DataError, match="cropped to 16, not to 20 and 20"):
        forgets(source, tmp_path / "larger", store, wanted)


def test_what_source_and_target_share_gives_nothing_away(
    source: Run, store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The target is made of the source's own images, split anew: those that it trains on say
    nothing of what was forgotten, and those that it is tested on are not rehearsed."""
    seen: list[tuple[Source, Training]] = []

    class Watched(Rehearsing):
        def __init__(self, source: Any, classifier: Any, wanted: Any, training: Any) -> None:
            super().__init__(source, classifier, wanted, training)
            seen.append((source, training))

    monkeypatch.setattr(growing, "Rehearsing", Watched)
    same = {"classes": LOW["classes"], "per_class": None, "test_fraction": 0.3}
    pool = {**params(target=LOW).target.model_dump(mode="json"), "per_class": None}
    wanted = after(source, target=same, forgetting={"source": pool, "rehearse": {}})
    context = looking_back(source, tmp_path / "run", store, seeds=streams(2, 0))
    completed = Grow().run(wanted, context)
    apart, training = seen[0]
    of = {
        name: set(training.loader.images.digests[rows].tolist())
        for name, rows in training.splits.by_name().items()
    }
    tested, rehearsed = (
        set(apart.loader.images.digests[rows].tolist())
        for rows in (apart.indices, apart.trained_on)
    )
    assert tested and not tested & of["train"]
    assert len(rehearsed) > 100 and not rehearsed & (of["test"] | of["val"])
    told = dict(context.notes)["source beside the target"]
    assert told["test_left_out"] > 0 and told["train_left_out"] > 100
    assert completed.metrics["data/num_source_test"] == len(tested)
    assert len(tested) + told["test_left_out"] == source[1].metrics["data/num_test"]


def test_learning_without_forgetting(source: Run, store: Path, tmp_path: Path) -> None:
    """The more it counts the less is forgotten; each of its parameters makes another run."""
    train = {"lr": 0.05, "epochs": 15, "flip": False, "keep": "last", "select": None}
    images = {**params(target=LOW).target.model_dump(mode="json"), "per_class": 1}
    identities = set()

    def adapted(name: str, lwf: dict[str, float] | None) -> Completed:
        wanted = after(
            source, train=train, target={**HIGH, "per_class": 8}, growth={"type": "none"},
            forgetting={"source": images, "lwf": lwf},
        )  # fmt: skip
        identities.add(json.dumps(Grow().identity(wanted), sort_keys=True))
        return forgets(source, tmp_path / name, store, wanted)

    none, usual = adapted("none", None), adapted("usual", {})
    strong, warm = adapted("strong", {"weight": 3.0}), adapted("warm", {"temperature": 3.0})
    runs = (none, usual, strong, warm)
    assert len(identities) == len({one.state_sha256 for one in runs}) == len(runs)
    kept = [one.metrics["source_after/auroc"] for one in (none, usual, strong)]
    assert kept[0] < kept[1] < kept[2] < none.metrics["source_before/auroc"]


def test_rehearsing(
    source: Run, store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the source's images learned along, more of it is kept; none that it was tested on is
    among them, and each weight is another run."""
    images = {**params(target=LOW).target.model_dump(mode="json"), "per_class": 8}
    train = {"lr": 0.03, "epochs": 10, "flip": False, "keep": "last", "select": None}
    sources, drawn = [], []

    class Watched(Rehearsing):
        def __init__(self, source: Any, *args: Any) -> None:
            super().__init__(source, *args)
            sources.append(source)

        def __call__(self, images: torch.Tensor) -> torch.Tensor:
            drawn.append(len(images))
            return super().__call__(images)

    monkeypatch.setattr(growing, "Rehearsing", Watched)
    identities, found = set(), {}
    for name, rehearse in (("none", None), ("usual", {}), ("heavy", {"weight": 3.0})):
        wanted = after(
            source, train=train, target={**HIGH, "per_class": 8}, growth={"type": "wa", "units": 4},
            forgetting={"source": images, "rehearse": rehearse},
        )  # fmt: skip
        identities.add(json.dumps(Grow().identity(wanted), sort_keys=True))
        found[name] = forgets(source, tmp_path / name, store, wanted)
    assert len(identities) == len({one.state_sha256 for one in found.values()}) == 3
    kept = {name: one.metrics["source_after/auroc"] for name, one in found.items()}
    assert kept["none"] < min(kept["usual"], kept["heavy"])
    one = sources[0]
    rehearsed, tested = (set(one.loader.images.digests[r]) for r in (one.trained_on, one.indices))
    assert len(rehearsed) > 20 and not rehearsed & tested
    assert set(drawn) == {8}, "once for each batch of the target"


def test_rehearsed_images_count_as_said(source: Run, store: Path, tmp_path: Path) -> None:
    """weight times the cross-entropy that the source's own network gives, summed; in parts it is
    the same, and what is over of a batch does not count."""
    images = {**params(target=LOW).target.model_dump(mode="json"), "per_class": 8}
    seen: dict[str, Any] = {}

    class Watched(Rehearsing):
        def draw(self, state: TrainingState, num_steps: int) -> None:
            super().draw(state, num_steps)
            if not seen:
                state.network.eval()
                batch = self._batch
                assert batch is not None
                seen["whole"] = float(self(batch.images).detach())
                self._num_taken = 0
                parts = [float(self(batch.images[:n]).detach()) for n in (3, 5, 9)]
                seen["parts"], seen["over"] = sum(parts), float(self(batch.images))
                logits = self._classifier.then(batch.images)
                loss = torch.nn.functional.cross_entropy(logits, batch.labels, reduction="sum")
                seen["by hand"] = 2.5 * float(loss)
                self._num_taken = 0

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(growing, "Rehearsing", Watched)
        forgetting = {"source": images, "rehearse": {"weight": 2.5}}
        train = {"epochs": 1, "batch_size": 16}
        forgets(source, tmp_path / "run", store, after(source, train=train, forgetting=forgetting))
    assert seen["whole"] == pytest.approx(seen["by hand"], rel=1e-5)
    assert seen["parts"] == pytest.approx(seen["by hand"], rel=1e-5) and seen["over"] == 0


@pytest.mark.parametrize("kind", ["", "wa", "wwa", "da", "lora"])
def test_the_penalty_is_the_divergence_of_what_was_said(kind: str) -> None:
    """weight T^2 KL(then || now), by scipy; 0 as long as nothing has moved.  What a source had
    grown itself counts as its own, what is grown for the new task does not."""
    state = grown(type=kind, units=5).state() if kind else random_state("mini8")
    old, moved = network("mini8", pretrained=state), network("mini8", pretrained=state)
    new = network("mini8", "FT(1-7)R(8)", state)
    classifier = SourceClassifier(old)
    classifier.listen(new)
    penalty = Remembering(classifier, LwfParams(weight=3.0, temperature=2.0))
    new = grow_again(new, type="wa", units=4)
    x = images("mini8")
    for net in (new, moved):
        net.eval()
    new(x)
    assert float(penalty(x).detach()) == pytest.approx(0, abs=1e-5)
    with torch.no_grad():
        for net in (new, moved):
            weight = net.module.get_parameter("classifier.4.weight")
            weight.copy_(1.5 * weight.roll(1, 0))
        new(x)
        shares = [softmax(net(x).double().numpy() / 2, axis=1) for net in (old, moved)]
        expected = 3 * 4 * rel_entr(*shares).sum()
        assert expected > 1e-3 and float(penalty(x)) == pytest.approx(expected, rel=5e-3)


def test_left_while_it_looks_back_it_ends_the_same(
    source: Run, store: Path, tmp_path: Path
) -> None:
    """Left while the source's images are prepared or shown, a run ends with the same metrics."""
    runs = {"r1": source[0].root / "artifacts"}
    images = {**params(target=LOW).target.model_dump(mode="json"), "per_class": 1}
    against = {"lwf": {}, "rehearse": {}}
    wanted = after(
        source,
        growth={"type": "wa", "units": 12, "at_step": 2},
        forgetting={"source": images, **against},
    )
    case = Case(Grow(), wanted, store, runs=runs)
    whole = run_whole(case, tmp_path / "whole")
    number = len(whole.places)
    places = (1, 2, 3, 4, 6, number - 3, number - 2, number - 1, number)
    check_ways(case, whole, tmp_path / "ways", [[Stop(place)] for place in places])
    check_ways(case, whole, tmp_path / "kill", killed_during_resume((3, number)))


@pytest.mark.parametrize("kind", ["wa", "da"])
def test_a_route_of_two_growths(kind: str, source: Run, store: Path, tmp_path: Path) -> None:
    """From the source to A, then to B, grown both times: what is still known of A is measured with
    A's own grown classifier."""
    growth = {"type": kind, "units": 6}
    a_target = {**HIGH, "per_class": 8, "test_fraction": 0.05}
    train = {"epochs": 20, "lr": 0.03, "flip": False}
    first = after(source, target=a_target, growth=growth, forgetting={}, train=train)
    a = forgets(source, tmp_path / "a", store, first)
    runs = {"r1": tmp_path / "a" / "artifacts"}
    images = first.target.model_dump(mode="json")

    def on_to_b(name: str, **changes: Any) -> Completed:
        looks = {"source": images, "lwf": changes.pop("lwf", None)}
        wanted = params(
            model={"name": "mini8", "weights": {"run": "r1"}}, target={"classes": LOW["classes"]},
            growth=growth, forgetting=looks, **changes,
        )  # fmt: skip
        (tmp_path / name).mkdir()
        return Grow().run(wanted, FolderContext(tmp_path / name, shared=store, runs=runs))

    frozen = on_to_b("frozen", layers="F(1-7)R(8)")
    assert a.metrics["test/top1"] > 0.3, "the network must know something of A"
    known = ("top1", "auroc", "map")
    assert all(frozen.metrics[f"source_before/{m}"] == a.metrics[f"test/{m}"] for m in known)
    assert all(frozen.metrics[f"source_after/{m}"] == a.metrics[f"test/{m}"] for m in known)
    tuned = on_to_b("tuned", train={"lr": 0.05})
    assert tuned.metrics["source_after/auroc"] != a.metrics["test/auroc"]
    remembers = on_to_b("remembers", lwf={}, train={"lr": 0.05})
    assert remembers.state_sha256 != tuned.state_sha256
    assert remembers.metrics["source_before/auroc"] == a.metrics["test/auroc"]
