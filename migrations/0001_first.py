"""The first schema: experiments, runs, their execution, and Huey's tables beside them.

A frozen copy of the models of that day; never edit it, add a migration instead.
"""

from peewee import (
    SQL,
    AutoField,
    BlobField,
    BooleanField,
    CharField,
    CompositeKey,
    FloatField,
    ForeignKeyField,
    IntegerField,
    Model,
    TextField,
    TimestampField,
)


def one_of(column, words):
    listed = ", ".join(f"'{word}'" for word in words.split())
    return SQL(f"CHECK ({column} IN ({listed}))")


def up(migrator, db):
    db.create_tables([*ledger_tables(db), *queue_tables(db)], safe=False)


def ledger_tables(db):
    class Table(Model):
        class Meta:
            database = db
            legacy_table_names = False

    class Experiment(Table):
        id = AutoField()
        name = TextField()
        owner = TextField()
        revision = IntegerField()
        job = TextField()
        spec_text = TextField()
        spec_digest = TextField()
        base = TextField()
        primary_metric = TextField()
        submitted_at = FloatField()
        admitted_at = FloatField(null=True)

        class Meta:
            indexes = (
                (("owner", "name", "revision"), True),
                (("owner", "name", "spec_digest"), True),
            )

    class Run(Table):
        id = AutoField()
        key = TextField(unique=True)
        job = TextField()
        job_version = IntegerField()
        params = TextField()
        seeds = TextField()
        numerics = TextField()
        threads = IntegerField()
        device_kind = TextField()
        inputs = TextField()
        versions = TextField()
        time_limit_s = FloatField(null=True)
        state = TextField(
            constraints=[one_of("state", "queued running held done failed cancelled")]
        )
        priority = IntegerField(default=0)
        created_at = FloatField()
        not_before = FloatField(null=True)
        num_failures = IntegerField(default=0)
        metrics = TextField(null=True)
        flags = TextField(null=True)
        state_sha256 = TextField(null=True)
        approximate = TextField(null=True)
        error = TextField(null=True)
        ended_at = FloatField(null=True, index=True)

    Run.add_index(Run.index(Run.state, Run.priority.desc(), Run.id, name="run_queue"))

    class Membership(Table):
        id = AutoField()
        experiment = ForeignKeyField(Experiment, index=False)
        run = ForeignKeyField(Run)
        cell = IntegerField()
        replicate = IntegerField()
        factors = TextField()
        priority = IntegerField(default=0)
        wish = TextField(constraints=[one_of("wish", "run hold cancel")])
        wished_by = TextField()
        wished_at = FloatField()
        wished_why = TextField(default="")

        class Meta:
            indexes = ((("experiment", "cell", "replicate"), True),)

    class Dependency(Table):
        run = ForeignKeyField(Run, index=False)
        needs_run = ForeignKeyField(Run)

        class Meta:
            primary_key = False
            indexes = ((("run", "needs_run"), True),)

    class Worker(Table):
        id = AutoField()
        directory = TextField(unique=True)
        boot_id = TextField(null=True)
        pid = IntegerField(null=True)
        start_ticks = IntegerField(null=True)
        started_at = FloatField()
        ended_at = FloatField(null=True)

    class Lease(Table):
        id = AutoField()
        device = TextField()
        worker = ForeignKeyField(Worker)
        taken_at = FloatField()
        released_at = FloatField(null=True)

    Lease.add_index(
        Lease.index(Lease.device, unique=True, where=Lease.released_at.is_null(), name="lease_live")
    )

    class Attempt(Table):
        id = AutoField()
        run = ForeignKeyField(Run, index=False)
        number = IntegerField()
        worker = ForeignKeyField(Worker)
        outcome = TextField(
            null=True,
            constraints=[
                one_of(
                    "outcome",
                    "completed failed refused stopped timed_out out_of_memory killed lost",
                )
            ],
        )
        started_at = FloatField()
        ended_at = FloatField(null=True)
        resumed_from_step = IntegerField(null=True)
        step = IntegerField(default=0)
        checkpoint_step = IntegerField(null=True)
        num_steps = IntegerField(null=True)
        progress = TextField(null=True)
        fingerprint = TextField(null=True)
        events_offset = IntegerField(default=0)
        stop_why = TextField(null=True)
        stop_requested_at = FloatField(null=True)
        exit_status = IntegerField(null=True)
        error = TextField(null=True)

        class Meta:
            indexes = ((("run", "number"), True),)

    Attempt.add_index(
        Attempt.index(
            Attempt.run, unique=True, where=Attempt.outcome.is_null(), name="attempt_live"
        )
    )

    class Metric(Table):
        run = ForeignKeyField(Run, index=False)
        name = TextField()
        split = TextField()
        step = IntegerField()
        attempt = IntegerField()
        value = FloatField()

        class Meta:
            primary_key = False
            indexes = ((("run", "name", "split", "step"), True),)

    class Timing(Table):
        run = ForeignKeyField(Run, index=False)
        attempt = IntegerField()
        name = TextField()
        step = IntegerField()
        value = FloatField()

        class Meta:
            primary_key = False
            indexes = ((("run", "name", "step"), False),)

    class Event(Table):
        id = AutoField()
        at = FloatField()
        kind = TextField()
        who = TextField(default="daemon")
        experiment = ForeignKeyField(Experiment, null=True)
        run = ForeignKeyField(Run, null=True)
        attempt = IntegerField(null=True)
        data = TextField(null=True)

    class Artifact(Table):
        run = ForeignKeyField(Run, index=False)
        attempt = IntegerField()
        name = TextField()
        num_bytes = IntegerField()
        sha256 = TextField()

        class Meta:
            primary_key = False
            indexes = ((("run", "name"), True),)

    class Device(Table):
        id = TextField(primary_key=True, constraints=[SQL("NOT NULL")])
        kind = TextField()
        name = TextField()
        memory_bytes = IntegerField(null=True)
        state = TextField()
        detail = TextField(default="")
        present = BooleanField(default=True)
        seen_at = FloatField()

    return [
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
    ]


def queue_tables(db):
    """The tables that huey.contrib.sql_huey.SqlHuey (3.5) works on."""

    class Queue(Model):
        class Meta:
            database = db

    class KV(Queue):
        queue = CharField()
        key = CharField()
        value = BlobField()

        class Meta:
            primary_key = CompositeKey("queue", "key")

    class Schedule(Queue):
        queue = CharField()
        data = BlobField()
        timestamp = TimestampField(resolution=1000)

        class Meta:
            indexes = ((("queue", "timestamp"), False),)

    class Task(Queue):
        queue = CharField()
        data = BlobField()
        priority = FloatField(default=0.0)

    Task.add_index(Task.priority.desc(), Task.id)

    class Counter(Queue):
        queue = CharField()
        key = CharField()
        value = IntegerField()

        class Meta:
            primary_key = CompositeKey("queue", "key")

    return [KV, Schedule, Task, Counter]
