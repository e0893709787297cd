"""The ledger: schema, durability, invariants as indexes, and exactly-once ingest."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import peewee
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from playhouse.schema_diff import diff_models

from ftd import faults
from ftd.errors import LedgerError
from ftd.layout import Home
from ftd.ledger import activity, details, execution, reads, scheduling, wishes
from ftd.ledger.db import SCHEMA_VERSION, Ledger, backup, open_ledger
from ftd.ledger.execution import Ending
from ftd.ledger.ingest import ingest
from ftd.ledger.models import TABLES, Attempt, Lease, Membership, Run, Worker
from ftd.protocol import Result
from ftd.states import MOVES, Outcome, RunState, Wish, wished_state
from tests.ledgers import enqueue, new_ledger, plan


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    """A new ledger."""
    return new_ledger(tmp_path)


def _states(ledger: Ledger) -> list[str]:
    return ledger.values(Run.select(Run.state).order_by(Run.id))


def test_migrations_and_models_agree(ledger: Ledger) -> None:
    """A ledger made by the migrations has exactly the tables, columns and indexes of the models."""
    with ledger.db.bind_ctx(TABLES):
        assert not diff_models(ledger.db, TABLES)
    names = {name for (name,) in ledger.db.execute_sql("select name from sqlite_master")}
    assert {"attempt_live", "lease_live", "run_queue", "task", "schedule", "kv"} <= names


def test_huey_finds_the_tables_it_would_have_made(ledger: Ledger) -> None:
    """The migration's queue tables are those of the installed Huey."""
    from huey.contrib.sql_huey import SqlHuey

    storage = SqlHuey("ftd", database=ledger.db, create_tables=False).storage
    models = [storage.KV, storage.Schedule, storage.Task, storage.Counter]
    assert not diff_models(ledger.db, models)


def test_every_connection_is_durable(ledger: Ledger) -> None:
    """WAL, synchronous=FULL, foreign keys, IMMEDIATE transactions."""
    assert ledger.db.pragma("journal_mode") == "wal"
    assert ledger.db.pragma("synchronous") == 2
    assert ledger.db.pragma("foreign_keys") == 1
    assert ledger.db._lock_type == "IMMEDIATE"


def test_a_newer_ledger_is_refused_politely(tmp_path: Path) -> None:
    """A schema from the future is named, not touched."""
    new_ledger(tmp_path).db.pragma("user_version", 99)
    with pytest.raises(LedgerError, match="newer ftd"):
        open_ledger(Home(tmp_path / "home"))


@pytest.mark.parametrize("content", [b"", b"not a database" * 100])
def test_a_damaged_ledger_is_never_replaced(tmp_path: Path, content: bytes) -> None:
    """A file that is no ledger is left as it is, and said so."""
    home = Home(tmp_path)
    home.ledger.write_bytes(content)
    with pytest.raises(LedgerError):
        open_ledger(home, create=True)
    assert home.ledger.read_bytes() == content


def test_a_backup_is_a_ledger(tmp_path: Path) -> None:
    """An online copy holds what was committed, while the original stays open."""
    ledger = new_ledger(tmp_path)
    enqueue(ledger, plan())
    copy = backup(Home(tmp_path / "home"), "test")
    other = tmp_path / "other"
    other.mkdir()
    copy.rename(other / "ledger.sqlite")
    assert reads.counts(open_ledger(Home(other)))["queued"] == 4


def test_creating_at_once_makes_one_ledger(tmp_path: Path) -> None:
    """Many processes that open a home that is not there yet all end with the same ledger."""
    code = (
        "import sys; from pathlib import Path; from ftd.layout import Home;"
        "from ftd.ledger.db import open_ledger;"
        "print(open_ledger(Home(Path(sys.argv[1])), create=True).db.pragma('user_version'))"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "home")]
    children = [subprocess.Popen(command, stdout=subprocess.PIPE) for _ in range(12)]
    assert {child.communicate()[0] for child in children} == {f"{SCHEMA_VERSION}\n".encode()}


