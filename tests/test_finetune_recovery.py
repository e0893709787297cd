"""Real fine-tuning under SIGKILL: same digest, same metric rows, same predictions."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.homes import LiveHome, outcome_of

# Small and from scratch, but with BatchNorm, momentum, warm-up, crops and flips.
SPEC = """
experiment: real
job: finetune
model: {name: resnet18, weights: none}
layers: "R(1-last)"
target: {dataset: digits, decode_size: 32, crop_size: 28, val_per_class: 5, per_class: 8}
train: {epochs: 6, batch_size: 16, lr: 0.01, warmup_steps: 3, crop: random, flip: true}
seed: 3
"""


def _artifacts(home: LiveHome) -> dict[str, str]:
    shown = home.json("show", "r1")["artifacts"]
    return {artifact["name"]: artifact["sha256"] for artifact in shown}


@pytest.fixture(scope="module")
def twin(tmp_path_factory: pytest.TempPathFactory) -> tuple[object, object]:
    """What the spec gives when nothing goes wrong."""
    home = LiveHome(tmp_path_factory.mktemp("twin") / "home", slots=1)
    home.enqueue(SPEC)
    assert home.finish() == 0, home.log()
    return outcome_of(home), _artifacts(home)


@pytest.mark.parametrize("victim", ["worker", "daemon", "both"])
def test_a_killed_fine_tuning_equals_its_twin(
    tmp_path: Path, twin: tuple[object, object], victim: str
) -> None:
    """SIGKILL early and late in training, of whomever, changes no byte of the result."""
    home = LiveHome(tmp_path / "home", slots=1, every_steps=3)
    home.enqueue(SPEC)
    home.start_daemon()
    for step in (3, 16):
        home.until_step(step)
        if victim in ("daemon", "both"):
            home.kill_daemon()
        if victim in ("worker", "both"):
            home.kill_workers()
        if victim in ("daemon", "both"):
            home.start_daemon()
    home.until_states("done")
    home.stop_daemon()
    assert (outcome_of(home), _artifacts(home)) == twin
    attempts = home.json("show", "r1")["attempts"]
    assert [attempt["outcome"] for attempt in attempts].count("completed") == 1
    if victim == "worker":
        assert len(attempts) == 3
        assert attempts[-1]["resumed_from_step"] >= 15
