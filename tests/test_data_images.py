"""Images of any kind become squares of RGB bytes, once, and a bad one is named."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ftd.errors import DataError
from ftd.store import Store
from jobs.data.digits import digits_listing
from jobs.data.folder import folder_listing
from jobs.data.images import SHARD, Images, decoded
from jobs.data.listing import Listing
from jobs.data.pixels import rgb, square


def decode(listing: Listing, store: Path, size: int = 8) -> Images:
    return decoded(
        listing, "made up", size, "bilinear", store=Store(store), threads=1, progress=quiet
    )


def quiet(done: int, total: int) -> None:
    """Nobody watches."""


def save(path: Path, image: Image.Image, **options: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path, **options)  # type: ignore[arg-type]


def plain(colour: str, size: tuple[int, int] = (12, 12)) -> Image.Image:
    return Image.new("RGB", size, colour)


def test_the_centre_is_what_remains() -> None:
    """A wide image is resized by its shorter side and loses its left and right."""
    wide = plain("black", (40, 20))
    wide.paste("white", (10, 0, 30, 20))
    found = square(wide, 10, "bilinear")
    assert (found[:, 1:-1] == 255).all()  # the filter sees a little beyond the cut
    assert found[:, [0, -1]].min() > 200


def test_a_square_of_the_right_size_is_untouched() -> None:
    """Nothing is resampled when nothing has to be."""
    pixels = np.random.default_rng(1).integers(0, 256, (16, 16, 3), np.uint8)
    assert (square(Image.fromarray(pixels), 16, "bicubic") == pixels).all()


def test_resizing_agrees_with_torchvision() -> None:
    """Resize and centre crop give torchvision's pixels to rounding."""
    from torchvision.transforms import functional

    noise = np.random.default_rng(1).integers(0, 256, (60, 60, 3), np.uint8)
    image = Image.fromarray(noise)
    wanted = functional.center_crop(functional.resize(image, [20], antialias=True), [20])
    ours = square(image, 20, "bilinear").astype(int)
    assert np.abs(ours - np.asarray(wanted).astype(int)).max() <= 1


@pytest.mark.parametrize(
    ("image", "colour"),
    [
        (Image.new("L", (4, 4), 77), (77, 77, 77)),
        (Image.new("1", (4, 4), 1), (255, 255, 255)),
        (Image.new("LA", (4, 4), (10, 0)), (255, 255, 255)),
        (Image.new("RGBA", (4, 4), (200, 0, 0, 255)), (200, 0, 0)),
        (Image.new("RGBA", (4, 4), (200, 0, 0, 0)), (255, 255, 255)),
        (Image.new("CMYK", (4, 4), (0, 255, 255, 0)), (255, 0, 0)),
        (Image.fromarray(np.full((4, 4), 0x1234, np.uint16)), (0x12, 0x12, 0x12)),
        (plain("blue").convert("P"), (0, 0, 255)),
    ],
    ids=["grey", "bits", "grey alpha", "opaque", "transparent", "cmyk", "16 bits", "palette"],
)
def test_every_kind_of_pixel(image: Image.Image, colour: tuple[int, int, int]) -> None:
    """Every pixel format becomes the RGB colour that a viewer would show on white."""
    assert rgb(image).getpixel((0, 0)) == colour


def test_a_transparent_palette_png(tmp_path: Path) -> None:
    """A palette whose colour 0 is transparent shows white there."""
    image = Image.new("P", (4, 4), 0)
    image.putpalette([0, 0, 0, 255, 0, 0] + [0] * 762)
    image.save(tmp_path / "x.png", transparency=0)
    with Image.open(tmp_path / "x.png") as stored:
        assert rgb(stored).getpixel((0, 0)) == (255, 255, 255)


def test_pixels_that_are_no_colours_are_refused() -> None:
    """Floating-point images are named as such instead of being clipped."""
    with pytest.raises(ValueError, match="floating-point"):
        rgb(Image.new("F", (4, 4)))


def test_exif_orientation(tmp_path: Path) -> None:
    """A photograph taken with the camera turned comes out upright."""
    image = plain("black", (16, 16))
    image.paste("white", (0, 0, 16, 8))  # white above
    exif = Image.Exif()
    exif[0x0112] = 3  # upside down
    save(tmp_path / "a" / "x.png", image, exif=exif)
    save(tmp_path / "b" / "x.png", image)
    found = decode(folder_listing(tmp_path, given=False), tmp_path / "store", 16)
    assert found.pixels(0)[:8].max() == 0 and found.pixels(1)[:8].min() == 255


