"""Runs that other runs start from: picked by cell and checkpoint, waited for, and judged."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ftd.daemon.reasons import reason
from ftd.errors import InputError, SpecError
from ftd.job import Input
from ftd.ledger import activity
from ftd.ledger.db import Ledger
from ftd.ledger.models import Artifact, Run
from ftd.ledger.places import outline, places
from ftd.ledger.producers import producers
from ftd.ledger.reads import runs
from ftd.ledger.sources import sources_at_chance
from ftd.outline import Outline
from ftd.planning.plan import Plan, make_plan
from ftd.planning.producers import Producer, picked
from ftd.planning.sources_read import SourcesRead
from ftd.spec.experiment import parse
from ftd.states import RunState
from ftd.stats.contrasts import contrasts
from ftd.stats.observations import Observation
from ftd.stats.reading import observed
from ftd.stats.summary import summarise
from ftd.views import status, summary
from ftd.views.table import plain
from jobs.sources import WeightsRun
from tests import ledgers
from tests.finished import complete, fail

# --- which run a name means -------------------------------------------------------------------


def source(run: int, cell: int, **factors: Any) -> Producer:
    """A source that is not trained yet, in a cell with these levels."""
    params = {
        "model": {"name": "mini8"}, "source": {"dataset": "digits"},
        "train": {"steps": 9}, "keep_at": [3, 5],
    }  # fmt: skip
    return Producer(
        f"r{run}", f"key{run}", factors=factors, place=(cell, 0), job="pretrain", params=params
    )


NET = [
    source(1, 0, **{"source.classes.num_classes": 5, "lr": 0.1}),
    source(2, 1, **{"source.classes.num_classes": 10, "lr": 0.1}),
    source(3, 2, **{"source.classes.num_classes": 5, "lr": 0.2}),
    source(4, 0, **{"source.classes.num_classes": 5, "lr": 0.1}),
]


def pick(cell: dict[str, Any], **asked: Any) -> list[str]:
    weights = WeightsRun.model_validate({"run": "net", "cell": cell, **asked})
    return [one.run for one in picked(weights.kept, NET)]


def test_levels_pick_a_cell() -> None:
    """Written with dots or nested, in any order; all its replicates are meant."""
    for cell in (
        {"source.classes.num_classes": 5, "lr": 0.1},
        {"lr": 0.1, "source": {"classes": {"num_classes": 5.0}}},
    ):
        assert pick(cell) == ["r1", "r4"]
    assert pick({"source.classes.num_classes": 10}) == ["r2"], "one level can be enough"


NAMES = st.text("abc", min_size=1, max_size=2)
LEVELS = st.integers() | st.booleans() | st.none() | st.text(max_size=3)
NESTED = st.recursive(
    LEVELS, lambda inner: st.dictionaries(NAMES, inner, min_size=1, max_size=3), max_leaves=6
).filter(lambda value: isinstance(value, dict))


@given(NESTED)
def test_dots_and_nesting_say_the_same(cell: dict[str, Any]) -> None:
    """A cell's levels are the leaves, however deep they are written."""
    wanted = WeightsRun.model_validate({"run": "net", "cell": cell}).kept
    dotted = {name: level for name, level in wanted.cell}
    assert WeightsRun.model_validate({"run": "net", "cell": dotted}).kept == wanted
    for name, level in wanted.cell:
        inner: Any = cell
        for part in name.split("."):
            inner = inner[part]
        assert inner is level or inner == level


@pytest.mark.parametrize(
    ("cell", "says"),
    [
        ({}, r"'net' has several cells, so its .*cell: \{FACTOR: level\}.*num_classes=5 lr=0\.1; "),
        ({"lr": 0.1}, r"has several cells with lr=0\.1.*num_classes=5 lr=0\.1; .*=10 lr=0\.1$"),
        ({"lr": 7}, r"no cell with lr=7\. Its cells: source\.classes\.num_classes=5 lr=0\.1; "),
        ({"lt": 7}, r"no factor 'lt'\. Did you mean 'lr'\? Its factors: source\.classes"),
        ({"lr": True}, "no cell with lr=true"),
    ],
)
def test_what_picks_no_one_cell(cell: dict[str, Any], says: str) -> None:
    """It is told with the cells or factors that there are."""
    with pytest.raises(InputError, match=says):
        pick(cell)


