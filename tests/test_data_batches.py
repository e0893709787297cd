"""Batches hold the normalised pixels that the views say, whatever came before."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from ftd.store import Store
from jobs.data.augment import Augmentation
from jobs.data.batches import Loader, _ahead
from jobs.data.digits import digits_listing
from jobs.data.images import Images, decoded
from jobs.data.order import Order
from jobs.records import Preprocessing

PREPROCESSING = Preprocessing((0.4, 0.5, 0.6), (0.2, 0.3, 0.4), "bilinear")


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Images:
    """The digits at 20 pixels."""
    store = Store(Path(tmp_path_factory.mktemp("store")))
    return decoded(
        digits_listing(), "d", 20, "bilinear", store=store, threads=1, progress=lambda *_: None
    )


def reference(images: Images, index: int, top: int, left: int, flipped: bool) -> torch.Tensor:
    """One image by the book: crop, mirror, scale to 0..1, normalise."""
    pixels = torch.from_numpy(images.pixels(index).copy()).permute(2, 0, 1) / 255
    crop = pixels[:, top : top + 16, left : left + 16]
    crop = crop.flip(-1) if flipped else crop
    mean = torch.tensor(PREPROCESSING.mean).view(3, 1, 1)
    return (crop - mean) / torch.tensor(PREPROCESSING.std).view(3, 1, 1)


def test_training_batches(images: Images) -> None:
    """Every image of a training batch is the crop and mirror image that its digest draws."""
    train = np.array([5, 1030, 77, 1500, 9], dtype=np.int64)
    order = Order(images.digests[train], 2, seed=1)
    augmentation = Augmentation(20, 16, flip=True, random_crop=True, seed=2)
    loader = Loader(images, 16, PREPROCESSING, "cpu")
    batches = list(loader.training(train, order, augmentation, range(6)))
    assert [len(batch.labels) for batch in batches] == [1, 2, 2, 1, 2, 2]
    for step, batch in enumerate(batches):
        indices = train[order.batch(step)]
        views = augmentation.views(step // 3, images.digests[indices])
        for row, index in enumerate(indices.tolist()):
            wanted = reference(
                images, index, views.top[row], views.left[row], bool(views.flipped[row])
            )
            torch.testing.assert_close(batch.images[row], wanted, atol=2e-6, rtol=0)
            assert batch.labels[row] == images.listing.labels[index]
            assert batch.keys[row].item() == images.digests[index].astype(np.int64)


def test_a_later_step_alone(images: Images) -> None:
    """Starting at step 4 gives the bytes that going there step by step gives."""
    train = np.arange(40, dtype=np.int64)
    order = Order(images.digests[train], 8, seed=1)
    augmentation = Augmentation(20, 16, flip=True, random_crop=True, seed=2)
    loader = Loader(images, 16, PREPROCESSING, "cpu")
    walked = list(loader.training(train, order, augmentation, range(8)))[4:]
    jumped = list(loader.training(train, order, augmentation, range(4, 8)))
    for one, other in zip(walked, jumped, strict=True):
        assert torch.equal(one.images, other.images) and torch.equal(one.keys, other.keys)


def test_evaluation_batches(images: Images) -> None:
    """Evaluation shows the centre of every image once, in the order asked for."""
    indices = np.array([3, 1200, 8], dtype=np.int64)
    loader = Loader(images, 16, PREPROCESSING, "cpu")
    batches = list(loader.evaluation(indices, 2))
    assert [len(batch.labels) for batch in batches] == [2, 1]
    together = torch.cat([batch.images for batch in batches])
    for row, index in enumerate(indices.tolist()):
        torch.testing.assert_close(
            together[row], reference(images, index, 2, 2, False), atol=2e-6, rtol=0
        )


@pytest.mark.parametrize("count", [0, 1, 2, 7])
def test_loading_ahead_changes_nothing(images: Images, count: int) -> None:
    """A thread that gathers the next batch gives the same batches in the same order."""
    loader = Loader(images, 16, PREPROCESSING, "cpu")
    singles = list(loader.evaluation(np.arange(max(count, 1), dtype=np.int64), 1))
    found = list(_ahead(lambda number: singles[number], range(count)))
    assert [batch.keys.item() for batch in found] == [
        batch.keys.item() for batch in singles[:count]
    ]


def test_a_failure_while_loading_ahead_is_raised(images: Images) -> None:
    """What goes wrong in the thread reaches the loop."""

    def gather(number: int) -> object:
        raise OSError("the disk is gone")

    with pytest.raises(OSError, match="the disk is gone"):
        list(_ahead(gather, range(3)))  # type: ignore[arg-type]
