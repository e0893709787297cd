"""CSV manifests: what they say is what is listed, and what is wrong is named by line and column."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from ftd.errors import DataError
from ftd.inputs import fingerprint
from ftd.store import Store
from jobs import targets
from jobs.data.datasets import listing_of
from jobs.data.images import Images, decoded
from jobs.data.splits import split
from jobs.manifest import read_class_map, read_manifest
from jobs.params.target import TargetParams


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def picture(path: Path, size: tuple[int, int] = (12, 12), colour: str = "red") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, colour).save(path)


def target(base: Path, **fields: Any) -> TargetParams:
    """The resolved target of the manifest m.csv."""
    return targets.resolve(TargetParams(dataset="csv", file="m.csv", **fields), base)


def decode(wanted: TargetParams, store: Path, size: int = 8) -> Images:
    return decoded(
        listing_of(wanted), "made up", size, "bilinear",
        store=Store(store), threads=1, progress=lambda done, total: None,
    )  # fmt: skip


def test_a_manifest_is_listed_in_its_order(tmp_path: Path) -> None:
    """Rows keep their order, labels are numbered by name, quotes and blank lines are CSV's."""
    write(
        tmp_path / "m.csv",
        '\ufefflabel,path\nzebra,z/1.png\n\nant,"a, b.png"\nzebra,./z/../z/2.png\n',
    )
    listing = listing_of(target(tmp_path))
    assert listing.class_names == ("ant", "zebra")
    assert listing.ids == ("z/1.png", "a, b.png", "z/2.png")
    assert listing.labels.tolist() == [1, 0, 1]
    assert listing.groups is None and listing.boxes is None and listing.given is None


def test_images_are_beside_the_manifest_or_in_the_folder_named(tmp_path: Path) -> None:
    """Relative paths start at the manifest's folder, or at target.folder."""
    picture(tmp_path / "a.png")
    picture(tmp_path / "else" / "a.png", colour="blue")
    write(tmp_path / "m.csv", "path,label\na.png,x\nb.png,y\n")
    here = listing_of(target(tmp_path))
    there = listing_of(target(tmp_path, folder="else"))
    assert here.image(here.content(0)).getpixel((0, 0)) == (255, 0, 0)
    assert there.image(there.content(0)).getpixel((0, 0)) == (0, 0, 255)
    with pytest.raises(OSError):
        here.content(1)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "no header"),
        ("path,label\n", "no rows"),
        ("path,class\na,b\n", r"m\.csv:1: 'class' is no column. .*path, label, split, group, box"),
        ("path,path\na,b\n", r"m\.csv:1: 'path' stands twice"),
        ("path,group\na,b\n", r"m\.csv:1: there is no column 'label'"),
        ("path,label\na,b\nc\n", r"m\.csv:3: 1 cells, the header has 2"),
        ("path,label\n,b\n", r"m\.csv:2: column path: the cell is empty"),
        ("path,label\na,\n", r"m\.csv:2: column label: there is no label"),
        ("path,label\na,x;y\n", r"m\.csv:2: column label: several labels .*multi_label: true"),
        ("path,label\na,x\n\n\n../b,y\n", r"m\.csv:5: column path: .* not inside"),
        ("path,label\n/etc/passwd,x\n", r"m\.csv:2: column path: .* not inside"),
        ("path,label\na,x\nb,y\na,x\n", r"m\.csv:4: column path: a stands also in line 2"),
        ("path,label,split\na,x,training\n", r"m\.csv:2: column split: 'training' is none of"),
        ("path,label,box\na,x,1 2 3\n", r"m\.csv:2: column box: '1 2 3' is no box"),
        ("path,label,box\na,x,5 0 5 9\n", r"m\.csv:2: column box"),
        ("path,label,box\na,x,0 0 nan 9\n", r"m\.csv:2: column box"),
        ('path,label\n"a,x\n', r"m\.csv:2: not CSV"),
        ("path,label,split\na,x,train\nb,y,val\n", r"no row of split test"),
        ("path,label\na,x\nb,x\n", "1 classes are too few"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, text: str, says: str) -> None:
    """Line (from 1, the header's) and column of the first mistake."""
    write(tmp_path / "m.csv", text)
    with pytest.raises(DataError, match=says):
        listing_of(target(tmp_path))


def test_a_manifest_that_is_no_text_file(tmp_path: Path) -> None:
    """Other bytes, fifos and folders are refused, and nobody waits for them."""
    (tmp_path / "m.csv").write_bytes(b"path,label\n\xff\xfe,x\n")
    with pytest.raises(DataError, match="not UTF-8"):
        read_manifest(tmp_path / "m.csv", multi_label=False)
    os.mkfifo(tmp_path / "fifo.csv")
    with pytest.raises(DataError, match=r"fifo\.csv"):
        read_manifest(tmp_path / "fifo.csv", multi_label=False)
    with pytest.raises(DataError, match="no file"):
        targets.resolve(TargetParams(dataset="csv", file=str(tmp_path / "fifo.csv")), tmp_path)


def test_a_manifest_is_checked_when_planned(tmp_path: Path) -> None:
    """A mistake in a row is an error of the spec, before anything is enqueued."""
    write(tmp_path / "m.csv", "path,label\na,x\nb,\n")
    with pytest.raises(DataError, match=r"m\.csv:3"):
        target(tmp_path)


