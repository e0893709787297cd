"""Studies of borrowing: the paper's tables as it has them, and the twins at work in a home."""

from __future__ import annotations

import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from ftd.planning.plan import Plan, make_plan
from ftd.spec.experiment import parse
from ftd.spec.includes import fragments
from tests.homes import LiveHome

PAPERS = Path(__file__).parent.parent / "examples" / "papers"
TWINS = PAPERS / "twins"
FOLDERS = ("dogs", "flowers", "flowers-with-val", "mit67", "imagenet", "places")


@pytest.fixture(scope="module")
def plans(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Plan]:
    """The plans of the paper's tables, beside folders of images."""
    folder = tmp_path_factory.mktemp("papers") / "ge2017"
    shutil.copytree(PAPERS / "ge2017", folder)
    for place in [f"{name}/{part}" for name in FOLDERS for part in ("train", "test")] + [
        "caltech-256"
    ]:
        for name in ("a", "b"):
            images = folder / "data" / place / name
            images.mkdir(parents=True)
            (images / "1.png").write_text(f"{place}, never decoded by a plan")
    for name in ("places", "hybrid"):
        (folder / "data" / f"{name}.pth").write_text(f"weights of {name}")
    found = {}
    for file in set(folder.glob("*.yaml")) - {folder / "common.yaml"}:
        text = file.read_text()
        assert len(text.splitlines()) <= 60 and max(map(len, text.splitlines())) <= 100
        spec = parse(text, str(file), None, fragments(text, str(file), folder))
        found[file.stem] = make_plan(spec, folder, device_kind="cpu")
    return found


def cells(plan: Plan) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """Each cell's levels and parameters."""
    by_key = {run.key: dict(run.params) for run in plan.runs}
    one_each = {place.cell: place for place in plan.places}
    return [(dict(place.factors), by_key[place.run_key]) for place in one_each.values()]


ROWS = {  # a table's row -> weights, selection, rounds, bank
    "scratch": ("none", "none", False, None),
    "scratch-joint": ("none", "descriptors", True, "kernels"),
    "finetuning": ("imagenet", "none", False, None),
    "all": ("imagenet", "all", False, None),
    "random": ("imagenet", "random", False, "kernels"),
    "fixed-neighbours": ("imagenet", "descriptors", False, "kernels"),
    "gabor": ("imagenet", "descriptors", True, "gabor"),
    "joint": ("imagenet", "descriptors", True, "kernels"),
}


def test_dogs_and_flowers_have_every_row(plans: dict[str, Plan]) -> None:
    """Each row of the two tables is a cell, and the one with validation images is the whole."""
    found: dict[str, dict[str, Any]] = {"dogs": {}, "flowers": {}}
    for levels, params in cells(plans["dogs-flowers"]):
        selection = params["selection"]
        bank = selection["descriptors"]["bank"] if selection["by"] in (
            "random", "descriptors"
        ) else None  # fmt: skip
        row = (params["model"]["weights"], selection["by"], params["hard"] is not None, bank)
        if levels["target"] == "flowers-with-val":
            assert row == ROWS["joint"]
        else:
            found[str(levels["target"])][str(levels["method"])] = row
    assert found == {"dogs": ROWS, "flowers": ROWS}
    for plan in plans.values():
        for _, params in cells(plan):
            train = params["train"]
            assert (train["lr"], train["weight_decay"], train["momentum"]) == (0.01, 1e-4, 0.9)
            assert params["selection"]["neighbours"] == 300 or plan is plans["controls"]
            assert params["source_weight"] == 0.5 or plan is plans["controls"]
    assert len(plans["dogs-flowers"].cells) == 8 + 8 + 1


def test_caltech_and_mit_have_every_row(plans: dict[str, Plan]) -> None:
    """Four sizes with and without borrowing; three pools and none."""
    sizes = Counter(
        (params["selection"]["by"], params["target"]["per_class"])
        for _, params in cells(plans["caltech"])
    )
    assert sizes == {(by, n): 1 for by in ("none", "descriptors") for n in (15, 30, 45, 60)}
    pools = [
        [Path(source["folder"]).name for source in (params["source"], *params["more_sources"])]
        for _, params in cells(plans["mit67"])
        if params["selection"]["by"] != "none"
    ]
    assert pools == [["imagenet"], ["places"], ["imagenet", "places"]]
    assert len(plans["mit67"].cells) == 4


def test_controls_are_one_factor_at_a_time(plans: dict[str, Plan]) -> None:
    """Every ablation is a cell of its own."""
    found = [params for _, params in cells(plans["controls"])]
    assert len(found) == len({str(params) for params in found}) == 22
    said = {params["selection"]["descriptors"]["measure"] for params in found}
    assert {"kl", "js", "l1", "chi2", "cosine"} <= said
    hard = {(one["neighbours"], one["oversample"]) for one in (p["hard"] for p in found) if one}
    assert hard == {("on", "on"), ("on", "off"), ("off", "on")}


# --- the twins ----------------------------------------------------------------------------------

DIGITS = "dataset: digits, decode_size: 28"
LOW = f"{{{DIGITS}, classes: {{only: ['0', '1', '2']}}, per_class: 20, val_per_class: 0}}"
HIGH = f"{{{DIGITS}, classes: {{only: ['3', '4']}}, per_class: 4, val_per_class: 5}}"
SMALL = (
    f"target={HIGH}", f"source={LOW}", "more_sources=[]", "train.steps=4", "train.batch_size=4",
    "replicates=1", "tune={over: {train.lr: [0.02]}, select: val/top1, per: cell}",
)  # fmt: skip


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> LiveHome:
    """Twins 13 and 14 on digits, with four steps."""
    folder = tmp_path_factory.mktemp("twins")
    live = LiveHome(folder / "home", slots=2)
    for name, more in (
        ("13-borrow", ("selection.neighbours=3",)),
        ("14-hard-images", ("hard.every_steps=1", "factors.selection.neighbours=[3]")),
    ):
        spec = TWINS / f"{name}.yaml"
        sets = [part for one in (*SMALL, *more) for part in ("--set", one)]
        done = live.ftd("enqueue", str(spec), *sets)
        assert done.returncode == 0, done.stderr
    assert live.finish(300) == 0, live.log()
    return live


def test_the_twins_run(home: LiveHome) -> None:
    """Every arm ends, and says what it could borrow; equally many random images as neighbours."""
    assert Counter(home.states()) == {"done": 5 + 3 - 1}, "fixed neighbours are an arm of both"
    rows = {row["borrowed"]: row for row in home.json("export", "twin-13-borrow")}
    assert set(rows) == {"none", "random", "all", "low-level", "deep"}
    selected = {name: row.get("borrow/num_selected") for name, row in rows.items()}
    assert selected["none"] is None and selected["all"] == 60
    assert selected["random"] == selected["low-level"] < 60
    arms = {row["growth"]: row for row in home.json("export", "twin-14-hard-images")}
    assert arms["fixed"].get("borrow/mean_level") is None
    assert arms["grown"]["borrow/mean_level"] > 1 < arms["oversampled"]["borrow/mean_level"]
    assert arms["grown"]["borrow/num_selected"] > arms["oversampled"]["borrow/num_selected"]
