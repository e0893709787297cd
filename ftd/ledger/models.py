"""The ledger's tables.  Every invariant that can be an index is one.

Models are not bound to a database: each query is executed on the ledger it is meant for, so that a
process may hold several ledgers.  ``migrations/`` holds frozen copies; a test compares the two.
"""

from __future__ import annotations

import json
from enum import StrEnum
from typing import Any

from peewee import (
    SQL,
    AutoField,
    BooleanField,
    FloatField,
    ForeignKeyField,
    IntegerField,
    Model,
    TextField,
)

from ftd.states import Outcome, RunState, Wish


def one_of(column: str, values: type[StrEnum]) -> SQL:
    """A CHECK that `column` holds one of the enum's words (NULL passes, as in SQL)."""
    words = ", ".join(f"'{value}'" for value in values)
    return SQL(f"CHECK ({column} IN ({words}))")


_encode = json.JSONEncoder(separators=(",", ":")).encode  # made once: dumps would at every call


class JSONText(TextField):
    """A JSON value kept as text."""

    def db_value(self, value: Any) -> str | None:
        return None if value is None else _encode(value)

    def python_value(self, value: str | None) -> Any:
        return None if value is None else json.loads(value)


class Table(Model):
    class Meta:
        legacy_table_names = False


class Experiment(Table):
    """A revision of a named spec.  Admitted once the daemon pulled its message from the queue."""

    id = AutoField()
    name = TextField()
    owner = TextField()
    revision = IntegerField()
    job = TextField()
    spec_text = TextField()
    spec_digest = TextField()
    base = TextField()  # folder that the spec's relative paths start from
    primary_metric = TextField()
    outline = JSONText(null=True)  # ftd.outline.Outline; NULL: plain factors and replicates
    request = JSONText(null=True)  # what besides spec_text and base makes it again
    submitted_at = FloatField()
    admitted_at = FloatField(null=True)

    class Meta:
        indexes = (
            (("owner", "name", "revision"), True),
            (("owner", "name", "spec_digest"), True),
        )


class Run(Table):
    """A cell x replicate x candidate as executed; its key hashes all that its result depends on."""

    id = AutoField()
    key = TextField(unique=True)
    job = TextField()
    job_version = IntegerField()
    params = JSONText()
    seeds = JSONText()
    numerics = TextField()
    threads = IntegerField()
    device_kind = TextField()
    inputs = JSONText()
    versions = JSONText()
    time_limit_s = FloatField(null=True)
    state = TextField(constraints=[one_of("state", RunState)])
    priority = IntegerField(default=0)  # the highest that a membership wanting it has
    created_at = FloatField()
    not_before = FloatField(null=True)  # back-off: not started earlier
    num_failures = IntegerField(default=0)  # in a row, of one outcome, without progress
    metrics = JSONText(null=True)
    flags = JSONText(null=True)
    state_sha256 = TextField(null=True)
    approximate = TextField(null=True)  # why its numbers may differ from an uninterrupted run's
    error = TextField(null=True)
    ended_at = FloatField(null=True, index=True)


Run.add_index(Run.index(Run.state, Run.priority.desc(), Run.id, name="run_queue"))


class Membership(Table):
    """A run's place in an experiment, and what that experiment wishes of it."""

    id = AutoField()
    experiment = ForeignKeyField(Experiment, backref="memberships", index=False)
    run = ForeignKeyField(Run, backref="memberships")
    cell = IntegerField()
    replicate = IntegerField()
    candidate = IntegerField(default=0, constraints=[SQL("DEFAULT 0")])  # 0 where nothing is tuned
    factors = JSONText()
    tuned = JSONText(null=True)  # the candidate's levels
    priority = IntegerField(default=0)
    wish = TextField(constraints=[one_of("wish", Wish)])
    wished_by = TextField()
    wished_at = FloatField()
    wished_why = TextField(default="")

    class Meta:
        indexes = ((("experiment", "cell", "replicate", "candidate"), True),)