def test_a_manifest_that_was_mended_is_read_again(tmp_path: Path) -> None:
    """What was read once is not believed when the file has changed."""
    write(tmp_path / "m.csv", "path,label\na,x\nb,y\n")
    assert len(read_manifest(tmp_path / "m.csv", multi_label=False).rows) == 2
    write(tmp_path / "m.csv", "path,label\na,x\nb,y\nc,z\n")
    assert len(read_manifest(tmp_path / "m.csv", multi_label=False).rows) == 3


def test_manifest_and_images_are_inputs(tmp_path: Path) -> None:
    """Another label, or another image, makes another run."""
    picture(tmp_path / "images" / "a.png")
    write(tmp_path / "m.csv", "path,label\na.png,x\nb.png,y\n")
    wanted = target(tmp_path, folder="images")
    sources = targets.inputs(wanted)
    assert {name: item.kind for name, item in sources.items()} == {
        "target": "folder", "manifest": "file",
    }  # fmt: skip
    before = {name: fingerprint(item) for name, item in sources.items()}
    write(tmp_path / "m.csv", "path,label\na.png,y\nb.png,x\n")
    assert fingerprint(sources["manifest"]) != before["manifest"]
    assert fingerprint(sources["target"]) == before["target"]
    picture(tmp_path / "images" / "b.png")
    assert fingerprint(sources["target"]) != before["target"]


def test_a_box_is_cut_before_resizing(tmp_path: Path) -> None:
    """Only pixels of the box are seen; two boxes of one image are two samples."""
    image = Image.new("RGB", (40, 20), "black")
    image.paste("white", (10, 5, 30, 15))
    (tmp_path / "i").mkdir()
    image.save(tmp_path / "i" / "a.png")
    write(
        tmp_path / "m.csv",
        "path,label,box\ni/a.png,x,10 5 30 15\ni/a.png,y,0 0 10 20\ni/a.png,x,\n",
    )
    found = decode(target(tmp_path), tmp_path / "store")
    assert found.listing.ids == ("i/a.png#10,5,30,15", "i/a.png#0,0,10,20", "i/a.png")
    assert found.pixels(0).min() == 255 and found.pixels(1).max() == 0
    assert len(set(found.digests.tolist())) == 3
    turned = decode(
        target_of(tmp_path / "other", tmp_path / "i", "a.png,y,0 0 10 20\na.png,x,10 5 30 15\n"),
        tmp_path / "store2",
    )
    assert turned.digests.tolist() == [found.digests[1], found.digests[0]]


def target_of(base: Path, folder: Path, rows: str) -> TargetParams:
    write(base / "m.csv", f"path,label,box\n{rows}")
    return target(base, folder=str(folder))


def test_a_box_beyond_the_image_is_named(tmp_path: Path) -> None:
    """A box that does not fit its image cannot be read."""
    picture(tmp_path / "a.png")
    write(tmp_path / "m.csv", "path,label,box\na.png,x,0 0 13 12\na.png,y,0 0 1 1\n")
    with pytest.raises(DataError, match=r"a\.png#0,0,13,12 .*beyond its 12 x 12 pixels"):
        decode(target(tmp_path), tmp_path / "store")


def test_several_labels(tmp_path: Path) -> None:
    """Labels are separated by semicolons; an image may have none."""
    write(tmp_path / "m.csv", "path,label\na,cat; dog\nb,\nc,dog;dog\n")
    listing = listing_of(target(tmp_path, multi_label=True))
    assert listing.class_names == ("cat", "dog") and listing.multi_label
    assert listing.labels.tolist() == [[1, 1], [0, 0], [0, 1]]
    assert listing.images_per_class(np.array([0, 2])).tolist() == [1, 2]


def test_the_manifests_own_split(tmp_path: Path) -> None:
    """A column split is what counts unless another split is asked for."""
    rows = "".join(f"{i},{'xy'[i % 2]},{'train' if i < 8 else 'test'}\n" for i in range(12))
    write(tmp_path / "m.csv", f"path,label,split\n{rows}")
    wanted = target(tmp_path)
    assert wanted.split == "given"
    listing = listing_of(wanted)
    found = split(listing, np.arange(12, dtype=np.uint64), wanted, seed=1)
    assert found.test.tolist() == [8, 9, 10, 11]
    other = target(tmp_path, split="random")
    assert listing_of(other).given is None


def test_a_split_that_is_not_there(tmp_path: Path) -> None:
    """split: given needs the column."""
    write(tmp_path / "m.csv", "path,label\na,x\nb,y\n")
    with pytest.raises(DataError, match="needs a column split"):
        target(tmp_path, split="given")


def test_a_class_map(tmp_path: Path) -> None:
    """Two columns; a class that stands twice is named."""
    path = write(tmp_path / "map.csv", "class,becomes\npug,dog\ntabby,cat\n")
    assert read_class_map(path) == {"pug": "dog", "tabby": "cat"}
    write(path, "class,becomes\npug,dog\npug,cat\n")
    with pytest.raises(DataError, match=r"map\.csv:3: column class: class pug stands twice"):
        read_class_map(path)
