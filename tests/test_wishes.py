"""Cancel, hold, release, retry, priorities, limits and the circuit breaker on a real daemon."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.homes import LiveHome, serving

LONG = """
experiment: long
job: drill
steps: 2000
step_s: 0.02
"""


@pytest.fixture
def home(tmp_path: Path) -> LiveHome:
    """A home with one CPU slot."""
    return LiveHome(tmp_path / "home", slots=1)


def test_a_running_run_is_cancelled_and_retried_from_its_checkpoint(home: LiveHome) -> None:
    """Cancel: it checkpoints and leaves; retry: it goes on where it left."""
    home.enqueue(LONG)
    with serving(home):
        home.until_step(3)
        assert home.ftd("cancel", "long").returncode == 0
        home.until_states("cancelled")
        (attempt,) = home.json("show", "r1")["attempts"]
        assert attempt["outcome"] == "stopped"
        assert attempt["stop_why"] == "cancel"
        assert not home.workers()
        assert home.ftd("retry", "r1").returncode == 0
        home.until(lambda: len(home.json("show", "r1")["attempts"]) == 2, "it runs again")
        home.until(
            lambda: home.json("show", "r1")["attempts"][1]["resumed_from_step"] or 0,
            "it resumed",
        )
        assert home.json("show", "r1")["attempts"][1]["resumed_from_step"] >= 3


def test_hold_and_release(home: LiveHome) -> None:
    """Held runs stand still, with who and why; released ones go on."""
    home.enqueue(LONG.replace("2000", "30"))
    assert home.ftd("hold", "long", "--why", "camera broken").returncode == 0
    assert home.finish() == 0
    assert home.states() == ["held"]
    (waiting,) = home.json("status")["queued"]
    assert "camera broken" in waiting["reason"]
    assert home.ftd("release", "long").returncode == 0
    assert home.finish() == 0
    assert home.states() == ["done"]


def test_a_shared_run_stops_only_when_nobody_wants_it(home: LiveHome) -> None:
    """Two experiments share a run: cancelling one leaves it to the other."""
    home.enqueue(LONG.replace("2000", "40"))
    shared = home.enqueue(LONG.replace("2000", "40").replace("long", "also"))
    assert shared["shared"] == 1
    assert shared["new"] == 0
    with serving(home):
        home.until_step(3)
        home.ftd("cancel", "long")
        home.until_states("done")
    (run,) = home.runs()
    assert run["attempts"] == 1
    assert run["experiments"] == ["long", "also"]


def test_priorities_decide_the_order(home: LiveHome) -> None:
    """The run with the higher priority starts first, whoever came first."""
    home.enqueue(LONG.replace("2000", "2").replace("long", "low"))
    home.enqueue(LONG.replace("2000", "3").replace("long", "high"), "--priority", "5")
    home.enqueue(LONG.replace("2000", "4").replace("long", "later"))
    home.ftd("prioritise", "later", "9")
    assert home.finish() == 0
    started = [home.json("show", run)["attempts"][0]["started_at"] for run in ("r3", "r2", "r1")]
    assert started == sorted(started)


def test_a_time_limit_ends_a_run(home: LiveHome) -> None:
    """A run over its limit checkpoints, leaves and fails as timed out."""
    home.enqueue(LONG + "limits: {time_s: 1.0}\n")
    assert home.finish() == 1
    (run,) = home.runs()
    assert run["state"] == "failed"
    (attempt,) = home.json("show", "r1")["attempts"]
    assert attempt["outcome"] == "timed_out"
    assert attempt["checkpoint_step"] > 0


def test_a_worker_that_ignores_the_request_is_killed(tmp_path: Path) -> None:
    """After the grace the worker's own process group is killed; the run counts as cancelled."""
    home = LiveHome(tmp_path / "home", slots=1, grace_s=0.3)
    home.enqueue(LONG.replace("0.02", "30.0"))  # one step outlasts any patience
    with serving(home):
        home.until(home.workers, "a worker runs")
        home.ftd("cancel", "long")
        home.until_states("cancelled")
        assert not home.workers()
    assert "killed" in home.log()


@pytest.mark.parametrize(
    ("how", "outcome", "attempts"),
    [("error", "failed", 2), ("memory", "out_of_memory", 2), ("refuse", "refused", 1)],
)
def test_failures_have_their_budgets(home: LiveHome, how: str, outcome: str, attempts: int) -> None:
    """An error is tried again as often as configured, unusable input never."""
    home.enqueue(LONG.replace("2000", "8") + f"fail_at_step: 2\nfail_with: {how}\n")
    assert home.finish() == 1
    (run,) = home.runs()
    assert run["state"] == "failed"
    found = home.json("show", "r1")["attempts"]
    assert [attempt["outcome"] for attempt in found] == [outcome] * attempts
    assert run["error"]


def test_three_quick_failures_hold_an_experiment(tmp_path: Path) -> None:
    """A spec that always fails does not burn the night; released, it goes on."""
    home = LiveHome(tmp_path / "home", slots=1, failed=0)
    home.enqueue(LONG.replace("2000", "8") + "fail_at_step: 2\nreplicates: 6\n")
    assert home.finish() == 1
    assert home.states() == ["failed"] * 3 + ["held"] * 3
    assert "3 quick failures" in home.json("status")["queued"][0]["reason"]
    home.ftd("release", "long")
    assert home.finish() == 1
    assert home.states() == ["failed"] * 6


def test_one_daemon_per_home(home: LiveHome) -> None:
    """A second daemon says who serves already, and leaves."""
    with serving(home) as daemon:
        home.until(lambda: "serving" in home.log(), "the daemon serves")
        second = home.ftd("daemon")
        assert second.returncode == 1
        assert str(daemon.pid) in second.stderr
        assert "Traceback" not in second.stderr


def test_two_homes_never_take_the_same_device(tmp_path: Path) -> None:
    """Homes that share the device locks of a machine share its one slot, one after the other."""
    one, two = (LiveHome(tmp_path / name, slots=1) for name in ("one", "two"))
    config = (one.root / "ftd.toml").read_text()
    (two.root / "ftd.toml").write_text(config)
    one.enqueue(LONG)
    two.enqueue(LONG.replace("2000", "5"))
    with serving(one):
        one.until_step(2)
        with serving(two):
            two.until(lambda: "another ftd home" in str(two.json("status")["queued"]), "it waits")
            assert two.states() == ["queued"]
            one.ftd("cancel", "long")
            two.until_states("done")


def test_a_new_message_wakes_the_daemon(home: LiveHome) -> None:
    """A daemon asleep for its longest pause starts a run long before that pause is over."""
    import time

    with serving(home):
        home.until(lambda: "serving" in home.log(), "the daemon serves")
        time.sleep(1.0)
        home.enqueue(LONG.replace("2000", "2"))
        before = time.monotonic()
        home.until(home.workers, "a worker runs")
        assert time.monotonic() - before < 9.0  # it sleeps 10 s when nothing wakes it


@pytest.mark.parametrize("command", [("enqueue", "-", "--priority"), ("prioritise", "e1")])
def test_a_priority_out_of_range_changes_nothing(home: LiveHome, command: tuple[str, ...]) -> None:
    """The command line keeps to the range that a spec has."""
    home.enqueue(LONG)
    done = home.ftd(*command, "1001", stdin=LONG.replace("long", "other"))
    assert done.returncode == 2
    assert "-1000 to 1000" in done.stderr
    assert len(home.runs()) == 1
