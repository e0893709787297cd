"""Images of a pool that the target is validated or tested on."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from jobs.data.digits import digits_listing
from jobs.data.images import Images, decoded
from jobs.descriptors.leakage import leaked
from tests.context import FolderContext


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Images:
    """40 digits whose looks differ."""
    whole = digits_listing()
    listing = replace(whole, ids=whole.ids[:40], labels=whole.labels[:40])
    store = FolderContext(tmp_path_factory.mktemp("images")).store
    found = decoded(
        listing, "digits", 28, "bilinear", store=store, threads=1, progress=lambda *_: None
    )
    rng = np.random.default_rng(0)
    return replace(found, hashes=rng.integers(0, 2**64, 40, np.uint64))


def of_pool(images: Images, rows: list[int]) -> Images:
    """A pool that has pictures of its own, but for `rows`."""
    pixels = images.pixel_digests + np.uint64(1)
    hashes = ~images.hashes
    pixels[rows], hashes[rows] = images.pixel_digests[rows], images.hashes[rows]
    return replace(images, pixel_digests=pixels, hashes=hashes)


def test_held_out_pictures_are_found(images: Images) -> None:
    """Rows with the pixels of a test or validation image, and near ones, are told and counted;
    training images may be borrowed."""
    pool = of_pool(images, [1, 2, 21, 31])
    pool.pixel_digests[2] += np.uint64(1)
    pool.hashes[2] ^= np.uint64(0b11)  # two bits
    train, val, test = np.arange(20, 30), np.arange(10), np.arange(30, 40)
    everything = np.arange(40)
    found = leaked(images, test, val, pool, everything)
    assert found.identical.tolist() == [1, 31] and found.near.tolist() == [2]
    assert found.rows.tolist() == [1, 2, 31]
    assert (found.num_of_test, found.num_of_val) == (1, 2)
    assert not set(train) & set(found.rows.tolist())
    assert leaked(images, test, val, pool, np.array([2, 5])).rows.tolist() == [2]


def test_a_picture_held_out_twice_counts_for_both(images: Images) -> None:
    """Left out once."""
    found = leaked(images, np.array([3]), np.array([3]), of_pool(images, [3]), np.arange(40))
    assert found.rows.tolist() == [3] and (found.num_of_test, found.num_of_val) == (1, 1)


def test_without_held_out_images_nothing_leaks(images: Images) -> None:
    """No validation set, or another pool."""
    nobody = np.array([], np.int64)
    assert leaked(images, nobody, nobody, images, np.arange(40)).rows.tolist() == []
    assert leaked(images, np.arange(40), nobody, of_pool(images, []), np.arange(40)).rows.size == 0


def test_a_pool_that_is_the_target_gives_everything_away(images: Images, tmp_path: Path) -> None:
    """With hashes as they are, every held-out image is found in a copy of its dataset."""
    whole = digits_listing()
    listing = replace(whole, ids=whole.ids[:40], labels=whole.labels[:40])
    store = FolderContext(tmp_path).store
    real = decoded(
        listing, "digits", 28, "bilinear", store=store, threads=1, progress=lambda *_: None
    )
    found = leaked(real, np.arange(10), np.array([], np.int64), real, np.arange(40))
    assert set(range(10)) <= set(found.rows.tolist())
    assert set(found.identical.tolist()) >= set(range(10))
