"""``ftd predict``: kept weights, asked about images, say what the run itself said."""

from __future__ import annotations

import csv
import io
import subprocess
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from ftd.cli.predict import predicted
from ftd.errors import WeightsError
from jobs.layers import treatments
from jobs.measure.predict import Classifier
from jobs.models.build import build
from jobs.models.description import Description
from jobs.records import Preprocessing
from tests.homes import LiveHome

CLASSES = ("dark", "light", "striped")
SPEC = """\
experiment: shades
job: finetune
model: {{name: efficientnet_lite0, weights: imagenet, interpolation: bicubic}}
layers: F(1-last-1)R(last)
target: {{dataset: folder, folder: {folder}, decode_size: 40, crop_size: 32, test_fraction: 0.5}}
train: {{epochs: 2, batch_size: 8, lr: 0.1}}
"""


def picture(kind: str, number: int) -> npt.NDArray[np.uint8]:
    """A picture of a class, 48 x 60 pixels: what differs between decoding sizes is in it."""
    draw = np.random.default_rng([CLASSES.index(kind), number])
    pixels = draw.integers(0, 80, (48, 60, 3))
    if kind == "light":
        pixels += 150
    if kind == "striped":
        pixels[::6] += 170
    return pixels.astype(np.uint8)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> LiveHome:
    """A home with one run that is done."""
    root = tmp_path_factory.mktemp("predict")
    for kind in CLASSES:
        (root / "images" / kind).mkdir(parents=True)
        for number in range(10):
            Image.fromarray(picture(kind, number)).save(root / f"images/{kind}/{number}.png")
    home = LiveHome(root / "home")
    home.enqueue(SPEC.format(folder=root / "images"))
    home.enqueue("experiment: no-network\njob: drill\nsteps: 1\n")
    assert home.finish() == 0, home.log()
    return home


def images(home: LiveHome) -> Path:
    """The folder of images that its run is about."""
    return home.root.parent / "images"


def kept(home: LiveHome, name: str) -> Path:
    """A file that its run kept."""
    return home.root / "runs/r1/attempts/1/artifacts" / name


def test_it_says_what_the_run_said(home: LiveHome) -> None:
    """The probabilities of its test images are those in the run's own table."""
    with kept(home, "predictions.csv").open(newline="") as stream:
        rows = [row for row in csv.DictReader(stream) if row["split"] == "test"]
    assert len(rows) == 15
    paths = [str(images(home) / row["id"]) for row in rows]
    answers = home.json("predict", "r1", *paths)
    assert [answer["image"] for answer in answers] == paths
    assert [answer["predicted"] for answer in answers] == [row["predicted"] for row in rows]
    for answer, row in zip(answers, rows, strict=True):
        said = {name: float(row[f"p({name})"]) for name in CLASSES}
        assert answer["probabilities"] == pytest.approx(said, abs=2e-6)
        assert sum(answer["probabilities"].values()) == pytest.approx(1)


def test_a_folder_is_all_images_in_it(home: LiveHome) -> None:
    """Sorted by path; CSV has every probability."""
    folder = images(home)
    told = home.ftd("predict", "r1", str(folder / "light"), str(folder / "dark" / "0.png"), "--csv")
    assert told.returncode == 0, told.stderr
    rows = list(csv.DictReader(io.StringIO(told.stdout)))
    wanted = [*sorted((folder / "light").iterdir()), folder / "dark" / "0.png"]
    assert [row["image"] for row in rows] == [str(path) for path in wanted]
    assert set(rows[0]) == {"image", "predicted", *(f"p({name})" for name in CLASSES)}
    largest = [max(float(row[f"p({name})"]) for name in CLASSES) for row in rows]
    assert [float(row[f"p({row['predicted']})"]) for row in rows] == largest