def test_one_live_attempt_per_run_and_one_lease_per_device(ledger: Ledger) -> None:
    """The database itself refuses a second live attempt and a second live lease."""
    enqueue(ledger, plan())
    assert execution.start_attempt(ledger, 1, "cpu:0") is not None
    assert execution.start_attempt(ledger, 1, "cpu:1") is None, "it runs already"
    with pytest.raises(peewee.IntegrityError):
        execution.start_attempt(ledger, 2, "cpu:0")
    assert _states(ledger)[1] == "queued", "the failed claim left nothing behind"
    worker = ledger.insert(Worker, directory="x", started_at=0.0)
    with pytest.raises(peewee.IntegrityError):
        ledger.insert(Attempt, run=1, number=2, worker=worker, started_at=0.0)
    with pytest.raises(peewee.IntegrityError):
        ledger.insert(Lease, device="cpu:0", worker=worker, taken_at=0.0)


def test_states_and_wishes_are_words_the_database_knows(ledger: Ledger) -> None:
    """A state that does not exist cannot be written."""
    enqueue(ledger, plan())
    with pytest.raises(peewee.IntegrityError):
        ledger.write(Run.update(state="sleeping"))
    with pytest.raises(peewee.IntegrityError):
        ledger.write(Membership.update(wish="maybe"))


def test_the_same_spec_is_the_same_experiment(ledger: Ledger) -> None:
    """Enqueued again: same id, nothing new; a changed spec is a new revision that shares runs."""
    first = enqueue(ledger, plan())
    again = enqueue(ledger, plan())
    changed = enqueue(ledger, plan(levels=(1, 2, 3)))
    other = enqueue(ledger, plan(), owner="bob")
    assert (first.new, first.shared, first.known) == (4, 0, False)
    assert (again.id, again.new, again.shared, again.known) == (first.id, 0, 4, True)
    assert (changed.revision, changed.new, changed.shared) == (2, 2, 4)
    assert (other.revision, other.new, other.shared) == (1, 0, 4)
    assert len(reads.runs(ledger)) == 6


def test_enqueueing_again_queues_what_failed_or_was_cancelled(ledger: Ledger) -> None:
    """Done runs stay done; failed and cancelled ones are queued again."""
    enqueue(ledger, plan())
    attempt = execution.start_attempt(ledger, 1, "cpu:0")
    assert attempt is not None
    result = Result(Outcome.COMPLETED, metrics={"test/score": 1.0}, state_sha256="ab")
    execution.end_attempt(ledger, attempt, Ending(Outcome.COMPLETED, RunState.DONE, result))
    attempt = execution.start_attempt(ledger, 2, "cpu:0")
    assert attempt is not None
    execution.end_attempt(ledger, attempt, Ending(Outcome.REFUSED, RunState.FAILED, None))
    wishes.wish(ledger, [3], Wish.CANCEL, who="ann")
    assert _states(ledger) == ["done", "failed", "cancelled", "queued"]
    again = enqueue(ledger, plan())
    assert _states(ledger) == ["done", "queued", "queued", "queued"]
    assert (again.done, again.requeued) == (1, 2)


def test_ending_an_attempt_twice_changes_nothing(ledger: Ledger) -> None:
    """The second end finds no live attempt and leaves the first one's result."""
    enqueue(ledger, plan())
    attempt = execution.start_attempt(ledger, 1, "cpu:0")
    assert attempt is not None
    result = Result(Outcome.COMPLETED, metrics={"test/score": 1.0}, state_sha256="ab")
    execution.end_attempt(ledger, attempt, Ending(Outcome.COMPLETED, RunState.DONE, result))
    late = Ending(Outcome.LOST, RunState.QUEUED, None)
    assert execution.end_attempt(ledger, attempt, late) == RunState.DONE
    assert reads.runs(ledger)[0].metrics == {"test/score": 1.0}
    assert ledger.values(Lease.select(Lease.id).where(Lease.released_at.is_null())) == []


class Died(BaseException):
    """The process ends here, as far as the ledger can see."""


def die_at(monkeypatch: pytest.MonkeyPatch, where: str) -> None:
    """Let the named fault point be the last that is done."""

    def point(name: str) -> None:
        if name == where:
            raise Died

    monkeypatch.setattr(faults, "point", point)


