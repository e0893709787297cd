"""Studies of growing: the paper's tables as it has them, and the twins at work in a home."""

from __future__ import annotations

import json
import shutil
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import pytest
import yaml
from PIL import Image

from ftd.cli.main import main
from ftd.planning.plan import Plan, make_plan
from ftd.spec.experiment import parse
from ftd.spec.includes import fragments
from jobs.growth.growing import num_parameters_of
from jobs.growth.surgery import grow
from jobs.params.growth import GrowthParams
from tests.homes import LiveHome
from tests.networks import network

PAPERS = Path(__file__).parent.parent / "examples" / "papers"
TWINS = PAPERS / "twins"
EXTENTS = {"New": "R(8)", "FC7-New": "FT(7)", "FC6-New": "FT(6-7)", "All": "FT(1-7)"}
# table 2: sizes of FC_a, of FC7+, of both, and of FC6+ and FC7+
SIZES = {
    "da": [(1024,), (2048,), (4096,), (6144,)],
    "wa": [(1024,), (2048,)],
    "dwa": [(1024, 1024), (2048, 2048)],
    "wwa": [(512, 1024), (1024, 2048), (2048, 4096)],
}


@pytest.fixture(scope="module")
def wang(tmp_path_factory: pytest.TempPathFactory) -> Plan:
    """The plan of the paper's tables, beside a folder of images."""
    folder = tmp_path_factory.mktemp("wang2017")
    file = shutil.copy(PAPERS / "wang2017" / "tables-1-3.yaml", folder)
    for name in ("abbey", "alley"):
        images = folder / "data" / "sun397" / name
        images.mkdir(parents=True)
        (images / "1.png").write_bytes(b"never decoded by a plan")
    text = Path(file).read_text()
    assert len(text.splitlines()) <= 60 and max(map(len, text.splitlines())) <= 100
    spec = parse(text, str(file), None, fragments(text, str(file), folder))
    return make_plan(spec, folder, device_kind="cpu")


def growths(plan: Plan) -> dict[tuple[str, str], list[dict[str, Any]]]:
    """(network, extent) -> parameters of growth, a cell each."""
    by_key = {run.key: run for run in plan.runs}
    found: dict[tuple[str, str], dict[str, dict[str, Any]]] = defaultdict(dict)
    for place in plan.places:
        growth = by_key[place.run_key].params["growth"]
        where = (str(place.factors["model.name"]), str(place.factors["layers"]))
        found[where][str(place.factors["growth"])] = growth
    return {where: list(some.values()) for where, some in found.items()}