def test_an_empty_class_folder_does_not_shift_labels(tmp_path: Path) -> None:
    """Labels follow the class folders' names, whether there are images in them or not."""
    for name in ("ant", "cat"):
        save(tmp_path / name / "x.png", plain("red"))
    (tmp_path / "bee").mkdir()
    (tmp_path / "cat" / "notes.txt").write_text("no image")
    save(tmp_path / "cat" / ".hidden.png", plain("red"))
    listing = folder_listing(tmp_path, given=False)
    assert listing.class_names == ("ant", "bee", "cat")
    assert listing.ids == ("ant/x.png", "cat/x.png")
    assert listing.labels.tolist() == [0, 2]


def test_a_given_split_with_a_class_in_one_set_only(tmp_path: Path) -> None:
    """All sets share one numbering of the classes."""
    for path in ("train/a/1.png", "train/c/1.png", "test/b/1.png", "test/c/2.png"):
        save(tmp_path / path, plain("red"))
    listing = folder_listing(tmp_path, given=True)
    assert listing.class_names == ("a", "b", "c")
    assert dict(zip(listing.ids, listing.labels.tolist(), strict=True)) == {
        "train/a/1.png": 0, "train/c/1.png": 2, "test/b/1.png": 1, "test/c/2.png": 2,
    }  # fmt: skip
    assert listing.given == ("train", "train", "test", "test")


@pytest.mark.parametrize("kind", ["empty", "one class", "no test"])
def test_unusable_folders_are_refused(tmp_path: Path, kind: str) -> None:
    """What is missing in a folder is said, and where."""
    if kind != "empty":
        save(tmp_path / "train" / "a" / "1.png", plain("red"))
    with pytest.raises(DataError, match=str(tmp_path)):
        folder_listing(tmp_path, given=kind == "no test")


@pytest.mark.parametrize(
    "damage",
    [lambda data: data[: len(data) // 2], lambda data: b"not an image", lambda data: b""],
    ids=["truncated", "text", "empty"],
)
def test_a_corrupt_image_is_named(tmp_path: Path, damage: Callable[[bytes], bytes]) -> None:
    """The error names the folder and the file; nothing half-decoded stays in the store."""
    noise = np.random.default_rng(1).integers(0, 256, (64, 64, 3), np.uint8)
    for name in ("a/1.png", "b/2.png"):
        save(tmp_path / name, Image.fromarray(noise))
    bad = tmp_path / "b" / "2.png"
    bad.write_bytes(damage(bad.read_bytes()))
    with pytest.raises(DataError, match=r"cannot read image b/2\.png") as caught:
        decode(folder_listing(tmp_path, given=False), tmp_path / "store")
    assert caught.value.where == str(tmp_path)
    assert "object at 0x" not in str(caught.value)
    assert not list((tmp_path / "store").rglob("*.npy"))


def test_decoding_goes_on_where_it_was_interrupted(tmp_path: Path) -> None:
    """After an interruption only the shards that are not yet whole are decoded."""
    listing = digits_listing()
    read: list[int] = []

    def content(index: int) -> bytes:
        read.append(index)
        return listing.content(index)

    def leave(done: int, total: int) -> None:
        raise KeyboardInterrupt

    counted = replace(listing, content=content)
    with pytest.raises(KeyboardInterrupt):
        decoded(counted, "d", 8, "bilinear", store=Store(tmp_path), threads=1, progress=leave)
    assert read == list(range(SHARD))
    resumed = decoded(counted, "d", 8, "bilinear", store=Store(tmp_path), threads=1, progress=quiet)
    assert read == list(range(len(listing)))
    whole = decode(listing, tmp_path / "other")
    assert resumed.digests.tolist() == whole.digests.tolist()
    for index in (0, SHARD - 1, SHARD, len(listing) - 1):
        assert (resumed.pixels(index) == whole.pixels(index)).all()


def test_decoding_with_threads_changes_nothing(tmp_path: Path) -> None:
    """Several threads give the same bytes in the same order."""
    listing = digits_listing()
    one = decode(listing, tmp_path / "one")
    four = decoded(
        listing, "x", 8, "bilinear", store=Store(tmp_path / "four"), threads=4, progress=quiet
    )
    assert one.digests.tolist() == four.digests.tolist()
    for ours, theirs in zip(one.shards, four.shards, strict=True):
        assert (ours == theirs).all()


def test_what_decoding_depends_on_is_in_the_stores_key(tmp_path: Path) -> None:
    """Another size, interpolation or dataset is another entry; the same one is found again."""
    listing = replace(digits_listing(), ids=digits_listing().ids[:4])
    store = Store(tmp_path)
    for fingerprint, size, interpolation in (
        ("a", 8, "bilinear"), ("a", 8, "bilinear"), ("a", 9, "bilinear"), ("a", 8, "bicubic"),
        ("b", 8, "bilinear"),
    ):  # fmt: skip
        decoded(listing, fingerprint, size, interpolation, store=store, threads=1, progress=quiet)
    assert len(list((tmp_path / "images").glob("*/images.npy"))) == 4