class Dependency(Table):
    """A run that can only start once another is done."""

    run = ForeignKeyField(Run, backref="needs", index=False)
    needs_run = ForeignKeyField(Run, backref="needed_by")

    class Meta:
        primary_key = False
        indexes = ((("run", "needs_run"), True),)


class Worker(Table):
    """A process that executes attempts; its identity is known once it was spawned."""

    id = AutoField()
    directory = TextField(unique=True)
    boot_id = TextField(null=True)
    pid = IntegerField(null=True)
    start_ticks = IntegerField(null=True)
    started_at = FloatField()
    ended_at = FloatField(null=True)


class Lease(Table):
    """A worker's hold on a device; one live lease per device."""

    id = AutoField()
    device = TextField()
    worker = ForeignKeyField(Worker, backref="leases")
    taken_at = FloatField()
    released_at = FloatField(null=True)


Lease.add_index(
    Lease.index(Lease.device, unique=True, where=Lease.released_at.is_null(), name="lease_live")
)


class Attempt(Table):
    """One try to finish a run; one live attempt per run."""

    id = AutoField()
    run = ForeignKeyField(Run, backref="attempts", index=False)
    number = IntegerField()
    worker = ForeignKeyField(Worker, backref="attempts")
    outcome = TextField(null=True, constraints=[one_of("outcome", Outcome)])
    started_at = FloatField()
    ended_at = FloatField(null=True)
    resumed_from_step = IntegerField(null=True)
    step = IntegerField(default=0)
    checkpoint_step = IntegerField(null=True)
    num_steps = IntegerField(null=True)
    progress = JSONText(null=True)
    fingerprint = JSONText(null=True)
    events_offset = IntegerField(default=0)
    stop_why = TextField(null=True)
    stop_requested_at = FloatField(null=True)
    exit_status = IntegerField(null=True)
    error = TextField(null=True)

    class Meta:
        indexes = ((("run", "number"), True),)


Attempt.add_index(
    Attempt.index(Attempt.run, unique=True, where=Attempt.outcome.is_null(), name="attempt_live")
)


class Metric(Table):
    """A reproducible number: split/name at a step."""

    run = ForeignKeyField(Run, backref="metric_rows", index=False)
    name = TextField()
    split = TextField()
    step = IntegerField()
    attempt = IntegerField()
    value = FloatField()

    class Meta:
        primary_key = False
        indexes = ((("run", "name", "split", "step"), True),)


class Timing(Table):
    """A duration or rate; never part of an equality."""

    run = ForeignKeyField(Run, backref="timing_rows", index=False)
    attempt = IntegerField()
    name = TextField()
    step = IntegerField()
    value = FloatField()

    class Meta:
        primary_key = False
        indexes = ((("run", "name", "step"), False),)


class Event(Table):
    """What happened, to whom, and by whom."""

    id = AutoField()
    at = FloatField()
    kind = TextField()
    who = TextField(default="daemon")
    experiment = ForeignKeyField(Experiment, backref="events", null=True)
    run = ForeignKeyField(Run, backref="events", null=True)
    attempt = IntegerField(null=True)
    data = JSONText(null=True)


class Artifact(Table):
    """A file that a run keeps, relative to its attempt's directory."""

    run = ForeignKeyField(Run, backref="artifacts", index=False)
    attempt = IntegerField()
    name = TextField()
    num_bytes = IntegerField()
    sha256 = TextField()

    class Meta:
        primary_key = False
        indexes = ((("run", "name"), True),)


class Device(Table):
    """A device as last seen by the daemon; GPUs are never forgotten."""

    id = TextField(primary_key=True, constraints=[SQL("NOT NULL")])
    kind = TextField()
    name = TextField()
    memory_bytes = IntegerField(null=True)
    state = TextField()  # free, leased, external, unknown, missing
    detail = TextField(default="")
    present = BooleanField(default=True)
    seen_at = FloatField()


TABLES: tuple[type[Table], ...] = (
    Experiment,
    Run,
    Membership,
    Dependency,
    Worker,
    Lease,
    Attempt,
    Metric,
    Timing,
    Event,
    Artifact,
    Device,
)
