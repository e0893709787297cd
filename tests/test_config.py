"""``ftd.toml``: defaults, errors, and the annotated file that documents them."""

from __future__ import annotations

import re
import stat
from pathlib import Path

import pytest
from pydantic import BaseModel

from ftd.config import Config, load, lock_directory, parse
from ftd.errors import ConfigError
from ftd.layout import Home
from ftd.states import Outcome

ANNOTATED = Path(__file__).parent.parent / "ftd.toml"


def test_no_file_means_defaults(tmp_path: Path) -> None:
    """A home without ``ftd.toml`` is complete."""
    assert load(Home(tmp_path)) == Config()


def test_the_annotated_file_is_the_defaults() -> None:
    """The file that people copy from says what happens without it."""
    assert parse(ANNOTATED.read_text(), "ftd.toml") == Config()


def test_the_annotated_file_names_every_key() -> None:
    """No setting is undocumented, and the ones commented out are real too."""
    everything = re.sub(r"^# (\w+ = )", r"\1", ANNOTATED.read_text(), flags=re.MULTILINE)
    written = parse(everything, "ftd.toml")

    def unset(model: BaseModel) -> list[str]:
        absent = [name for name in type(model).model_fields if name not in model.model_fields_set]
        inner = [getattr(model, name) for name in type(model).model_fields]
        return absent + [
            name for part in inner if isinstance(part, BaseModel) for name in unset(part)
        ]

    assert unset(written) == []


def test_the_homes_file_counts(tmp_path: Path) -> None:
    """Settings in HOME/ftd.toml replace defaults, a named file replaces that one."""
    (tmp_path / "ftd.toml").write_text("[devices]\ncpu_slots = 3\n[checkpoints]\nevery_steps = 7\n")
    config = load(Home(tmp_path))
    assert (config.devices.cpu_slots, config.checkpoints.every_steps) == (3, 7)
    named = tmp_path / "other.toml"
    named.write_text('[devices]\ngpus = ["GPU-1"]\n')
    assert load(Home(tmp_path, named)).devices.gpus == ("GPU-1",)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[devices]\ncpu_slot = 2", ["f: devices.cpu_slot", "Did you mean 'cpu_slots'?"]),
        ("[device]\n", ["f: device", "unknown key", "Did you mean 'devices'?"]),
        ("[stop]\ngrace_s = 'x'", ["f: stop.grace_s", "valid number, not x"]),
        ("[devices]\ngpus = 'some'", ["f: devices.gpus", "Allowed: auto, none, [VALUE, ...]"]),
        (
            "[devices]\ncpu_slots = 'many'",
            ["f: devices.cpu_slots", "Allowed: auto, a whole number"],
        ),
        ("[devices]\ncpu_slots = -1", ["f: devices.cpu_slots", "greater than or equal to 0"]),
        ("[retries]\nrefused = 1", ["f: retries.refused", "unknown key"]),
        ("stop = 3", ["f: stop", "should be a mapping"]),
        ("a = ", ["f: not valid TOML"]),
    ],
)
def test_a_bad_setting_is_one_error(text: str, expected: list[str]) -> None:
    """The error names file and key and suggests the nearest word."""
    with pytest.raises(ConfigError) as caught:
        parse(text, "f")
    assert [part for part in expected if part not in str(caught.value)] == []


def test_an_unreadable_file_is_told(tmp_path: Path) -> None:
    """A named file that is no text is an error, not silence."""
    named = tmp_path / "ftd.toml"
    named.write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match="cannot read it"):
        load(Home(tmp_path, named))


def test_only_ends_that_may_pass_are_tried_again() -> None:
    """Refused, completed and stopped runs have no retries, whatever is set."""
    retries = parse("[retries]\nlost = 9\nfailed = 3", "f").retries
    assert (retries.budget(Outcome.LOST), retries.budget(Outcome.FAILED)) == (9, 3)
    for outcome in (Outcome.REFUSED, Outcome.COMPLETED, Outcome.STOPPED):
        assert retries.budget(outcome) == 0


def test_the_lock_folder_is_shared_and_real(tmp_path: Path) -> None:
    """It is made for everybody, kept when it exists, and never a link to somewhere else."""
    config = parse(f'[devices]\nlock_directory = "{tmp_path / "locks"}"', "f")
    folder = lock_directory(config)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o1777
    assert lock_directory(config) == folder
    (tmp_path / "link").symlink_to(folder)
    with pytest.raises(ConfigError, match="lock_directory"):
        lock_directory(parse(f'[devices]\nlock_directory = "{tmp_path / "link"}"', "f"))
    with pytest.raises(ConfigError, match="No such file"):
        lock_directory(parse(f'[devices]\nlock_directory = "{tmp_path / "a" / "b"}"', "f"))
