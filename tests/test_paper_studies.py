"""The studies under examples/papers: short, readable, and planned as their papers have them."""

from __future__ import annotations

import shutil
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest

from ftd.planning.plan import Plan, make_plan
from ftd.spec.experiment import parse
from ftd.spec.includes import fragments

PAPERS = Path(__file__).parent.parent / "examples" / "papers"
STUDIES = sorted(PAPERS.glob("*/study.yaml"))

# Chu et al. 2016, table 1: validation and test images per class, and the numbers trained on;
# None: whatever the dataset's own test set has
CHU: dict[str, tuple[int, int | None, list[int]]] = {
    "imagenet-half": (20, None, [1, 10, 25, 53, 120]),
    "caltech-256": (2, 25, [1, 10, 25, 53]),
    "sun397": (2, 25, [1, 10, 50, 70]),
    "mit-indoor": (2, None, [1, 10, 25, 75]),
    "cub-200": (2, None, [5, 20, 35]),
    "coral": (50, 300, [10, 50, 200, 450]),
    "plankton": (50, 85, [1, 10, 300, 550]),
}
DEPTHS = {1: 7, 3: 5, 5: 3}  # re-initialised layers -> copied ones, of eight


@pytest.mark.parametrize("study", STUDIES, ids=lambda path: path.parent.name)
def test_a_study_is_at_most_sixty_readable_lines(study: Path) -> None:
    """A whole paper's design fits on a screen, without lines that are too long to read."""
    lines = study.read_text().splitlines()
    assert len(lines) <= 60
    assert max(map(len, lines)) <= 100


def image_folder(path: Path, *, own_test: bool) -> None:
    """A dataset of two classes; planning looks at names alone."""
    for split in ("train", "test") if own_test else (".",):
        for name in ("a", "b"):
            folder = path / split / name
            folder.mkdir(parents=True)
            (folder / "1.png").write_bytes(b"never decoded by a plan")


@pytest.fixture(scope="module")
def chu(tmp_path_factory: pytest.TempPathFactory) -> Plan:
    """The plan of Chu's study, beside datasets that are folders."""
    folder = tmp_path_factory.mktemp("chu2016")
    shutil.copy(PAPERS / "chu2016" / "study.yaml", folder)
    for name, (_, test, _) in CHU.items():
        image_folder(folder / "data" / name, own_test=test is None)
    (folder / "data" / "alexnet-other-half.pth").write_bytes(b"weights of the other half")
    text = (folder / "study.yaml").read_text()
    source = str(folder / "study.yaml")
    spec = parse(text, source, None, fragments(text, source, folder))
    return make_plan(spec, folder, device_kind="cpu")


def test_chu_has_every_cell_of_the_paper(chu: Plan) -> None:
    """Seven targets, each at its own numbers of images, frozen and tuned at three depths."""
    found: dict[str, dict[int, set[str]]] = defaultdict(lambda: defaultdict(set))
    for cell in chu.cells:
        found[str(cell["target"])][int(cell["target.per_class"] or 0)].add(str(cell["layers"]))
    layers = {
        f"{kind}(1-{copied})R({f'{copied + 1}-8' if copied < 7 else 8})"
        for copied in DEPTHS.values()
        for kind in ("F", "FT")
    }
    assert {name: list(numbers) for name, numbers in found.items()} == {
        name: numbers for name, (_, _, numbers) in CHU.items()
    }
    assert all(some == layers for numbers in found.values() for some in numbers.values())
    assert len(chu.cells) == sum(len(numbers) for _, _, numbers in CHU.values()) * 6 == 168
    assert len(chu.runs) == len(chu.places) == 168 * chu.candidates * chu.replicates


def test_chu_splits_and_budgets_as_it_says(chu: Plan) -> None:
    """Validation and test images are the paper's; every run trains for the same number of steps."""
    params: dict[str, list[dict[str, Any]]] = defaultdict(list)
    by_key = {run.key: run.params for run in chu.runs}
    for place in chu.places:
        params[str(place.factors["target"])].append(dict(by_key[place.run_key]))
    for name, (val, test, _) in CHU.items():
        targets = [one["target"] for one in params[name]]
        assert {one["val_per_class"] for one in targets} == {val}
        assert {one["test_per_class"] for one in targets} == {test}
        assert {one["split"] for one in targets} == {"random" if test else "given"}
    assert len({run.params["train"]["steps"] for run in chu.runs}) == 1
    others = {str(one["model"]["weights"]) for one in params["imagenet-half"]}
    assert len(others) == 1 and "alexnet-other-half.pth" in others.pop()


def test_chu_tunes_within_blocks(chu: Plan) -> None:
    """Targets are blocks, and every arm gets the same learning rates to choose from."""
    assert chu.outline.roles == {"target": "block"}
    assert chu.outline.tuning is not None and chu.outline.tuning.select == "val/top1"
    rates: dict[int, set[Any]] = defaultdict(set)
    for place in chu.places:
        rates[place.cell].add(place.tuned["train.lr"])
    assert {frozenset(some) for some in rates.values()} == {frozenset(rates[0])}
    assert len(rates[0]) == chu.candidates >= 3


def test_chu_shares_images_between_arms(chu: Plan) -> None:
    """Cells of one replicate have its seeds: contrasts between treatments are paired."""
    seeds: dict[int, set[tuple[tuple[str, int], ...]]] = defaultdict(set)
    by_key = {run.key: run.seeds for run in chu.runs}
    for place in chu.places:
        seeds[place.replicate].add(tuple(by_key[place.run_key].items()))
    assert [len(some) for some in seeds.values()] == [1] * chu.replicates