def test_the_end_of_an_attempt_happens_wholly_or_not_at_all(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before the commit nothing has changed: neither the attempt nor its run, result and lease."""
    enqueue(ledger, plan())
    attempt = execution.start_attempt(ledger, 1, "cpu:0")
    assert attempt is not None
    result = Result(Outcome.COMPLETED, metrics={"test/score": 1.0}, state_sha256="ab")
    die_at(monkeypatch, "end.before_commit")
    with pytest.raises(Died):
        execution.end_attempt(ledger, attempt, Ending(Outcome.COMPLETED, RunState.DONE, result))
    assert execution.live_attempts(ledger) == [attempt]
    assert _states(ledger)[0] == "running"
    assert reads.runs(ledger)[0].metrics == {}
    assert ledger.values(Lease.select(Lease.released_at)) == [None]


def test_a_failed_run_fails_what_needs_it(ledger: Ledger) -> None:
    """Dependents wait while it is unfinished, and fail with its name when it fails."""
    from ftd.ledger.models import Dependency

    enqueue(ledger, plan())
    ledger.insert(Dependency, run=2, needs_run=1)
    ledger.insert(Dependency, run=3, needs_run=2)
    assert scheduling.eligible_runs(ledger, "cpu", 0.0, 9) == [1, 4]
    attempt = execution.start_attempt(ledger, 1, "cpu:0")
    assert attempt is not None
    execution.end_attempt(ledger, attempt, Ending(Outcome.REFUSED, RunState.FAILED, None))
    assert _states(ledger) == ["failed", "failed", "failed", "queued"]
    assert reads.runs(ledger)[2].error == "it needs r2, which failed"


def test_runs_of_an_unadmitted_experiment_do_not_start(ledger: Ledger) -> None:
    """Only what was pulled from the queue is scheduled."""
    from ftd.ledger.enqueue import write_plan

    found = write_plan(
        ledger, plan(), spec_text="", base="/", owner="ann", priority=0, announce=lambda _: None
    )
    assert scheduling.eligible_runs(ledger, "cpu", 0.0, 9) == []
    wishes.admit(ledger, found.id)
    assert scheduling.eligible_runs(ledger, "cpu", 0.0, 9) == [1, 2, 3, 4]


ACTIONS = st.lists(
    st.tuples(
        st.sampled_from(["wish", "retry", "start", "end", "enqueue"]),
        st.integers(1, 4),
        st.sampled_from(list(Wish)),
        st.sampled_from(list(Outcome)),
    ),
    max_size=12,
)


@settings(max_examples=40)
@given(ACTIONS)
def test_states_only_move_as_the_table_says(
    tmp_path_factory: pytest.TempPathFactory, actions: list[tuple[str, int, Wish, Outcome]]
) -> None:
    """Whatever is wished and whatever happens, every move is in MOVES and wishes are followed."""
    from ftd.config import Retries
    from ftd.daemon.retry import decide

    ledger = new_ledger(tmp_path_factory.mktemp("moves"))
    enqueue(ledger, plan())
    before = _states(ledger)
    for action, number, wanted, outcome in actions:
        if action == "wish":
            wishes.wish(ledger, [number], wanted, who="ann")
        elif action == "retry":
            wishes.retry(ledger, [number], who="ann")
        elif action == "enqueue":
            enqueue(ledger, plan())
        elif action == "start":
            execution.start_attempt(ledger, number, f"cpu:{number}")
        else:
            for live in execution.live_attempts(ledger):
                if live.run_id == number:
                    decision = decide(outcome, num_failures=0, progressed=False, retries=Retries())
                    execution.end_attempt(ledger, live, Ending(outcome, decision.state, None))
        after = _states(ledger)
        for old, new in zip(before, after, strict=True):
            path = {RunState(old)}
            for _ in range(2):  # an end settles at once: running -> queued -> held, say
                path |= {state for old_state in path for state in MOVES[old_state]}
            assert RunState(new) in path
        live_runs = {live.run_id for live in execution.live_attempts(ledger)}
        assert live_runs == {i for i, state in enumerate(after, 1) if state == "running"}
        for run, state in enumerate(after, 1):
            if state in ("queued", "held"):
                asked = ledger.values(
                    Membership.select(Membership.wish).where(Membership.run == run)
                )
                assert wished_state([Wish(word) for word in asked]) == state
        before = after
    ledger.close()


def test_retrying_takes_back_a_wish_that_is_not_yet_carried_out(ledger: Ledger) -> None:
    """A run that is still leaving after a cancel or a hold goes on when it is retried."""
    enqueue(ledger, plan(levels=(1,), replicates=2))
    members = ledger.values(Membership.select(Membership.id).order_by(Membership.id))
    for number, wish in ((1, Wish.CANCEL), (2, Wish.HOLD)):
        attempt = execution.start_attempt(ledger, number, f"cpu:{number}")
        assert attempt is not None
        wishes.wish(ledger, [members[number - 1]], wish, who="ann")
        assert wishes.retry(ledger, members, who="ann") == [number]
        (live,) = execution.live_attempts(ledger)
        assert live.wanted
        execution.end_attempt(ledger, attempt, Ending(Outcome.STOPPED, RunState.QUEUED, None))
        assert _states(ledger)[number - 1] == "queued"


def test_the_time_of_earlier_attempts_counts(ledger: Ledger) -> None:
    """A limit is for all attempts together, until it was reached; a retry then has it anew."""
    enqueue(ledger, plan(levels=(1,), replicates=1))
    lasted = {1: 10.0, 2: 20.0, 3: 5.0}
    outcomes = {1: Outcome.KILLED, 2: Outcome.TIMED_OUT, 3: Outcome.STOPPED}
    spent = []
    for number in (1, 2, 3, 4):
        attempt = execution.start_attempt(ledger, 1, "cpu:0")
        assert attempt is not None
        spent.append(attempt.spent_s)
        if number in outcomes:
            ending = Ending(outcomes[number], RunState.QUEUED, None)
            execution.end_attempt(ledger, attempt, ending)
            times = Attempt.update(started_at=100.0, ended_at=100.0 + lasted[number])
            ledger.write(times.where(Attempt.id == attempt.id))
    assert spent == [0.0, 10.0, 0.0, 5.0]


@pytest.mark.parametrize(
    ("first", "second", "counts"),
    [(10.0, 99.0, 99.0), (10.0, None, None), (99.0, 10.0, 99.0), (None, 10.0, None)],
)
def test_the_most_patient_experiment_limits_a_shared_run(
    ledger: Ledger, first: float | None, second: float | None, counts: float | None
) -> None:
    """Who asks for a known run with a longer limit gets it; nobody's run is cut shorter."""
    for name, limit_s in (("one", first), ("two", second)):
        planned = plan(name, levels=(1,), replicates=1)
        runs = tuple(replace(run, time_limit_s=limit_s) for run in planned.runs)
        enqueue(ledger, replace(planned, runs=runs))
    assert ledger.values(Run.select(Run.time_limit_s)) == [counts]


def _line(kind: str, **fields: object) -> bytes:
    return json.dumps({"t": 1.0, "kind": kind, **fields}).encode() + b"\n"


STREAM = b"".join(
    [
        _line("fingerprint", numerics={"torch": "2"}),
        *(
            _line("metric", name=f"val/{name}", value=step / 10, step=step)
            for step in range(1, 7)
            for name in ("top1", "nll")
        ),
        b"{not json}\n",
        _line("timing", name="train/images_per_s", value=9.0, step=6),
        _line("progress", step=6, num_steps=10, shown={"epoch": 1}),
        _line("checkpoint", step=6, seconds=0.1),
        _line("note", what="hello", data={"x": 1}),
        _line("metric", name="val/top1", value=float("nan"), step=7),
        _line("mystery"),
    ]
)


@settings(max_examples=30)
@given(st.lists(st.integers(0, len(STREAM)), max_size=6))
def test_a_stream_is_taken_in_once_however_it_grows(
    tmp_path_factory: pytest.TempPathFactory, cuts: list[int]
) -> None:
    """Ingesting at any moments, as often as one likes, gives the same rows as once at the end."""
    folder = tmp_path_factory.mktemp("ingest")
    ledger = new_ledger(folder)
    enqueue(ledger, plan())
    attempt = execution.start_attempt(ledger, 1, "cpu:0")
    assert attempt is not None
    path = folder / "events.jsonl"
    for end in (*sorted(cuts), len(STREAM)):
        path.write_bytes(STREAM[:end])
        ingest(ledger, attempt.id, path)
        ingest(ledger, attempt.id, path)
    rows = details.metric_rows(ledger, 1)
    assert [(r.name, r.step, r.value) for r in rows] == [
        (f"val/{name}", step, step / 10) for name in ("nll", "top1") for step in range(1, 7)
    ]
    (found,) = details.run_details(ledger, 1)["attempts"]
    assert (found["step"], found["checkpoint_step"], found["numerics"]) == (6, 6, {"torch": "2"})
    kinds = [event["kind"] for event in details.run_details(ledger, 1)["history"]]
    assert sorted(kinds) == sorted(["attempt started", "hello", *["unreadable event"] * 3])
    ledger.close()


def test_lines_and_the_offset_behind_them_stand_or_fall_together(
    ledger: Ledger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before the commit neither is there; done again, every line is taken in once."""
    enqueue(ledger, plan())
    attempt = execution.start_attempt(ledger, 1, "cpu:0")
    assert attempt is not None
    path = tmp_path / "events.jsonl"
    path.write_bytes(STREAM)
    with monkeypatch.context() as patched:
        die_at(patched, "ingest.before_commit")
        with pytest.raises(Died):
            ingest(ledger, attempt.id, path)
    assert execution.live_attempts(ledger) == [attempt]
    assert details.metric_rows(ledger, 1) == []
    assert ingest(ledger, attempt.id, path) == len(STREAM.splitlines())
    assert len(details.metric_rows(ledger, 1)) == 12


def test_a_resumed_attempt_replaces_what_it_will_write_again(
    ledger: Ledger, tmp_path: Path
) -> None:
    """Rows beyond the step that was resumed from go; those before it stay."""
    enqueue(ledger, plan())
    for resumed, values in ((None, {1: 0.1, 2: 0.2, 3: 0.3, 4: 0.4}), (2, {3: 0.33})):
        attempt = execution.start_attempt(ledger, 1, "cpu:0")
        assert attempt is not None
        path = tmp_path / f"{attempt.number}.jsonl"
        lines = [_line("resumed", step=resumed)] if resumed is not None else []
        lines += [_line("metric", name="val/a", value=v, step=s) for s, v in values.items()]
        path.write_bytes(b"".join(lines))
        ingest(ledger, attempt.id, path)
        execution.end_attempt(ledger, attempt, Ending(Outcome.KILLED, RunState.QUEUED, None))
    rows = [(row.step, row.value, row.attempt) for row in details.metric_rows(ledger, 1)]
    assert rows == [(1, 0.1, 1), (2, 0.2, 1), (3, 0.33, 2)]


DAMAGED = [
    b'{"t": 1, "kind": "progress", "step": 1e999, "num_steps": 3}',
    b'{"t": 1, "kind": "progress", "step": 99999999999999999999, "num_steps": 3}',
    b'{"t": "nan", "kind": "progress", "step": 1, "num_steps": 3}',
    b'{"t": 1, "kind": "metric", "name": "val/x", "value": 1, "step": 99999999999999999999}',
    b'{"t": 1, "kind": "metric", "name": "val/\\ud800", "value": 1, "step": 1}',
    b'{"t": 1, "kind": "note", "what": "\xed\xa0\x80"}',
    b'{"t": 1, "kind": "checkpoint", "step": 1, "seconds": NaN}',
    b"[" * 100_000,
    b"[1, 2]",
    b"",
    b"\xff\xfe",
]


@pytest.mark.parametrize("line", DAMAGED, ids=range(len(DAMAGED)))
def test_a_damaged_event_is_recorded_and_passed_over(
    ledger: Ledger, tmp_path: Path, line: bytes
) -> None:
    """Whatever a line holds, ingest goes on behind it, and what is shown stays JSON and UTF-8."""
    enqueue(ledger, plan())
    attempt = execution.start_attempt(ledger, 1, "cpu:0")
    assert attempt is not None
    path = tmp_path / "events.jsonl"
    path.write_bytes(line + b"\n" + _line("metric", name="val/a", value=0.5, step=1))
    ingest(ledger, attempt.id, path)
    assert [row.value for row in details.metric_rows(ledger, 1)] == [0.5]
    found = details.run_details(ledger, 1)
    assert "unreadable event" in [event["kind"] for event in found["history"]]
    json.dumps(found, allow_nan=False, ensure_ascii=False).encode()


def test_a_number_that_is_none_is_shown_as_a_word(ledger: Ledger, tmp_path: Path) -> None:
    """A diverged loss among what a job shows neither hides its progress nor breaks the JSON."""
    enqueue(ledger, plan())
    attempt = execution.start_attempt(ledger, 1, "cpu:0")
    assert attempt is not None
    path = tmp_path / "events.jsonl"
    shown = {"loss": float("nan"), "norm": float("inf")}
    path.write_bytes(_line("progress", step=3, num_steps=9, shown=shown))
    ingest(ledger, attempt.id, path)
    (row,) = activity.running(ledger)
    assert row.step == 3
    assert (row.progress["loss"], row.progress["norm"]) == ("NaN", "Infinity")
