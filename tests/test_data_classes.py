"""Classes merged, chosen and drawn: samples follow, numbering is dense, draws are nested."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ftd.errors import DataError
from jobs.data.classes import with_classes
from jobs.data.listing import Listing
from jobs.params.classes import ClassesParams
from tests.listings import made_up

NAMES = ("pug", "tabby", "poodle", "siamese", "carp")


def pets() -> Listing:
    return replace(made_up([0, 1, 2, 3, 4, 0, 1]), class_names=NAMES)


def chosen(seed: int = 1, **fields: Any) -> tuple[list[str], list[str]]:
    """The class names, and the new class of every sample that is left ('' for the others)."""
    listing, members = with_classes(pets(), ClassesParams(**fields), seed)
    labels = listing.labels.tolist()
    assert members.tolist() == [i for i, label in enumerate(labels) if label >= 0]
    return list(listing.class_names), [
        listing.class_names[label] if label >= 0 else "" for label in labels
    ]


def test_nothing_asked_changes_nothing() -> None:
    """All classes stay, in the dataset's own order."""
    assert chosen() == (list(NAMES), [NAMES[label] for label in pets().labels])


def test_merging() -> None:
    """Several classes become one, the others stay as they are."""
    names, labels = chosen(merge={"dog": ["pug", "poodle"], "cat": ["tabby", "siamese"]})
    assert names == ["dog", "cat", "carp"]
    assert labels == ["dog", "cat", "dog", "cat", "carp", "dog", "cat"]
    assert chosen(merge={"pug": ["pug", "poodle"]})[0] == ["pug", "tabby", "siamese", "carp"]


def test_only_and_drop() -> None:
    """Classes are chosen after merging; samples of the others take no part."""
    fields: dict[str, Any] = {"merge": {"dog": ["pug", "poodle"]}}
    assert chosen(only=["dog", "carp"], **fields)[1] == ["dog", "", "dog", "", "carp", "dog", ""]
    assert chosen(drop=["dog"], **fields)[0] == ["tabby", "siamese", "carp"]


def test_a_map_from_a_file(tmp_path: Path) -> None:
    """A line for every class; one that has none is named."""
    path = tmp_path / "map.csv"
    path.write_text("class,becomes\n" + "".join(f"{name},{name[0]}\n" for name in NAMES))
    assert chosen(map=str(path))[0] == ["p", "t", "s", "c"]
    path.write_text("class,becomes\npug,dog\n")
    with pytest.raises(DataError, match="class tabby of made up has no line"):
        chosen(map=str(path))


@given(st.integers(0, 2**62), st.integers(2, 5), st.integers(2, 5))
def test_drawn_classes_are_nested(seed: int, one: int, other: int) -> None:
    """A smaller number draws among the classes of a larger one."""
    fewer, more = sorted([one, other])
    small, large = chosen(seed, num_classes=fewer)[0], chosen(seed, num_classes=more)[0]
    assert len(small) == fewer and set(small) <= set(large)


def test_the_draw_depends_on_the_seed_and_on_names() -> None:
    """Other seeds draw other classes; leaving out one that was not drawn changes nothing."""
    draws = {tuple(chosen(seed, num_classes=2)[0]) for seed in range(20)}
    assert len(draws) > 5
    drawn = chosen(3, num_classes=2)[0]
    left = next(name for name in NAMES if name not in drawn)
    assert chosen(3, num_classes=2, drop=[left])[0] == drawn


def test_several_labels_are_merged_by_or() -> None:
    """An image that has one of the merged labels has the new one; dropped columns go."""
    several = replace(
        pets(),
        labels=np.array([[1, 0, 0, 0, 0], [0, 1, 1, 0, 0], [0, 0, 0, 0, 1]]),
        ids=tuple("abc"),
    )
    wanted = ClassesParams(merge={"dog": ["pug", "poodle"]}, drop=["carp"])
    listing, members = with_classes(several, wanted, 1)
    assert listing.class_names == ("dog", "tabby", "siamese")
    assert listing.labels.tolist() == [[1, 0, 0], [1, 1, 0], [0, 0, 0]]
    assert members.tolist() == [0, 1, 2]


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"merge": {"dog": ["pugg"]}}, "no class 'pugg'. Did you mean 'pug'"),
        ({"merge": {"carp": ["pug", "poodle"]}}, "'carp' is a class of made up already"),
        ({"only": ["pug", "cat"]}, "no class 'cat'"),
        ({"drop": ["dog"]}, "no class 'dog'"),
        ({"only": ["pug"]}, "leave 1 class"),
        ({"num_classes": 6}, "num_classes: 6 asked for, but there are only 5"),
    ],
)
def test_names_that_do_not_exist(fields: dict[str, Any], says: str) -> None:
    """What the dataset does not have is named, with the nearest that it has."""
    with pytest.raises(DataError, match=says):
        chosen(**fields)
