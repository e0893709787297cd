"""Pictures in two sets are counted and, on request, do not train; bad files may be skipped."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from ftd.errors import DataError
from jobs import targets
from jobs.data.digits import digits_listing
from jobs.data.perceptual import NEAR_BITS, has_near, perceptual_hash
from jobs.data.prepare import Data, prepared
from jobs.params.target import TargetParams
from tests.context import FolderContext

bits = st.integers(0, 2**64 - 1)


def photograph(seed: int, size: int = 48) -> Image.Image:
    """Smooth noise in colour."""
    noise = np.random.default_rng(seed).integers(0, 256, (6, 6, 3)).astype(np.uint8)
    return Image.fromarray(noise).resize((size, size), Image.Resampling.BICUBIC)


def pixels(image: Image.Image) -> Any:
    return np.asarray(image.convert("RGB"))


def jpeg(image: Image.Image) -> Image.Image:
    stream = io.BytesIO()
    image.save(stream, "jpeg", quality=85)
    return Image.open(stream)


def distance(one: Image.Image, other: Image.Image) -> int:
    return (perceptual_hash(pixels(one)) ^ perceptual_hash(pixels(other))).bit_count()


@pytest.mark.parametrize("seed", range(5))
def test_a_picture_saved_again_is_near(seed: int) -> None:
    """Other compression, size or brightness keeps the hash within the bound; others are far."""
    picture = photograph(seed)
    assert distance(picture, jpeg(picture)) <= NEAR_BITS
    assert distance(picture, picture.resize((64, 64), Image.Resampling.BICUBIC)) <= NEAR_BITS
    assert distance(picture, picture.point(lambda value: value * 0.8)) <= NEAR_BITS
    assert distance(picture, photograph(seed + 100)) > 10


def test_an_even_picture_has_a_hash() -> None:
    """Nothing to see is 0, whatever its brightness."""
    assert {perceptual_hash(np.full((9, 9, 3), grey, np.uint8)) for grey in (0, 90, 255)} == {0}


@given(st.lists(bits, min_size=1, max_size=40), st.lists(bits, min_size=1, max_size=40), st.data())
def test_the_search_for_near_hashes(one: list[int], other: list[int], data: st.DataObject) -> None:
    """It finds what comparing all pairs finds."""
    for _ in range(data.draw(st.integers(0, 5))):
        flips = data.draw(st.lists(st.integers(0, 63), max_size=4))
        other.append(data.draw(st.sampled_from(one)) ^ sum(1 << flip for flip in set(flips)))
    found = has_near(np.array(one, np.uint64), np.array(other, np.uint64))
    wanted = [min((a ^ b).bit_count() for b in other) <= NEAR_BITS for a in one]
    assert found.tolist() == wanted


def test_digits_are_not_near_one_another() -> None:
    """Of 1,797 digits few look so alike that they would be taken for copies."""
    listing = digits_listing()
    images = [pixels(listing.image(listing.content(i)).resize((32, 32))) for i in range(600)]
    hashes = np.array([perceptual_hash(image) for image in images], np.uint64)
    assert has_near(hashes[:300], hashes[300:]).sum() <= 3


# --- through the preparation of a run ---------------------------------------------------------


def prepare(base: Path, **fields: Any) -> tuple[Data, FolderContext]:
    """The data of a run on the folder `base`/images."""
    wanted = TargetParams(
        dataset="folder", folder=str(base / "images"), decode_size=48, split="given", **fields
    )
    resolved = targets.resolve(wanted, base)
    context = FolderContext(base / "run", shared=base / "store")
    context.root.mkdir(exist_ok=True)
    source = targets.inputs(resolved)["target"]
    return prepared(resolved, source, "bilinear", context, None, ()), context


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """Sets of four pictures per class; one of the test is also in train, another nearly so."""
    seed = 0
    for split in ("train", "val", "test"):
        for name in ("a", "b"):
            folder = tmp_path / "images" / split / name
            folder.mkdir(parents=True)
            for number in range(4):
                photograph(seed).save(folder / f"{number}.png")
                seed += 1
    root = tmp_path / "images"
    (root / "train/a/0.png").write_bytes((root / "test/b/1.png").read_bytes())
    jpeg(Image.open(root / "test/a/2.png")).save(root / "train/b/3.png")
    return tmp_path


def note(context: FolderContext, kind: str) -> dict[str, Any]:
    (found,) = (data for what, data in context.notes if what == kind)
    return found


def test_twins_are_reported(images: Path) -> None:
    """The note counts them by pair of sets and names some; the results count the test's."""
    data, context = prepare(images)
    assert data.metrics["data/identical_in_train"] == data.metrics["data/near_in_train"] == 1
    assert data.metrics["data/num_train"] == 8
    found = note(context, "data")["duplicates"]
    assert found["identical"] == {"val in train": 0, "test in train": 1, "test in val": 0}
    assert found["near"] == {"val in train": 0, "test in train": 1, "test in val": 0}
    assert found["near_bits"] == NEAR_BITS
    assert sorted(found["examples"]) == ["test/a/2.png", "test/b/1.png"]


