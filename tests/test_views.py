"""Text for people: numbers, durations, ids, tables, progress."""

from __future__ import annotations

import io
import math
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from ftd.ledger.rows import LiveRow
from ftd.views import phrases, progress
from ftd.views.table import plain, rich_tables, show, table


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (None, "-"),
        (-3.0, "0.0 s"),
        (0.04, "0.0 s"),
        (9.94, "9.9 s"),
        (9.96, "10 s"),
        (59.6, "1 min 00 s"),
        (3599.7, "1 h 00 min"),
        (18_420, "5 h 07 min"),
        (86_400 * 2 + 3 * 3600, "2 d 03 h"),
    ],
)
def test_durations(seconds: float | None, text: str) -> None:
    """Durations have one unit or two, and never 60 of the smaller one."""
    assert phrases.duration(seconds) == text


@pytest.mark.parametrize(
    ("number", "text"), [(None, "-"), (0, "0 B"), (1023, "1023 B"), (1 << 30, "1.0 GiB")]
)
def test_sizes(number: int | None, text: str) -> None:
    """Sizes are in powers of 1024."""
    assert phrases.size(number) == text


@given(st.sets(st.integers(1, 60), max_size=40))
def test_run_ids_name_exactly_the_runs(ids: set[int]) -> None:
    """Spans such as r3-r7 expand to the ids they stand for."""
    named = set()
    for part in phrases.run_ids(ids, limit=1000).split():
        first, _, last = part.replace("r", "").partition("-")
        named |= set(range(int(first), int(last or first) + 1))
    assert named == ids


def test_many_run_ids_are_cut_with_a_count() -> None:
    """Beyond the limit, the number of spans left out is said."""
    assert phrases.run_ids([1, 3, 5, 7], limit=2) == "r1 r3 and 2 more"


@given(st.floats(1e-5, 1e5))
def test_decimals_keep_two_digits_of_the_spread(sd: float) -> None:
    """The smallest spread is shown with at least two digits, and not many more."""
    places = phrases.decimals([None, 0.0, sd, sd * 3])
    assert 0 <= places <= 6
    if places > 0:
        assert 10 <= sd * 10**places < 100 or places == 6
    else:
        assert sd >= 10 or math.isclose(sd, 10)


@pytest.mark.parametrize(
    ("value", "places", "signed", "text"),
    [
        (None, 3, False, "-"),
        (0.8512, 2, False, "0.85"),
        (0.8512, 3, True, "+0.851"),
        (-0.02, 3, True, "-0.020"),
        (0.0, 3, True, "+0.000"),
        (1.25e-7, 4, False, "1.2e-07"),
    ],
)
def test_numbers(value: float | None, places: int, signed: bool, text: str) -> None:
    """Numbers have the asked decimals; what would round to zero is not shown as zero."""
    assert phrases.number(value, places, signed=signed) == text


def test_levels_are_written_as_in_a_spec() -> None:
    """Booleans and null as YAML has them, the replicate behind a hash."""
    shown = phrases.factors({"layers": "FT(1-)", "flip": True, "crop": None}, 2)
    assert shown == "layers=FT(1-) flip=true crop=null #2"


ROWS = st.lists(st.tuples(st.text(max_size=12), st.text(max_size=12)), min_size=1, max_size=8)


@given(ROWS)
def test_a_row_stays_one_line_whatever_is_in_it(rows: list[tuple[str, str]]) -> None:
    """Newlines and escape sequences in cells reach neither the pipe nor the terminal."""
    made = table("some title", ("one", ">two"), rows)
    text = plain(made)
    assert text.count("\n") == len(rows) + 2
    assert all(sign.isprintable() for line in text.split("\n") for sign in line)
    drawn = Console(file=io.StringIO(), width=200, no_color=True)
    drawn.print(rich_tables([made]))
    assert "\x1b" not in drawn.file.getvalue()  # type: ignore[attr-defined]


def test_columns_line_up_and_numbers_end_together() -> None:
    """Text is flush left, numbers flush right."""
    made = table("", ("name", ">n"), [("a", "5"), ("longer", "123")])
    assert plain(made) == "name      n\na         5\nlonger  123\n"


def test_an_empty_table_says_so_or_nothing() -> None:
    """Without rows only the given words appear; without words the table is skipped."""
    stream = io.StringIO()
    show([table("gone", ("a",), []), table("here", ("a",), [], empty="nothing yet")], stream)
    assert stream.getvalue() == "here\nnothing yet\n"


def test_brackets_are_no_markup() -> None:
    """A name such as [red] is shown, not obeyed."""
    drawn = Console(file=io.StringIO(), width=80)
    drawn.print(rich_tables([table("[bold]t[/]", ("[x]",), [("[red]cell[/red]",)])]))
    text = drawn.file.getvalue()  # type: ignore[attr-defined]
    assert "[red]cell[/red]" in text and "[bold]t[/]" in text


def live(**changes: object) -> LiveRow:
    """A run that executes, half way through."""
    facts: dict[str, object] = {
        "run_id": 1,
        "experiment": "study",
        "factors": {"x": 1},
        "replicate": 0,
        "attempt": 1,
        "device": "cpu:0",
        "started_at": 1000.0,
        "step": 50,
        "num_steps": 100,
        "resumed_from_step": None,
        "progress": {"at": 1100.0, "epoch": 3, "val/top1": 0.81234},
        "stop_why": None,
        "trouble": None,
    }
    return LiveRow(**{**facts, **changes})  # type: ignore[arg-type]


def test_time_left_follows_the_pace_of_this_attempt() -> None:
    """50 steps in 100 s leave 100 s; steps of earlier attempts do not count as fast."""
    assert progress.remaining_s(live()) == pytest.approx(100.0)
    assert progress.remaining_s(live(resumed_from_step=40)) == pytest.approx(500.0)


@pytest.mark.parametrize(
    "changes", [{"step": 0}, {"num_steps": None}, {"progress": {}}, {"resumed_from_step": 50}]
)
def test_no_time_left_without_a_pace(changes: dict[str, object]) -> None:
    """Nothing is made up before the first step."""
    assert progress.remaining_s(live(**changes)) is None
    assert progress.time_left(live(**changes)) == "-"


def test_a_stopping_run_says_so() -> None:
    """A run asked to leave shows why instead of a time."""
    assert progress.time_left(live(stop_why="cancel")) == "stopping (cancel)"


def test_what_the_job_reports_is_shown_in_its_order() -> None:
    """Reported values appear with four digits; the report's own time does not."""
    assert progress.shown(live().progress) == "epoch 3, val/top1 0.8123"


@given(st.integers(-5, 500), st.integers(1, 300))
def test_the_bar_is_full_exactly_at_the_end(step: int, num_steps: int) -> None:
    """A bar has a fixed width, and 100% means that every step is done."""
    match = re.fullmatch(r"\[(#*)(-*)\] +(\d+)%", progress.bar(step, num_steps))
    assert match is not None
    assert len(match[1]) + len(match[2]) == 16
    assert (match[3] == "100") == (step >= num_steps)
