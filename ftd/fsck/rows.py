"""Checks of the ledger's rows: states, wishes, attempts, leases, results, announcements."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from ftd.daemon.evidence import Over, examine
from ftd.daemon.queue import Queue
from ftd.daemon.submit import asking_user
from ftd.errors import FtdError
from ftd.fsck.problem import Problem
from ftd.layout import Home
from ftd.ledger import invariants, mending
from ftd.ledger.db import Ledger
from ftd.ledger.health import broken_references
from ftd.ledger.invariants import StrayAttempt
from ftd.process import alive
from ftd.states import ENDED


def references(home: Home, ledger: Ledger) -> Iterator[Problem]:
    """Rows that point at rows which do not exist."""
    for text in broken_references(ledger):
        yield Problem("ledger.sqlite", text, "Restore a backup; see docs/reliability.md")


def executing(home: Home, ledger: Ledger) -> Iterator[Problem]:
    """Runs that are said to execute although no attempt of theirs is live."""
    for run_id in invariants.running_without_attempt(ledger):
        yield Problem(
            f"r{run_id}",
            "is said to execute, but no attempt of it is live: it would never go on",
            "is queued again, or held or cancelled as wished",
            partial(mending.put_back, ledger, run_id, who=asking_user()),
        )


def attempts(home: Home, ledger: Ledger) -> Iterator[Problem]:
    """Live attempts that a daemon could not follow."""
    for stray in invariants.stray_attempts(ledger):
        where = f"r{stray.run_id}, attempt {stray.number}"
        if stray.leased and stray.run_state not in ENDED:
            yield Problem(
                where,
                f"has not ended, but the run is {stray.run_state}",
                "is marked as executing; a daemon then finds out how it ended",
                partial(mending.mark_running, ledger, stray, who=asking_user()),
            )
            continue
        why = f"the run is {stray.run_state}" if stray.leased else "it holds no device"
        gone = stray.identity is None or not alive(stray.identity)
        yield Problem(
            where,
            f"has not ended, but {why}: no daemon would follow it",
            "is ended as lost" if gone else "Its worker still runs: wait until it has ended",
            partial(_close, home, ledger, stray) if gone else None,
        )


def _close(home: Home, ledger: Ledger, stray: StrayAttempt) -> None:
    """End an attempt on proof that its worker is gone for good."""
    directory = home.attempt(stray.run_id, stray.number)
    found = examine(directory, home.run_lock(stray.run_id), stray.identity)
    if not isinstance(found, Over):
        raise FtdError(f"something still holds {home.run_lock(stray.run_id)}")
    mending.close_attempt(ledger, stray, who=asking_user())


def leases(home: Home, ledger: Ledger) -> Iterator[Problem]:
    """Devices that are held for workers which execute nothing."""
    for lease in invariants.stray_leases(ledger):
        yield Problem(
            lease.device,
            f"is leased to the worker in {lease.worker}, whose attempt has ended",
            "is given back",
            partial(mending.release_lease, ledger, lease, who=asking_user()),
        )


def wishes(home: Home, ledger: Ledger) -> Iterator[Problem]:
    """Waiting runs that do not stand where their memberships wish them."""
    for run_id, state, wished in invariants.against_wishes(ledger):
        text = (
            "has not the priority that it is wished to have"
            if state == wished
            else f"is {state}, but is wished to be {wished}"
        )
        mend = partial(mending.resettle, ledger, run_id, who=asking_user())
        yield Problem(f"r{run_id}", text, "is put where it is wished", mend)


def results(home: Home, ledger: Ledger) -> Iterator[Problem]:
    """Runs that are done without all that belongs to a result."""
    for run_id in invariants.done_without_result(ledger):
        yield Problem(
            f"r{run_id}",
            "is done, but has no metrics, no state digest or no completed attempt",
            "Do not trust it: enqueue its spec with --fresh",
        )


def announcements(home: Home, ledger: Ledger) -> Iterator[Problem]:
    """Experiments that no daemon will ever hear of."""
    queue = Queue(ledger)
    with ledger.snapshot():  # a daemon may be pulling
        unheard = set(invariants.unadmitted(ledger)) - queue.announced()
    for experiment in sorted(unheard):
        yield Problem(
            f"e{experiment}",
            "is neither admitted nor in the queue: its runs would wait for ever",
            "is put into the queue again",
            partial(queue.put, experiment),
        )


def places(home: Home, ledger: Ledger) -> Iterator[Problem]:
    """Runs without a place in any experiment."""
    for run_id in invariants.without_memberships(ledger):
        yield Problem(
            f"r{run_id}",
            "belongs to no experiment: nobody can ask for it",
            "Restore a backup; see docs/reliability.md",
        )
