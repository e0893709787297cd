"""Identity of processes: the same pid is not the same process."""

from __future__ import annotations

import os
import signal
import subprocess
from dataclasses import replace

from ftd import process


def test_a_living_process_is_recognised_and_a_dead_one_is_not() -> None:
    """An identity holds from birth to death, a zombie counts as dead."""
    child = subprocess.Popen(["sleep", "60"])
    identity = process.identity_of(child.pid)
    assert identity is not None
    assert process.alive(identity)
    assert process.send_signal(identity, signal.SIGKILL)
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)  # dead, not yet reaped
    assert not process.alive(identity)
    child.wait()
    assert not process.alive(identity)


def test_a_stranger_with_our_pid_is_never_signalled() -> None:
    """Other start ticks or another boot mean another process, which is left alone."""
    child = subprocess.Popen(["sleep", "60"], start_new_session=True)
    try:
        identity = process.identity_of(child.pid)
        assert identity is not None
        for stranger in (
            replace(identity, start_ticks=identity.start_ticks - 1),
            replace(identity, boot_id="another"),
        ):
            assert not process.send_signal(stranger, signal.SIGKILL)
            assert not process.kill_session(stranger)
            assert process.open_pidfd(stranger) is None
        assert child.poll() is None
    finally:
        child.kill()
        child.wait()


def test_only_a_group_of_its_own_is_killed() -> None:
    """A process that shares our group is not killed as a session."""
    child = subprocess.Popen(["sleep", "60"])
    try:
        identity = process.identity_of(child.pid)
        assert identity is not None
        assert not process.kill_session(identity)
        assert child.poll() is None
    finally:
        child.kill()
        child.wait()


def test_age_counts_from_the_start() -> None:
    """A process just started is younger than this one."""
    child = subprocess.Popen(["sleep", "60"])
    try:
        identity = process.identity_of(child.pid)
        assert identity is not None
        assert -1 < process.age_s(identity) <= process.age_s(process.own_identity()) + 1
    finally:
        child.kill()
        child.wait()