def test_a_run_has_no_cells() -> None:
    """Levels beside a run's number would mean nothing."""
    with pytest.raises(InputError, match="'r1' is one run, which has no cells"):
        picked(Input("run", "r1", (("lr", 0.1),)), [replace(NET[0], factors={})])


def test_checkpoints_are_known_beforehand() -> None:
    """Of a run to come from what it is asked to keep, of one that is done from what it kept."""
    cell = {"source.classes.num_classes": 10}
    assert pick(cell, checkpoint=3) == pick(cell, checkpoint=5) == pick(cell)
    with pytest.raises(InputError, match=r"'r2' of 'net' will keep no weights-4\.safetensors.*-3"):
        pick(cell, checkpoint=4)
    done = replace(NET[1], state=RunState.DONE, artifacts=("classes.json", "weights-3.safetensors"))
    asked = WeightsRun(run="net", checkpoint=3).kept
    assert picked(asked, [done]) == (done,)
    with pytest.raises(InputError, match=r"kept no weights-5.*kept: classes\.json, weights-3"):
        picked(WeightsRun(run="net", checkpoint=5).kept, [done])
    unknown = replace(NET[1], job="./own.py:Own")
    assert picked(asked, [unknown]) == (unknown,), "of somebody's own job nothing is known"
    old = replace(NET[1], params={"steps": 3})
    assert picked(asked, [old]) == (old,), "nor of parameters of another version"


def test_a_candidate_is_picked_like_a_cell() -> None:
    """Where something is tuned, its levels pick one of the candidates."""
    tried = [replace(source(run, 0, lr=run / 10), place=(0, run)) for run in (1, 2)]
    assert picked(WeightsRun(run="net", cell={"lr": 0.2}).kept, tried) == (tried[1],)
    with pytest.raises(InputError, match=r"'net' has several candidates.*There are: lr=0\.1; lr="):
        picked(WeightsRun(run="net").kept, tried)


@pytest.mark.parametrize("cell", [{"a": {"b": 1}, "a.b": 2}, {"a": [1, 2]}])
def test_levels_that_are_none(cell: dict[str, Any]) -> None:
    """One factor has one level."""
    with pytest.raises(ValueError, match=r"given twice|single level"):
        WeightsRun.model_validate({"run": "net", "cell": cell})


SPEC = """
experiment: adapted
job: finetune
model: {name: mini8, weights: {run: net, cell: {lr: 0.1}}}
layers: "F(1-7)R(8)"
target: {dataset: digits, decode_size: 16}
train: {steps: 3}
replicates: 2
factors:
"""
FACTOR = "  model.weights.cell.source.classes.num_classes: [5, 10]\n"


def plan_of(text: str, net: list[Producer] = NET) -> Plan:
    spec = parse(text, "s.yaml")
    return make_plan(spec, Path("/"), device_kind="cpu", producers=lambda _: tuple(net))


def test_factors_set_cells_and_checkpoints() -> None:
    """Each level reads the run it names; the key is made of that run's key and the checkpoint."""
    plan = plan_of(SPEC + FACTOR + "  model.weights.checkpoint: [3, null]\n")
    read = [(run.inputs["weights"]["run"], run.inputs["weights"]["file"]) for run in plan.runs]
    assert read == [
        *[("r1", "weights-3.safetensors"), ("r4", "weights-3.safetensors")],
        *[("r1", "weights.safetensors"), ("r4", "weights.safetensors")],
        *[("r2", "weights-3.safetensors")] * 2,
        *[("r2", "weights.safetensors")] * 2,
    ]
    assert len({run.key for run in plan.runs}) == 8
    assert dict(plan.cells[0]) == {
        "model.weights.cell.source.classes.num_classes": 5,
        "model.weights.checkpoint": 3,
    }


