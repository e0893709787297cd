"""One run or one experiment, with everything the ledger knows of it."""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping
from typing import Any

from ftd.views.phrases import duration, factors, moment, number, run_ids, size
from ftd.views.status import states
from ftd.views.table import Table, table


def run_tables(about: Mapping[str, Any]) -> list[Table]:
    """The tables of ``ftd show RUN``, from what ``--json`` prints."""
    provenance = about["provenance"]
    return [
        _pairs(
            about["id"],
            {
                "state": about["state"],
                "error": about["error"],
                "job": f"{about['job']}, version {provenance['job_version']}",
                "flags": ", ".join(about["flags"]),
                "sources": ", ".join(f"{run} is near chance" for run in about["sources_at_chance"]),
                "approximate": about["approximate"],
                "state_sha256": about["state_sha256"],
                "cost": duration(about["cost_actual_s"]),
                "cost alone": duration(about["cost_alone_s"]),
            },
        ),
        table(
            "experiments",
            ("id", "name", "cell", ">priority", "wish", "by", "why"),
            (
                (
                    member["id"],
                    member["experiment"],
                    factors(member["factors"], member["replicate"]),
                    str(member["priority"]),
                    member["wish"],
                    member["wished_by"],
                    member["wished_why"],
                )
                for member in about["memberships"]
            ),
        ),
        _attempts(about),
        _metrics(about),
        _timings(about),
        _pairs("parameters", _flat(about["params"])),
        _pairs("provenance", _flat({**provenance, "approximate": None})),
        table(
            "artifacts",
            ("name", ">size", "sha256", "path below the home"),
            (
                (artifact["name"], size(artifact["bytes"]), artifact["sha256"], artifact["path"])
                for artifact in about["artifacts"]
            ),
        ),
        _history(about),
    ]


def experiment_tables(about: Mapping[str, Any]) -> list[Table]:
    """The tables of ``ftd show EXPERIMENT``, from what ``--json`` prints."""
    runs = [int(run[1:]) for run in about["runs"]]
    return [
        _pairs(
            f"{about['id']} {about['name']}",
            {
                "revision": f"{about['revision']} (of {', '.join(about['revisions'])})",
                "owner": about["owner"],
                "job": about["job"],
                "metric": about["primary_metric"],
                "submitted": moment(about["submitted_at"]),
                "queue": "admitted" if about["admitted"] else "not yet pulled by a daemon",
                "runs": f"{len(runs):,}: {states(about['counts'])}: {run_ids(runs)}",
                "paths from": about["base"],
            },
        ),
        _history(about),
        table("spec", (), (), notes=tuple(about["spec"].rstrip().splitlines())),
    ]


def _attempts(about: Mapping[str, Any]) -> Table:
    rows = []
    for attempt in about["attempts"]:
        ended, started = attempt["ended_at"], attempt["started_at"]
        resumed = attempt["resumed_from_step"]
        rows.append(
            (
                str(attempt["number"]),
                attempt["outcome"] or "running",
                attempt["device"],
                moment(started),
                duration(ended - started) if ended is not None else "-",
                "-" if resumed is None else str(resumed),
                "-" if attempt["steps_redone"] is None else str(attempt["steps_redone"]),
                f"{attempt['step']}/{attempt['num_steps'] or '?'}",
                str(attempt["worker"]["pid"] or "-"),
                attempt["error"] or attempt["stop_why"] or "",
            )
        )
    headings = (
        ">attempt", "outcome", "device", "started", ">took", ">resumed from", ">redone", ">step",
        ">pid", "why",
    )  # fmt: skip
    return table("attempts", headings, rows, empty="no attempts yet")


def _metrics(about: Mapping[str, Any]) -> Table:
    """Final values beside the first, last, least and greatest of each recorded metric."""
    recorded: dict[str, list[float]] = {}
    for row in about["metric_rows"]:
        recorded.setdefault(row["name"], []).append(row["value"])
    rows = []
    for name in dict.fromkeys([*about["metrics"], *recorded]):
        values = recorded.get(name, [])
        rows.append(
            (
                name,
                number(about["metrics"].get(name)),
                str(len(values)),
                *(
                    number(pick(values)) if values else "-"
                    for pick in (lambda some: some[0], lambda some: some[-1], min, max)
                ),
            )
        )
    headings = ("metric", ">result", ">recorded", ">first", ">last", ">least", ">greatest")
    return table("metrics", headings, rows)


def _timings(about: Mapping[str, Any]) -> Table:
    """Rates, durations and sizes over all attempts; they are part of no comparison."""
    recorded: dict[str, list[float]] = {}
    for row in about["timing_rows"]:
        recorded.setdefault(row["name"], []).append(row["value"])
    picks = (statistics.fmean, min, max)
    rows = [
        (name, str(len(values)), *(_measured(name, pick(values)) for pick in picks))
        for name, values in recorded.items()
    ]
    return table("timings", ("timing", ">recorded", ">mean", ">least", ">greatest"), rows)


def _measured(name: str, value: float) -> str:
    """A value in the unit that its name ends with."""
    if name.endswith("_bytes"):
        return size(round(value))
    if name.rpartition("/")[2].startswith("num_"):
        return f"{value:,g}"
    return f"{value:,.1f}" if name.endswith("_per_s") else duration(value)


def _history(about: Mapping[str, Any]) -> Table:
    return table(
        "history",
        ("at", "who", "what", "details"),
        (
            (
                moment(event["at"]),
                event["who"],
                event["kind"] + (f" {event['attempt']}" if event.get("attempt") else ""),
                _details(event["data"]),
            )
            for event in about["history"]
        ),
    )


def _details(data: Any) -> str:
    if not isinstance(data, Mapping):
        return "" if data is None else str(data)
    known = {name: value for name, value in data.items() if value not in (None, "")}
    return ", ".join(f"{name} {_text(value)}" for name, value in known.items())


def _pairs(title: str, values: Mapping[str, Any]) -> Table:
    rows = [(name, _text(value)) for name, value in values.items() if value not in (None, "")]
    return table(title, ("", ""), rows)


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested mappings as one, keys joined by dots."""
    flat: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{prefix}{name}.")
        else:
            flat[prefix + name] = value
    return flat


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