def test_the_tables_have_every_cell_of_the_paper(wang: Plan) -> None:
    """AlexNet with each type and size, VGG16 with three types, by four extents of tuning."""
    found = growths(wang)
    assert {extent for _, extent in found} == set(EXTENTS)
    assert {name for name, _ in found} == {"alexnet", "vgg16"}
    for (name, _), some in found.items():
        scaled = [growth for growth in some if growth["scale"] is None]
        sizes: dict[str, list[tuple[int, ...]]] = defaultdict(list)
        for growth in scaled:
            units = growth["units"]
            sizes[growth["type"]].append(
                {"none": (), "dwa": (units, units), "wwa": (units and units // 2, units)}.get(
                    growth["type"], (units,)
                )
            )
        if name == "alexnet":
            assert dict(sizes) == {"none": [()], **SIZES}
            unscaled = [(g["type"], g["units"], g["init"]) for g in some if g["scale"] == "off"]
            assert unscaled == [
                ("da", 2048, "rand"), ("wa", 2048, "rand"), ("wa", 2048, "copy_rand")
            ]  # fmt: skip
        else:
            assert set(sizes) == {"none", "da", "wa"}
    assert len(wang.cells) == (15 + 3) * 4
    assert len(wang.runs) == len(wang.cells) * wang.candidates * wang.replicates


def test_the_tables_tune_and_split_as_they_say(wang: Plan) -> None:
    """New layers learn ten times as fast; the shares of images are the paper's."""
    for run in wang.runs:
        train, target = run.params["train"], run.params["target"]
        assert train["head_lr_factor"] == run.params["growth"]["lr_factor"] == 10
        others = 1 - target["test_fraction"]
        assert others * target["val_fraction"] == pytest.approx(0.2, abs=1e-3)
    assert wang.outline.roles == {"model.name": "block"}


# in this order: who starts from an experiment comes after it; and its number of cells
OTHER_TABLES = {"sources": 2, "sun": 1, "figures": 1, "targets": 3 * 3 + 5, "table-4": 6}


def test_the_other_tables_can_be_enqueued(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each has the cells of its design, is short, and names sources that are there."""
    folder = shutil.copytree(PAPERS / "wang2017", tmp_path / "wang2017")
    for name in ("imagenet", "sun397", "mit67", "flowers-102", "cub200", "stanford40"):
        for place in ("train/a", "train/b", "test/a", "test/b"):
            (folder / "data" / name / place).mkdir(parents=True)
            (folder / "data" / name / place / "1.png").write_text(f"{name}, never decoded")
    home = ["--home", str(tmp_path / "home")]
    for spec, cells in OTHER_TABLES.items():
        path = folder / f"{spec}.yaml"
        assert len(path.read_text().splitlines()) <= 60
        assert main([*home, "enqueue", "--json", str(path)]) == 0
        told = json.loads(capsys.readouterr().out)
        assert main([*home, "export", "--format", "json", told["id"]]) == 0
        rows = json.loads(capsys.readouterr().out)
        assert len({row["cell"] for row in rows}) == cells
    assert {path.stem for path in folder.glob("*.yaml")} == {*OTHER_TABLES, "tables-1-3"}


# --- the twins --------------------------------------------------------------------------------


def test_arms_of_twin_10_grow_by_as_many_parameters() -> None:
    """All but plain fine-tuning and scaling alone gain the same number within 2 %."""
    factors = yaml.safe_load((TWINS / "10-grow.yaml").read_text())["factors"]
    levels = factors["growth"]["levels"]["All"]
    classes = tuple("abcde")
    gained = {}
    for level in levels:
        growth = GrowthParams(**{k: _word(v) for k, v in level["set"]["growth"].items()})
        plain = network("mini8", class_names=classes)
        before = num_parameters_of(plain)
        big = grow(plain, growth, size=28, init_seed=1)
        gained[level["name"]] = num_parameters_of(big) - before
    assert gained.pop("finetuning") == 0 and gained.pop("scaled-only") == 256
    assert len(gained) == 9
    assert all(abs(number - 33_920) < 0.02 * 33_920 for number in gained.values()), gained


def _word(value: Any) -> Any:
    """What specs read as a word and other readers of YAML as a truth value."""
    return {False: "off", True: "on"}[value] if isinstance(value, bool) else value


DIGITS = "dataset: digits, decode_size: 28, val_per_class: 5, test_per_class: 20"
LOW = f"target={{{DIGITS}, classes: {{only: ['0', '1', '2', '3', '4']}}}}"
HIGH = f"target={{{DIGITS}, classes: {{only: ['5', '6', '7', '8', '9']}}}}"
SMALL = ("--set", "train.steps=4", "--set", "replicates=1")
TUNED = ("--set", "tune={over: {train.lr: [0.004]}, select: val/top1, per: cell}")


CHANGES = """
experiment: what-grew
job: changes
model: {name: mini8, weights: {run: twin-source}}
after: {run: twin-12-grow-or-wide, cell: {network: grown, train.lr: 0.004}}
target: {}
replicates: 1
seed: 12
"""


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> LiveHome:
    """Twin 12 on digits, with four steps."""
    live = LiveHome(tmp_path_factory.mktemp("twins") / "home", slots=2)
    for name in ("source", "12-wide-source"):
        live.enqueue(
            (TWINS / f"{name}.yaml").read_text(),
            *("--set", LOW, *SMALL, "--set", "train.warmup_steps=1"),
        )
    live.enqueue((TWINS / "12-grow-or-wide.yaml").read_text(), "--set", HIGH, *SMALL, *TUNED)
    live.enqueue(CHANGES, "--set", HIGH)
    assert live.finish(300) == 0, live.log()
    return live


def test_growing_is_compared_with_being_as_wide_from_the_start(home: LiveHome) -> None:
    """Every arm starts from the source it names; wide and grown are of the same size."""
    assert Counter(home.states()) == {"done": 9}
    rows = {row["network"]: row for row in home.json("export", "twin-12-grow-or-wide")}
    sizes = {name: row["model/num_parameters"] for name, row in rows.items()}
    assert sizes["wide"] == sizes["grown"] > sizes["wide-unscaled"] > sizes["narrow"]
    assert rows["wide"]["model/num_grown"] == 0 < rows["grown"]["model/num_grown"]


def test_what_has_grown_is_looked_at(home: LiveHome) -> None:
    """Through the daemon: pictures of new units, and a table of all layers, new ones last."""
    (run,) = home.runs("what-grew")
    kept = {one["name"] for one in home.json("show", run["id"])["artifacts"]}
    assert {"units-fc7+.png", "units.png", "map.png"} <= kept
    found = home.json("changes", "what-grew", "--measure", "separability")["measures"]
    assert [layer["layer"] for layer in found[0]["layers"]][-4:] == ["fc7", "fc8", "fc7+", "scale"]
    (row,) = home.json("export", "what-grew")
    assert row["val/separability_after_fc7+"] > 0


def test_a_grown_run_predicts(home: LiveHome, tmp_path: Path) -> None:
    """`ftd predict` builds the grown network again."""
    image = tmp_path / "one.png"
    Image.new("RGB", (40, 40), "white").save(image)
    run = home.runs("twin-12-wide-source")[0]["id"]
    (answer,) = home.json("predict", run, str(image))
    assert sum(answer["probabilities"].values()) == pytest.approx(1)