def test_the_same_pixels_in_another_file_are_identical(images: Path) -> None:
    """Content is what is decoded, not the bytes of the file."""
    again = Image.open(images / "images/test/a/2.png")
    again.save(images / "images/train/b/3.png", compress_level=0, pnginfo=None)
    data, _ = prepare(images)
    assert data.metrics["data/identical_in_train"] == 2


def test_twins_are_left_out_of_training(images: Path) -> None:
    """drop_from_train takes them out of the training set, never out of the test."""
    data, _ = prepare(images, duplicates="drop_from_train")
    left = [data.listing.ids[index] for index in data.splits.train]
    assert sorted(left) == [f"train/a/{n}.png" for n in (1, 2, 3)] + [
        f"train/b/{n}.png" for n in (0, 1, 2)
    ]
    assert data.metrics["data/identical_in_train"] == data.metrics["data/near_in_train"] == 0
    assert data.metrics["data/num_test"] == 8


def test_twins_are_dropped_before_images_are_chosen(images: Path) -> None:
    """A number per class is reached with the images that are left."""
    data, _ = prepare(images, duplicates="drop_from_train", per_class=3)
    assert data.listing.images_per_class(data.splits.train).tolist() == [3, 3]


def test_dropping_a_whole_class_is_refused(images: Path) -> None:
    """A class whose training images are all tested on is named."""
    for number in range(4):
        source = images / f"images/test/a/{number}.png"
        (images / f"images/train/a/{number}.png").write_bytes(source.read_bytes())
    with pytest.raises(DataError, match=r"no training image of class a"):
        prepare(images, duplicates="drop_from_train")


# --- images that cannot be read ---------------------------------------------------------------


def damage(images: Path) -> None:
    (images / "images/train/a/1.png").write_bytes(b"no image")
    torn = images / "images/test/b/2.png"
    torn.write_bytes(torn.read_bytes()[:200])


def test_a_bad_image_is_an_error(images: Path) -> None:
    """Unless asked otherwise; the message says how to ask."""
    damage(images)
    with pytest.raises(DataError, match=r"cannot read image .*corrupt: skip"):
        prepare(images)


def test_bad_images_are_skipped_and_recorded(images: Path) -> None:
    """They are in no set; a note counts them and a file says which and why."""
    damage(images)
    data, context = prepare(images, corrupt="skip")
    assert data.metrics["data/num_train"] == 7 and data.metrics["data/num_test"] == 7
    assert note(context, "skipped") == {"num_images": 2, "recorded_in": "skipped.json"}
    said = json.loads((context.root / "artifacts/skipped.json").read_text())
    assert set(said) == {"train/a/1.png", "test/b/2.png"} and all(said.values())
    again, _ = prepare(images, corrupt="skip")
    assert again.splits.train.tolist() == data.splits.train.tolist(), "also from the store"


def test_nothing_to_read_at_all(images: Path) -> None:
    """Skipping everything is an error."""
    for path in (images / "images").rglob("*.png"):
        path.write_bytes(b"no image")
    with pytest.raises(DataError, match="no image can be read"):
        prepare(images, corrupt="skip")


def test_good_images_are_the_same_whether_others_may_be_skipped(images: Path) -> None:
    """corrupt: skip changes nothing where every image can be read."""
    one, context = prepare(images)
    other, _ = prepare(images, corrupt="skip")
    assert one.splits.train.tolist() == other.splits.train.tolist()
    assert one.images.digests.tolist() == other.images.digests.tolist()
    assert [what for what, _ in context.notes] == ["data"]
