"""Public datasets from local folders: torchvision's by name, and Hugging Face's."""

from __future__ import annotations

import gzip
import inspect
import struct
import sys
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
from PIL import Image

from ftd.errors import DataError
from ftd.inputs import fingerprint
from jobs import targets
from jobs.data.datasets import listing_of
from jobs.data.files import FORMATS
from jobs.data.listing import Listing
from jobs.data.torchvision_sets import SOURCES
from jobs.params.target import TargetParams, TorchvisionName

RNG = np.random.default_rng(1)


def target(name: str, root: Path, **fields: Any) -> TargetParams:
    found = TargetParams.model_validate({"dataset": name, "folder": str(root), **fields})
    return targets.resolve(found, Path("/"))


def pixels(listing: Listing, index: int) -> Any:
    return np.asarray(listing.image(listing.content(index)))


def write_idx(path: Path, values: Any) -> None:
    """The format of MNIST's files."""
    path.parent.mkdir(parents=True, exist_ok=True)
    head = struct.pack(f">HBB{values.ndim}I", 0, 8, values.ndim, *values.shape)
    with gzip.open(path.with_name(path.name + ".gz"), "wb") as stream:
        stream.write(head + values.tobytes())
    path.write_bytes(head + values.tobytes())


@pytest.mark.parametrize("name", ["MNIST", "FashionMNIST", "KMNIST"])
def test_sets_of_the_mnist_family(tmp_path: Path, name: str) -> None:
    """Both sets are listed with the dataset's own split, classes and pixels."""
    images = RNG.integers(0, 256, (30, 28, 28)).astype(np.uint8)
    labels = np.arange(30).astype(np.uint8) % 10
    raw = tmp_path / name / "raw"
    write_idx(raw / "train-images-idx3-ubyte", images[:20])
    write_idx(raw / "train-labels-idx1-ubyte", labels[:20])
    write_idx(raw / "t10k-images-idx3-ubyte", images[20:])
    write_idx(raw / "t10k-labels-idx1-ubyte", labels[20:])
    wanted = target(f"torchvision/{name}", tmp_path)
    assert wanted.split == "given"
    listing = listing_of(wanted)
    assert listing.given == ("train",) * 20 + ("test",) * 10
    assert listing.labels.tolist() == labels.tolist() and len(listing.class_names) == 10
    assert listing.ids[0] == "train/0" and listing.ids[20] == "test/0"
    assert all((pixels(listing, index) == images[index]).all() for index in (0, 19, 20, 29))
    assert listing_of(target(f"torchvision/{name}", tmp_path, split="random")).given is None


def save(path: Path, image_format: str = "png") -> Any:
    """A random picture, and its pixels."""
    path.parent.mkdir(parents=True, exist_ok=True)
    found = RNG.integers(0, 256, (9, 9, 3)).astype(np.uint8)
    Image.fromarray(found).save(path, image_format)
    return found


def test_a_dataset_of_three_sets(tmp_path: Path) -> None:
    """DTD: its own train, val and test, image files by name."""
    shown = {}
    for split in ("train", "val", "test"):
        names = [f"{texture}/{texture}_{split}.jpg" for texture in ("bumpy", "dotted")]
        for name in names:
            shown[name] = save(tmp_path / "dtd/dtd/images" / name)
        labels = tmp_path / "dtd/dtd/labels" / f"{split}1.txt"
        labels.parent.mkdir(exist_ok=True)
        labels.write_text("\n".join(names))
    listing = listing_of(target("torchvision/DTD", tmp_path))
    assert listing.class_names == ("bumpy", "dotted")
    assert listing.given == ("train", "train", "val", "val", "test", "test")
    assert listing.labels.tolist() == [0, 1] * 3
    assert (pixels(listing, 3) == shown["dotted/dotted_val.jpg"]).all()


def test_a_dataset_without_a_test_set(tmp_path: Path) -> None:
    """EuroSAT and Caltech101 have no split of their own, and say so when asked for it."""
    for number in range(2):
        for name in ("Forest", "River"):
            save(tmp_path / "eurosat/2750" / name / f"{name}_{number}.jpg")
    assert target("torchvision/EuroSAT", tmp_path).split == "random"
    assert len(listing_of(target("torchvision/EuroSAT", tmp_path))) == 4
    with pytest.raises(DataError, match="no split of its own"):
        target("torchvision/EuroSAT", tmp_path, split="given")


def test_caltech(tmp_path: Path) -> None:
    """Caltech101's files are found by their numbers."""
    (tmp_path / "caltech101/Annotations").mkdir(parents=True)
    root = tmp_path / "caltech101/101_ObjectCategories"
    (root / "BACKGROUND_Google").mkdir(parents=True)
    shown = [
        save(root / name)
        for name in ("ant/image_0001.jpg", "bee/image_0001.jpg", "bee/image_0002.jpg")
    ]
    listing = listing_of(target("torchvision/Caltech101", tmp_path))
    assert listing.class_names == ("ant", "bee") and listing.labels.tolist() == [0, 1, 1]
    assert all((pixels(listing, index) == shown[index]).all() for index in range(3))


def test_only_known_formats_are_decoded(tmp_path: Path) -> None:
    """PostScript in a file called .jpg, which a decoder would execute, is no image."""
    for name in ("Forest", "River"):
        save(tmp_path / "eurosat/2750" / name / "1.jpg", "eps")
    listing = listing_of(target("torchvision/EuroSAT", tmp_path))
    assert "EPS" not in FORMATS
    with pytest.raises(OSError, match="cannot identify image"):
        pixels(listing, 0)


