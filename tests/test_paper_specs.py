"""The papers' experiments under examples/papers: all can be enqueued, in the order they need."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from ftd.cli.main import main

PAPERS = Path(__file__).parent.parent / "examples" / "papers"
SPECS = {  # in this order: who starts from an experiment comes after it; and its number of cells
    "azizpour2016/sources": 8 + 8,  # networks on ImageNet, and images for the medium one
    "azizpour2016/study": 12 * 6 * 6,  # tasks x layers x components
    "azizpour2016/source-factors": 12 * 15,
    "azizpour2016/retrieval": 5 * 3 * 4,
    "chu2016/distances": 7,
    "li2019/sources": 9,
    "li2019/study": 1 + 7 + 1 + 8 + 3 + 6,
    "li2019/changes": 8,
    "li2019/distances": 3,
}
FOLDERS = (
    "caltech-256", "coral", "cub-200", "cub200", "imagenet", "imagenet-half", "mit-indoor", "mit67",
    "places", "plankton", "stanford40", "sun397",
)  # fmt: skip
SPLIT_MANIFESTS = ("cub", "h3d", "phrases", "sunatt", "uiuc", "voc07", "voca")
ROLE_MANIFESTS = ("holidays", "oxford5k", "paris6k", "sculptures6k", "ukbench")


@pytest.fixture(scope="module")
def papers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The specs beside data whose names are all that planning looks at."""
    root = tmp_path_factory.mktemp("papers")
    for name in sorted({spec.partition("/")[0] for spec in SPECS}):
        shutil.copytree(PAPERS / name, root / name)
        _write_data(root / name / "data")
    return root


def _write_data(data: Path) -> None:
    for name in FOLDERS:
        for place in ("train/a", "train/b", "test/a", "test/b"):
            (data / name / place).mkdir(parents=True)
            (data / name / place / "1.png").write_text(f"{name}, never decoded by a plan")
    for name in SPLIT_MANIFESTS:
        rows = [f"mit67/{split}/{c}/1.png,{c} {name},{split}" for split in ("train", "test")
                for c in "ab"]  # fmt: skip
        (data / f"{name}.csv").write_text("\n".join(["path,label,split", *rows]))
    for name in ROLE_MANIFESTS:
        rows = [f"mit67/train/a/1.png,a {name},query", f"mit67/train/b/1.png,a {name},reference"]
        (data / f"{name}.csv").write_text("\n".join(["path,label,role", *rows]))
    (data / "coarse.csv").write_text("class,becomes\na,x\nb,y\n")
    (data / "alexnet-other-half.pth").write_bytes(b"weights of the other half")
    for name in ("oxford-iiit-pet", "flowers-102"):
        (data / "torchvision" / name).mkdir(parents=True)
        (data / "torchvision" / name / "images").write_text(name)


def test_every_spec_of_a_paper_is_known_here() -> None:
    """No spec is left out of the test below; fragments and studies tested elsewhere are named."""
    found = {f"{path.parent.name}/{path.stem}" for path in PAPERS.glob("*[0-9]/*.yaml")}
    elsewhere = {"azizpour2016/tasks", "chu2016/study"}
    assert {one for one in found if not one.startswith(("wang2017/", "ge2017/"))} == {
        *SPECS, *elsewhere
    }  # fmt: skip


def test_a_papers_experiments_can_be_enqueued(
    papers: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each has the cells of its design, is short, and names sources that are there."""
    for spec, cells in SPECS.items():
        path = papers / f"{spec}.yaml"
        assert len(path.read_text().splitlines()) <= 60
        assert main(["--home", str(tmp_path), "enqueue", "--json", str(path)]) == 0
        told = json.loads(capsys.readouterr().out)
        assert len(told["runs"]) >= cells
        main(["--home", str(tmp_path), "export", "--format", "json", told["id"]])
        rows = json.loads(capsys.readouterr().out)
        assert len({row["cell"] for row in rows}) == cells