def test_the_key_is_the_sources_not_its_cells() -> None:
    """The same run picked in another way is the same question."""
    one = plan_of(SPEC + "  train.lr: [0.1]\n", [NET[0], NET[3]])
    other = plan_of(SPEC.replace("{lr: 0.1}", "{}") + "  train.lr: [0.1]\n", [NET[0], NET[3]])
    assert [run.key for run in one.runs] == [run.key for run in other.runs]


def test_a_cell_that_is_not_there_is_told_with_its_line() -> None:
    """As everything is that a spec names wrongly."""
    with pytest.raises(SpecError, match=r"s\.yaml:4: model\.weights\.run: experiment 'net' has no"):
        plan_of(SPEC + FACTOR.replace("10", "11"))


# --- what a summary may say -------------------------------------------------------------------


def inputs(*runs: str) -> list[dict[str, dict[str, str]]]:
    """What the units of a cell read: these runs."""
    return [{"weights": {"kind": "run", "fingerprint": run}} for run in runs]


def test_factors_of_one_source_net() -> None:
    """Those whose levels are other networks, one for all units; not those that keep the network."""
    read = SourcesRead()
    for classes, nets in ((5, ("a",)), (10, ("b",))):
        for lr in (0.1, 0.2):
            read.note({"classes": classes, "lr": lr}, inputs(*nets))
    assert read.of_one_net(3) == ("classes",)
    assert read.of_one_net(1) == (), "a single unit has no interval anyway"
    several = SourcesRead()
    several.note({"classes": 5}, inputs("a", "b"))
    several.note({"classes": 10}, inputs("c", "d"))
    assert several.of_one_net(2) == ()
    mixed = SourcesRead()
    mixed.note({"weights": "none"}, [{}])
    mixed.note({"weights": "net"}, inputs("a"))
    assert mixed.of_one_net(2) == ("weights",)


def test_a_plan_knows_which_factors_these_are() -> None:
    """Checkpoints of one network are factors of the source too."""
    text = SPEC + FACTOR + "  train.lr: [0.1, 0.2]\n"
    factor = "model.weights.cell.source.classes.num_classes"
    assert plan_of(text).outline.one_source == (factor,), "5 classes have two nets, 10 have one"
    twice = [*NET, source(5, 1, **{"source.classes.num_classes": 10, "lr": 0.1})]
    assert plan_of(text, twice).outline.one_source == ()
    stopped = SPEC + "  model.weights.checkpoint: [3, 5]\n"
    assert plan_of(stopped, [NET[1]]).outline.one_source == ("model.weights.checkpoint",)
    assert plan_of(stopped, [NET[0], NET[3]]).outline.one_source == ()
    kept = plan_of(text).outline
    assert Outline.from_json(kept.as_json()) == kept
    assert Outline.from_json({**Outline().as_json()} | {"one_source": []}) == Outline()


def seen(level: int, replicate: int, value: float) -> Observation:
    return Observation(
        run_id=level * 10 + replicate, cell=level, replicate=replicate, factors={"classes": level},
        value=value, absent="", cost_actual_s=1, cost_alone_s=1, flags=(),
    )  # fmt: skip


def test_one_net_gives_a_difference_and_no_interval() -> None:
    """The view says what it is conditional on; with several nets there is the usual interval."""
    values = [seen(level, number, level + 0.1 * number) for level in (1, 2) for number in range(4)]
    (usual,) = contrasts(values, "classes", Outline())
    one = Outline(one_source=("classes",))
    (found,) = contrasts(values, "classes", one)
    assert usual.interval is not None and found.interval is None
    assert found.difference == usual.difference and found.pairs == usual.pairs
    whole = summarise(values, "test/top1", one)
    text = "\n".join(plain(part) for part in summary.tables("e1 study", whole))
    assert "conditional on one source net" in text and "each level of classes is one source" in text
    assert summary.as_json(whole)["factors"][0]["conditional_on_one_source"] is True
    without = summary.as_json(summarise(values, "test/top1"))["factors"][0]
    assert without["conditional_on_one_source"] is False