@pytest.mark.parametrize("name", SOURCES)
def test_files_that_are_not_there(tmp_path: Path, name: str) -> None:
    """The error says how to get them; nothing is downloaded."""
    with pytest.raises(DataError, match=rf"cannot open torchvision's {name} .*download=True"):
        listing_of(target(f"torchvision/{name}", tmp_path))
    assert not any(path.is_file() for path in tmp_path.rglob("*"))


@pytest.mark.parametrize("name", SOURCES)
def test_datasets_are_asked_for_as_torchvision_wants(name: str) -> None:
    """Names of arguments and attributes are those of torchvision's classes."""
    from torchvision import datasets

    source = SOURCES[name]
    kind = getattr(datasets, name)
    for arguments in source.sets.values():
        inspect.signature(kind).bind("root", download=False, **arguments)
    code = "".join(
        inspect.getsource(base) for base in kind.__mro__ if base.__module__.startswith("torchv")
    )
    for attribute in filter(None, (source.labels, source.files)):
        assert f"self.{attribute}" in code


@pytest.mark.parametrize("name", SOURCES)
def test_only_the_datasets_own_folder_is_an_input(name: str) -> None:
    """It is called as torchvision calls it; two datasets are files of the root itself."""
    from torchvision import datasets

    folder = targets.TORCHVISION_FOLDERS[name]
    wanted = TargetParams.model_validate({"dataset": f"torchvision/{name}", "folder": "/data"})
    assert targets.inputs(wanted)["target"].where == str(Path("/data") / folder)
    kind = getattr(datasets, name)
    assert f'"{folder}"' in inspect.getsource(inspect.getmodule(kind)) or folder in ("", name)
    assert bool(folder) is (name not in ("SVHN", "USPS"))


def test_what_is_beside_a_dataset_does_not_matter(tmp_path: Path) -> None:
    """Another dataset below the same root leaves keys as they are."""
    save(tmp_path / "eurosat/2750/River/1.jpg")
    (source,) = targets.inputs(target("torchvision/EuroSAT", tmp_path)).values()
    before = fingerprint(source)
    save(tmp_path / "dtd/1.jpg")
    assert fingerprint(source) == before
    save(tmp_path / "eurosat/2750/River/2.jpg")
    assert fingerprint(source) != before


def test_every_dataset_of_the_spec_is_known() -> None:
    """What a spec may name can be listed."""
    assert {name.removeprefix("torchvision/") for name in get_args(TorchvisionName)} == set(SOURCES)


# --- Hugging Face -----------------------------------------------------------------------------


def test_without_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error says what to install."""
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(DataError, match="package datasets is not installed"):
        listing_of(target("hf", tmp_path))


@pytest.fixture
def hf() -> Any:
    """The optional package."""
    return pytest.importorskip("datasets")


def table(hf: Any, num_rows: int, *, several: bool = False, **columns: Any) -> Any:
    """Random pictures of cats and dogs."""
    images = [
        Image.fromarray(RNG.integers(0, 256, (9, 9, 3)).astype(np.uint8)) for _ in range(num_rows)
    ]
    label = hf.ClassLabel(names=["cat", "dog"])
    labels: list[Any] = [row % 2 for row in range(num_rows)]
    if several:
        label, labels = hf.Sequence(label), [[[], [1], [0, 1]][row % 3] for row in range(num_rows)]
    features = hf.Features({"image": hf.Image(), "label": label})
    return hf.Dataset.from_dict({"image": images, "label": labels, **columns}, features=features)


def test_a_dataset_with_sets(hf: Any, tmp_path: Path) -> None:
    """train, validation and test as they were saved, with their classes' names and pixels."""
    saved = hf.DatasetDict(
        {"train": table(hf, 6), "validation": table(hf, 2), "test": table(hf, 4)}
    )
    saved.save_to_disk(tmp_path / "pets")
    wanted = target("hf", tmp_path / "pets")
    assert wanted.split == "given"
    listing = listing_of(wanted)
    assert listing.class_names == ("cat", "dog")
    assert listing.given == ("train",) * 6 + ("val",) * 2 + ("test",) * 4
    assert listing.labels.tolist() == [0, 1] * 6 and listing.ids[6] == "validation/0"
    assert (pixels(listing, 7) == np.asarray(saved["validation"][1]["image"])).all()


def test_a_single_table_of_other_columns(hf: Any, tmp_path: Path) -> None:
    """One table has no split of its own; columns may be called anything."""
    saved = table(hf, 6).rename_columns({"image": "photo", "label": "kind"})
    saved.save_to_disk(tmp_path / "pets")
    columns = {"image": "photo", "label": "kind"}
    wanted = target("hf", tmp_path / "pets", hf=columns)
    assert wanted.split == "random"
    assert listing_of(wanted).labels.tolist() == [0, 1] * 3
    for column in columns:
        with pytest.raises(DataError, match=rf"target.hf.{column}: .*no column '{column}'"):
            listing_of(target("hf", tmp_path / "pets", hf={**columns, column: column}))


def test_several_labels_per_row(hf: Any, tmp_path: Path) -> None:
    """A list of class labels is a multi-label target."""
    table(hf, 6, several=True).save_to_disk(tmp_path / "pets")
    listing = listing_of(target("hf", tmp_path / "pets", multi_label=True))
    assert listing.labels.tolist() == [[0, 0], [0, 1], [1, 1]] * 2
    with pytest.raises(DataError, match="not a ClassLabel"):
        listing_of(target("hf", tmp_path / "pets"))


def test_a_folder_that_is_no_saved_dataset(hf: Any, tmp_path: Path) -> None:
    """It is named."""
    with pytest.raises(DataError, match="no dataset as save_to_disk writes it"):
        listing_of(target("hf", tmp_path))
