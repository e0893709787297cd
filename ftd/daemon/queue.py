"""The queue: Huey, inside the ledger's own database.  The only module that imports huey.

``enqueue`` puts its message in the transaction that writes the experiment; the daemon dequeues and
admits in one transaction as well.  A kill between the two therefore brings the message back: Huey's
at-most-once becomes exactly-once.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from huey.contrib.sql_huey import SqlHuey
from huey.exceptions import HueyException
from huey.registry import Message
from huey.serializer import Serializer

from ftd import faults
from ftd.ledger.db import Ledger
from ftd.ledger.execution import record

MALFORMED = (ValueError, TypeError, RecursionError, HueyException)  # not a message of ours


class PlainSerializer(Serializer):  # type: ignore[misc]
    """Messages as JSON: id, name and arguments, nothing else.

    Huey's default is pickle, with which whoever can write the queue could run code in the daemon.
    """

    def _serialize(self, message: Message) -> bytes:
        return json.dumps(
            {"id": message.id, "name": message.name, "args": list(message.args)}
        ).encode()

    def _deserialize(self, data: bytes) -> Message:
        value = json.loads(data)
        if not isinstance(value, dict) or set(value) != {"id", "name", "args"}:
            raise ValueError("not a message of ftd's")
        if not isinstance(value["name"], str) or not _is_one_id(value["args"]):
            raise ValueError("not a message of ftd's")
        return Message(
            id=str(value["id"]),
            name=value["name"],
            args=tuple(value["args"]),
            kwargs={},
            retries=0,
            retry_delay=0,
        )


def _is_one_id(args: object) -> bool:
    """Whether a message is about one experiment: all of ours are."""
    match args:
        case [int(number)]:
            return 0 < number < 1 << 63
        case _:
            return False


class Queue:
    """Messages between whoever enqueues and the daemon."""

    def __init__(self, ledger: Ledger, admit: Callable[[int], None] | None = None) -> None:
        """`admit(experiment id)` handles a message; only the daemon gives one."""
        self._ledger = ledger
        self._huey = SqlHuey(
            "ftd",
            database=ledger.db,
            create_tables=False,
            results=False,
            serializer=PlainSerializer(),
        )
        self._failure: Exception | None = None

        def handle(experiment: int) -> None:
            try:
                if admit is not None:
                    with ledger.transaction():
                        admit(experiment)
            except Exception as error:  # Huey would log and swallow it, and the message be lost
                self._failure = error

        self._admit = self._huey.task(name="admit")(handle)

    def put(self, experiment: int) -> None:
        """Announce an experiment; part of the caller's transaction."""
        self._admit(experiment)

    def size(self) -> int:
        """Number of messages waiting; a plain read that takes no write lock."""
        return int(self._huey.storage.queue_size())

    def announced(self) -> set[int]:
        """The experiments that messages waiting in the queue are about."""
        found = set()
        for data in self._huey.storage.enqueued_items():
            try:
                found.update(self._huey.deserialize_task(data).args)
            except MALFORMED:
                continue
        return found

    def pull(self) -> bool:
        """Handle the next message, exactly once; False when there is none.

        A message that is not one of ours is recorded and dropped.  When handling fails, everything
        is rolled back, the message stays, and the error is raised.
        """
        if not self.size():
            return False
        with self._ledger.transaction():
            data = self._huey.storage.dequeue()
            if data is None:
                return False
            faults.point("pull.dequeued")
            try:
                task = self._huey.deserialize_task(data)
            except MALFORMED as error:
                self._refuse(data, error)
                return True
            self._failure = None
            self._huey.execute(task)
            if self._failure is not None:
                raise self._failure
            faults.point("pull.admitted")
        faults.point("pull.committed")
        return True

    def _refuse(self, data: Any, error: Exception) -> None:
        shown = bytes(data)[:100].decode("ascii", errors="backslashreplace")
        record(self._ledger, "message refused", data={"start": shown, "error": str(error)})