# --- in a ledger ------------------------------------------------------------------------------


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    """r1 and r2 are sources, replicates of one cell; r3 and r4 start from them."""
    made = ledgers.new_ledger(tmp_path)
    ledgers.enqueue(made, ledgers.plan("net", [5], 2))
    keys = [one.key for one in producers(made, "net")]
    planned = ledgers.plan("adapted", [7], 2)
    planned = replace(
        planned,
        runs=tuple(
            replace(run, inputs={"weights": {"kind": "run", "where": "net", "fingerprint": key}})
            for run, key in zip(planned.runs, keys, strict=True)
        ),
    )
    ledgers.enqueue(made, planned)
    yield made
    made.close()


def why(ledger: Ledger) -> dict[int, str]:
    """Why each run waits."""
    return {
        row.run_id: reason(row, [], daemon_up=True, short_of_space=None, now=0.0)
        for row in activity.waiting(ledger, 9)
    }


def test_a_name_has_its_runs_with_their_levels(ledger: Ledger) -> None:
    """By replicate; what is done says what it kept."""
    complete(ledger, 1, {"test/score": 1.0})
    ledger.insert_all(
        Artifact,
        [{"run": 1, "attempt": 1, "name": n, "num_bytes": 1, "sha256": ""} for n in ("b", "a")],
    )
    first, second = producers(ledger, "net")
    assert (first.run, first.state, first.artifacts) == ("r1", RunState.DONE, ("a", "b"))
    assert (second.run, second.state, second.artifacts) == ("r2", RunState.QUEUED, None)
    assert first.factors == second.factors == {"level": 5}
    assert second.job == "drill" and second.params == {"steps": 3}
    (alone,) = producers(ledger, "r1")
    assert replace(first, factors={}) == alone


def test_what_waits_says_for_what(ledger: Ledger) -> None:
    """In words, with the source's state and the way out where only a person has one."""
    assert why(ledger)[3] == "needs r1, which is queued"
    ledger.write(Run.update(state=RunState.CANCELLED).where(Run.id == 1))
    assert why(ledger)[3] == "needs r1, which is cancelled (ftd retry r1)"
    ledger.write(Run.update(state=RunState.HELD).where(Run.id == 1))
    assert why(ledger)[3] == "needs r1, which is held (ftd release r1)"
    assert why(ledger)[4] == "needs r2, which is queued"


def test_a_failed_source_fails_what_needs_it(ledger: Ledger) -> None:
    """With that reason; what needs another source goes on."""
    fail(ledger, 1, "no such image")
    rows = {row.id: row for row in runs(ledger)}
    assert (rows[3].state, rows[3].error) == (RunState.FAILED, "it needs r1, which failed")
    assert rows[4].state == RunState.QUEUED
    assert status.result(rows[3]) == "it needs r1, which failed"


@pytest.mark.parametrize("flag", ["stuck", "near_chance"])
def test_a_source_near_chance_is_told_wherever_it_is_used(ledger: Ledger, flag: str) -> None:
    """Before, while and after what starts from it runs: status, lists, summary, JSON."""
    complete(ledger, 1, {"test/score": 1.0}, flag)
    complete(ledger, 2, {"test/score": 1.0})
    assert sources_at_chance(ledger, [1, 2, 3, 4]) == {3: (1,)}
    (third,) = (row for row in activity.waiting(ledger, 9) if row.run_id == 3)
    assert third.sources_at_chance == (1,)
    for number in (3, 4):
        complete(ledger, number, {"test/score": 0.5})
    rows = {row.id: row for row in runs(ledger)}
    assert rows[3].sources_at_chance == (1,) and rows[4].sources_at_chance == ()
    assert "source r1 is near chance" in status.result(rows[3])
    assert rows[3].as_json()["sources_at_chance"] == ["r1"]
    found = places(ledger, 2)
    read_as = outline(ledger, 2)
    whole = summarise(observed(found, [], "test/score", read_as), "test/score", read_as)
    assert whole.overall.flags == {"whose source r1 is near chance": 1}
    text = "\n".join(plain(part) for part in summary.tables("e2 adapted", whole))
    assert "flagged: 1 whose source r1 is near chance" in text


def test_a_source_that_learned_is_no_news(ledger: Ledger) -> None:
    """Other flags, and none, say nothing about those who start from it."""
    complete(ledger, 1, {"test/score": 1.0}, "diverged")
    assert sources_at_chance(ledger, [3, 4]) == {}