def test_an_image_that_cannot_be_read_keeps_nobody_from_the_others(
    home: LiveHome, tmp_path: Path
) -> None:
    """People get a table; it is named with the reason, and the exit status says so."""
    (tmp_path / "broken.png").write_bytes(b"no image")
    good = str(images(home) / "dark" / "0.png")
    told = home.ftd("predict", "r1", str(tmp_path / "broken.png"), good)
    assert told.returncode == 1
    assert f"cannot read {tmp_path / 'broken.png'}: no known kind of image" in told.stderr
    heading, row = told.stdout.splitlines()
    assert heading.split() == ["image", "predicted", "probability"]
    assert row.split()[0] == good and row.split()[1] in CLASSES


@pytest.mark.parametrize(
    ("run", "image", "said"),
    [
        ("r1", "away.png", "there is no file or folder"),
        ("r1", ".", "there are no images in"),
        ("r2", "ftd.toml", "r2 kept no weights.safetensors"),
        ("r9", "ftd.toml", "no run r9"),
    ],
)
def test_what_cannot_be_asked_is_refused(home: LiveHome, run: str, image: str, said: str) -> None:
    """Before anything is computed."""
    folder = home.root / "log" if image == "." else home.root / image
    told = home.ftd("predict", run, str(folder))
    assert told.returncode == 2 and said in told.stderr, told.stderr


def test_weights_that_are_not_those_that_were_kept_are_refused(
    home: LiveHome, tmp_path: Path
) -> None:
    """What is verified when a run reads it is verified here."""
    weights = kept(home, "weights.safetensors")
    before = weights.read_bytes()
    try:
        weights.write_bytes(before[:-1] + bytes([before[-1] ^ 1]))
        told = home.ftd("predict", "r1", str(images(home)))
    finally:
        weights.write_bytes(before)
    assert told.returncode == 2 and "is not what r1 kept" in told.stderr


def test_a_file_of_tensors_alone_is_no_classifier(tmp_path: Path) -> None:
    """It has to say which network it is of, and how images are prepared."""
    path = tmp_path / "a.safetensors"
    for metadata in (None, {"ftd": "{}"}, {"ftd": "[]"}, {"ftd": '{"model": 1}'}):
        save_file({"x": torch.zeros(1)}, path, metadata)
        with pytest.raises(WeightsError, match="does not say which network"):
            Classifier.load(path)


def test_several_labels_have_probabilities_of_their_own(tmp_path: Path) -> None:
    """A sigmoid each, whatever the other classes have; predicted is what is likelier than not."""
    torch.set_num_threads(1)
    network = build(
        "efficientnet_lite0", CLASSES, treatments("R(1-)", 19), None, init_seed=1, dropout_seed=1
    )
    seen = Preprocessing((0.5, 0.5, 0.5), (1.0, 0.5, 0.25), "bilinear")
    told = Description("efficientnet_lite0", "R(1-19)", CLASSES, True, seen, 32, 40)
    path = tmp_path / "a.safetensors"
    save_file(network.state(), path, told.metadata)
    pixels = np.stack([picture(kind, 0)[:40, :40] for kind in CLASSES])
    found = Classifier.load(path).probabilities(pixels)
    network.eval()
    inner = torch.from_numpy(pixels[:, 4:36, 4:36]).permute(0, 3, 1, 2) / 255
    with torch.inference_mode():
        logits = network((inner - 0.5) / torch.tensor([1.0, 0.5, 0.25]).view(1, 3, 1, 1))
    assert found == pytest.approx(torch.sigmoid(logits.double()).numpy(), abs=1e-6)
    assert not np.allclose(found.sum(axis=1), 1)
    head = {"class_names": CLASSES, "multi_label": True}
    assert predicted(head, [0.6, 0.4, 0.9]) == "dark;striped"
    assert predicted(head, [0.1, 0.4, 0.2]) == ""


def test_folders_nested_too_deep_are_said(home: LiveHome, tmp_path: Path) -> None:
    """In one line."""
    subprocess.run(["mkdir", "-p", tmp_path / "/".join("a" * 1200)], check=True)
    told = home.ftd("predict", "r1", str(tmp_path))
    subprocess.run(["rm", "-r", tmp_path / "a"], check=True)  # pytest could not
    assert told.returncode == 2 and told.stderr.count("\n") == 1
    assert "nested too deep" in told.stderr
