"""Randomness belongs to what it is for: one more layer or class, another batch size or another
number of images leave every draw that two runs have in common byte-identical.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

from ftd.seeds import streams
from jobs import records
from jobs.data.augment import Views
from jobs.data.keyed import Bits
from jobs.data.prepare import prepared
from jobs.finetune import Finetune, FinetuneParams
from jobs.layers import numbered, treatments
from jobs.models.build import build
from jobs.models.dropout import DropoutKeys, KeyedDropout
from jobs.train.loop import Training
from tests.context import FolderContext
from tests.finetuning import params

Draws = dict[tuple[Any, ...], bytes]

AUGMENT = {
    "resized_crop": {}, "colour": {"brightness": 0.4}, "rand_augment": {}, "mixup": 1.0,
    "cutmix": 1.0,
}  # fmt: skip
BASE: dict[str, Any] = {
    "model": {"name": "resnet18", "weights": "none"},
    "layers": "R(1-)",
    "target": {
        "per_class": 30, "val_per_class": 20, "test_fraction": 0.3,
        "classes": {"only": ["1", "3", "4", "8"]},
        "decode_size": 32, "crop_size": 32,
    },
    "train": {"batch_size": 16, "augment": AUGMENT, "crop": "none"},
}  # fmt: skip
# what is changed, and the kinds of draws of which the two runs have some in common
EVERY_KIND = {"split", "order", "view", "mix", "dropout", "init"}
CHANGES: dict[str, tuple[Mapping[str, Any], set[str]]] = {
    "one more layer": ({"model": {"name": "resnet34"}}, EVERY_KIND),
    "one more class": (
        {"target": {"classes": {"only": ["1", "3", "4", "5", "8"]}}}, EVERY_KIND
    ),
    "more images": ({"target": {"per_class": 50}}, EVERY_KIND),
    "fewer images": ({"target": {"per_class": 10}}, EVERY_KIND),
    "another batch size": ({"train": {"batch_size": 24}}, EVERY_KIND),
    "no augmentation": ({"train": {"augment": {}}}, EVERY_KIND - {"view", "mix"}),
    "balanced sampling": ({"train": {"sampling": "balanced"}}, EVERY_KIND - {"order"}),
}  # fmt: skip


def wanted(change: Mapping[str, Any]) -> FinetuneParams:
    """The base run with some keys replaced."""
    sections = {
        name: {**value, **change.get(name, {})} if isinstance(value, dict) else value
        for name, value in BASE.items()
    }
    return params(**sections)


def draws(chosen: FinetuneParams, store: Path, replicate: int = 0) -> Draws:
    """Everything that a run draws in two epochs, by what it is drawn for."""
    context = FolderContext(store, shared=store, seeds=streams(1, replicate))
    source = Finetune().inputs(chosen)["target"]
    data = prepared(chosen.target, source, "bilinear", context, None, ())
    preprocessing = records.preprocessing(chosen.model.name)
    training = Training.on(data, chosen.target, chosen.train, preprocessing, context)
    found: Draws = {}
    listing, splits = data.listing, data.splits
    tested = {
        index: name.encode()
        for name in ("val", "test")
        for index in splits.by_name()[name].tolist()
    }
    in_sets = np.concatenate([*splits.by_name().values()]).tolist()
    for index in in_sets:
        found["split", listing.ids[index]] = tested.get(index, b"train")
    order, augmentation = training.order, training.augmentation
    for step in range(2 * order.steps_per_epoch):
        digests = data.images.digests[splits.train[order.batch(step)]]
        keys, epoch = order.keys(step, digests), order.epoch_of(step)
        found |= looks(augmentation.views(epoch, keys), keys, epoch)
        mix = augmentation.mix(epoch, keys)
        masks = dropped(context.seeds["dropout"], step, keys)
        for row, key in enumerate(keys.tolist()):
            found["dropout", step, key] = masks[row].tobytes()
            if mix is not None:
                found["mix", epoch, key] = mix.share[row].numpy().tobytes() + (
                    mix.box[row].numpy().tobytes()
                )
    for epoch in range(2):
        followed = data.images.digests[splits.train[order.epoch(epoch)]].tolist()
        for place, one in enumerate(followed):
            for other in followed[place + 1 :]:
                found["order", epoch, min(one, other), max(one, other)] = str(one < other).encode()
    return found | initial(chosen, listing.class_names, context.seeds)


def looks(views: Views, keys: Bits, epoch: int) -> Draws:
    """What is drawn for each image's view."""
    found: Draws = {}
    for row, key in enumerate(keys.tolist()):
        found["flip", epoch, key] = views.flipped[row].tobytes()
        if views.boxes is not None:
            parts = [views.boxes[row]]
            for retouch in views.retouches:
                parts += [own[row] for own in vars(retouch).values() if hasattr(own, "shape")]
            found["view", epoch, key] = b"".join(part.tobytes() for part in parts)
    return found


def initial(chosen: FinetuneParams, names: tuple[str, ...], seeds: Mapping[str, int]) -> Draws:
    """Initial weights by tensor, those of the classifier by class."""
    model = chosen.model.name
    net = build(
        model, names, treatments("R(1-)", len(numbered(model))), None,
        init_seed=seeds["init"], dropout_seed=seeds["dropout"],
    )  # fmt: skip
    found: Draws = {}
    for name, tensor in net.state().items():
        if name.startswith("fc."):
            for row, of in enumerate(names):
                found["init", name, of] = tensor[row].numpy().tobytes()
        else:
            found["init", name, tuple(tensor.shape)] = tensor.numpy().tobytes()
    return found


def dropped(seed: int, step: int, keys: Bits) -> npt.NDArray[np.float32]:
    """What a dropout makes of twenty units of each sample in a training step."""
    shared = DropoutKeys(seed, step, torch.from_numpy(keys.view(np.int64)))
    masks: npt.NDArray[np.float32]
    masks = KeyedDropout(0.5, "classifier", shared)(torch.ones(len(keys), 20)).numpy()
    return masks


@pytest.fixture(scope="module")
def base(store: Path) -> Draws:
    """What the base run draws."""
    return draws(wanted({}), store)


@pytest.mark.parametrize("what", CHANGES)
def test_common_draws_are_byte_identical(what: str, base: Draws, store: Path) -> None:
    """What two runs both draw is the same in both, and they have much in common."""
    change, kinds = CHANGES[what]
    other = draws(wanted(change), store)
    common = base.keys() & other.keys()
    if what == "balanced sampling":  # is another order, by intention
        common = {key for key in common if key[0] != "order"}
    assert not [key for key in common if base[key] != other[key]]
    assert {key[0] for key in common} == kinds | {"flip"}


def test_another_replicate_draws_everything_anew(base: Draws, store: Path) -> None:
    """The comparison above can fail: with other seeds, draws of every kind differ."""
    other = draws(wanted({}), store, replicate=1)
    common = base.keys() & other.keys()
    differing = Counter(key[0] for key in common if base[key] != other[key])
    assert set(differing) == EVERY_KIND | {"flip"}
