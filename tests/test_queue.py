"""The queue inside the ledger: exactly once, and nothing in it is ever executed."""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import peewee
import pytest

from ftd.daemon.queue import Queue
from ftd.ledger import wishes
from ftd.ledger.db import Ledger
from ftd.ledger.models import Event, Experiment
from tests.ledgers import new_ledger, plan


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    """A new ledger."""
    return new_ledger(tmp_path)


def _enqueue(ledger: Ledger, name: str = "study") -> int:
    from ftd.ledger.enqueue import write_plan

    return write_plan(
        ledger,
        plan(name),
        spec_text="",
        base="/",
        owner="ann",
        priority=0,
        announce=Queue(ledger).put,
    ).id


def _admitted(ledger: Ledger) -> list[int]:
    return ledger.values(
        Experiment.select(Experiment.id).where(Experiment.admitted_at.is_null(False))
    )


def _put_raw(ledger: Ledger, data: bytes) -> None:
    ledger.db.execute_sql("insert into task (queue, data, priority) values ('ftd', ?, 9)", (data,))


def test_a_message_is_pulled_and_admitted_once(ledger: Ledger) -> None:
    """What was enqueued is admitted by the first pull; the next finds nothing."""
    experiment = _enqueue(ledger)
    queue = Queue(ledger, admit=lambda found: wishes.admit(ledger, found))
    assert _admitted(ledger) == []
    assert queue.pull()
    assert _admitted(ledger) == [experiment]
    assert not queue.pull()


def test_a_rolled_back_enqueue_leaves_no_message(ledger: Ledger) -> None:
    """Experiment, runs and message stand or fall together."""
    with pytest.raises(RuntimeError), ledger.transaction():
        _enqueue(ledger)
        raise RuntimeError("killed before the commit")
    assert Queue(ledger).size() == 0
    assert ledger.values(Experiment.select(Experiment.id)) == []


def test_a_failing_admission_brings_the_message_back(ledger: Ledger) -> None:
    """An error while admitting undoes the dequeue too, although Huey swallows errors."""
    experiment = _enqueue(ledger)

    def fail(found: int) -> None:
        wishes.admit(ledger, found)
        raise peewee.OperationalError("disk full")

    with pytest.raises(peewee.OperationalError):
        Queue(ledger, admit=fail).pull()
    assert _admitted(ledger) == []
    assert Queue(ledger, admit=lambda found: wishes.admit(ledger, found)).pull()
    assert _admitted(ledger) == [experiment]


def test_a_planted_pickle_is_not_run(ledger: Ledger, tmp_path: Path) -> None:
    """A pickle in the queue is refused, recorded and dropped; what is behind it goes on."""
    proof = tmp_path / "executed"

    class Bomb:
        def __reduce__(self) -> tuple[object, ...]:
            return os.mkdir, (str(proof),)

    experiment = _enqueue(ledger)
    _put_raw(ledger, pickle.dumps(Bomb()))
    queue = Queue(ledger, admit=lambda found: wishes.admit(ledger, found))
    while queue.pull():
        pass
    assert not proof.exists()
    assert ledger.values(Event.select(Event.kind)) == ["message refused"]
    assert _admitted(ledger) == [experiment]


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xff\xfe",
        b"[]",
        b"{}",
        b'{"id": "1", "name": "os.system", "args": ["true"]}',
        b'{"id": "1", "name": "ftd.daemon.queue.admit", "args": 3}',
        b'{"id": "1", "name": ["x"], "args": []}',
        b"[" * 100_000,
    ],
    ids=range(8),
)
def test_a_message_that_is_not_ours_is_dropped(ledger: Ledger, data: bytes) -> None:
    """Nothing unreadable stays in the way or stops the daemon."""
    _put_raw(ledger, data)
    queue = Queue(ledger, admit=lambda found: wishes.admit(ledger, found))
    assert queue.pull()
    assert not queue.pull()
    assert ledger.values(Event.select(Event.kind)) == ["message refused"]


def test_a_message_for_no_experiment_changes_nothing(ledger: Ledger) -> None:
    """An id that nothing has, or that is no id, is harmless."""
    for argument in (b"99", b'"x"', b"null", b"[1]"):
        _put_raw(ledger, b'{"id": "1", "name": "ftd.daemon.queue.admit", "args": [%s]}' % argument)
    queue = Queue(ledger, admit=lambda found: wishes.admit(ledger, found))
    while queue.pull():
        pass
    assert _admitted(ledger) == []
