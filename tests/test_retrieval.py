"""Retrieval: who asks, how rankings are judged, patches, and the job itself."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from pydantic import ValidationError
from scipy.spatial.distance import cdist
from sklearn.metrics import average_precision_score

from ftd.errors import DataError, InputError
from ftd.job import Completed
from ftd.seeds import streams
from jobs.distances.patches import patch_distances, patch_views
from jobs.distances.ranked import Ranked
from jobs.manifest import read_manifest
from jobs.params.retrieval import RetrievalParams
from jobs.retrieval import Retrieval
from tests.context import FolderContext
from tests.resume import Case, Stop, at_random, check_ways, run_whole

pytestmark = pytest.mark.usefixtures("torch_left_as_found")

SEEDS = st.integers(0, 1000)
MINI = {"name": "mini8", "weights": "none"}
DIGITS = {
    "dataset": "digits", "decode_size": 28, "test_per_class": 6, "val_per_class": 1, "per_class": 5,
}  # fmt: skip


# --- rankings ---------------------------------------------------------------------------------


@given(SEEDS)
@settings(max_examples=40)
def test_average_precision_is_scikit_learns(seed: int) -> None:
    """Also where distances tie; what is not counted might as well not be there."""
    draw = np.random.default_rng(seed)
    distances = draw.integers(0, 12, 30) / 4
    wanted = draw.random(30) < 0.3
    counted = draw.random(30) < 0.8
    wanted[3] = counted[3] = True
    wanted &= counted
    found = Ranked.of(distances, wanted, counted, [1, 4])
    wish = average_precision_score(wanted[counted], -distances[counted])
    assert found.average_precision == pytest.approx(wish)
    assert set(found.nearest) == set(np.flatnonzero(counted))


def test_ranking_by_hand() -> None:
    """Junk at the top is removed before ranking; the right answers are then first and third."""
    distances = np.array([0.1, 0.2, 0.3, 0.4, 0.5])
    wanted = np.array([False, True, False, True, False])
    counted = np.array([False, True, True, True, True])
    found = Ranked.of(distances, wanted, counted, [1, 2, 3])
    assert found.average_precision == pytest.approx((1 / 1 + 2 / 3) / 2)
    assert found.recall == (0.5, 0.5, 1.0)
    assert found.hit == (1, 1, 1)
    assert found.nearest.tolist() == [1, 2, 3, 4]


# --- patches ----------------------------------------------------------------------------------


def test_patches_cover_the_image() -> None:
    """30 patches in four levels and 14 in three; squares that overlap by half and leave no gap."""
    assert [len(patch_views(levels)) for levels in (1, 2, 3, 4)] == [1, 5, 14, 30]
    assert len({view.name for view in patch_views(8)}) == 204
    digests = np.zeros(1, np.uint64)
    for level in range(1, 5):
        covered = np.zeros((60, 60), np.int64)
        views = patch_views(level)[-(level**2) :]
        for view in views:
            boxes = view.look(60, 30, digests, "bilinear").boxes
            assert boxes is not None
            top, left, height, width = boxes[0].tolist()
            assert height == width == round(2 * 60 / (level + 1))
            covered[top : top + height, left : left + width] += 1
        assert covered.min() >= 1
        assert covered.max() <= 4


@given(SEEDS, st.integers(1, 5), st.integers(1, 4))
@settings(max_examples=30)
def test_patch_distances_by_definition(seed: int, num_query: int, num_reference: int) -> None:
    """The mean over the query's patches of the least distance to a reference's."""
    draw = np.random.default_rng(seed)
    queries = draw.normal(size=(4, num_query, 6))
    references = draw.normal(size=(9, num_reference, 6))
    wanted = [
        [cdist(query, reference).min(axis=1).mean() for reference in references]
        for query in queries
    ]
    for chunk in (1, 100, 1 << 22):
        found = [*patch_distances(queries, references, chunk)]
        np.testing.assert_allclose(found, wanted, rtol=1e-9)


# --- the job ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def album(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A manifest of three things: a query, two or three references and junk of each, and more."""
    root = tmp_path_factory.mktemp("album")
    draw = np.random.default_rng(2)
    rows = []
    for thing in range(3):
        pattern = draw.integers(0, 256, (7, 7, 3))
        roles = ["query", "reference", "reference", "junk", *["reference"] * (thing == 2)]
        for number, role in enumerate(roles):
            noise = draw.integers(-20, 21, (28, 28, 3))
            pixels = np.clip(np.kron(pattern, np.ones((4, 4, 1))) + noise, 0, 255)
            name = f"{thing}-{number}.png"
            Image.fromarray(pixels.astype(np.uint8)).save(root / name)
            rows.append([name, f"thing{thing}", role])
    for number in range(4):
        pixels = draw.integers(0, 256, (28, 28, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(root / f"other-{number}.png")
        rows.append([f"other-{number}.png", "distractor", "reference"])
    with (root / "album.csv").open("w", newline="") as stream:
        csv.writer(stream).writerows([["path", "label", "role"], *rows])
    return root / "album.csv"


def params(**more: Any) -> RetrievalParams:
    """Resolved parameters; queries of the digits' classes unless said otherwise."""
    job = Retrieval()
    raw = {"model": MINI, "target": DIGITS, "features": {"layer": "conv5"}, **more}
    if not {"queries", "instances", "target"} & set(more):
        raw["queries"] = {}
    return job.resolve(job.Params.model_validate(raw), Path())


def of(album: Path, **more: Any) -> RetrievalParams:
    return params(target={"dataset": "csv", "file": str(album), "decode_size": 28}, **more)


def counted(
    root: Path, wanted: RetrievalParams, shared: Path | None = None, **context: Any
) -> tuple[Completed, float]:
    """What a run found, and how many images went through the network."""
    root.mkdir()
    seen = FolderContext(root, shared=shared, **context)
    completed = Retrieval().run(wanted, seen)
    return completed, sum(value for name, value, _ in seen.timings if "num_forwards" in name)


def metrics(root: Path, wanted: RetrievalParams, **context: Any) -> Mapping[str, float]:
    return counted(root, wanted, **context)[0].metrics


def test_a_manifest_says_who_asks(album: Path, tmp_path: Path) -> None:
    """Queries find their own; junk of their label is passed over; what was found is kept."""
    found = metrics(tmp_path / "a", of(album))
    assert found["data/num_queries"] == 3
    assert found["data/num_references"] == 7 + 3 + 4
    assert found["test/map"] == 1 == found["test/hit_at_1"]
    assert found["test/recall_at_4"] == 1
    rows = [*csv.reader((tmp_path / "a/artifacts/retrieved.csv").open())]
    assert len(rows) == 1 + 3
    for query, precision, *nearest in rows[1:]:
        thing, _ = query.split("-")
        assert float(precision) == 1
        assert {name for name in nearest if name.endswith("*")} == {
            f"{thing}-{n}.png*" for n in (1, 2, *([4] if thing == "2" else []))
        }
        assert f"{thing}-3.png" not in nearest
        assert any(name.endswith("-3.png") for name in nearest), "others' junk is ranked"


def test_no_query_without_an_answer(album: Path, tmp_path: Path) -> None:
    """A query whose label no reference has is named."""
    rows = album.read_text().replace("0-1.png,thing0,reference", "0-1.png,thing0,junk")
    rows = rows.replace("0-2.png,thing0,reference", "0-2.png,thing0,junk")
    other = album.with_name("other.csv")
    other.write_text(rows)
    with pytest.raises(DataError, match=r"query 0-0\.png has no reference"):
        metrics(tmp_path / "a", of(other))


def test_classes_ask(tmp_path: Path, store: Path) -> None:
    """Some test images of each class ask for the others; queries are drawn and nested."""
    found = metrics(tmp_path / "a", params(queries={"per_class": 2}), shared=store)
    assert (found["data/num_queries"], found["data/num_references"]) == (20, 40)
    assert 0.1 < found["test/map"] < 1

    def asked(name: str, per_class: int, replicate: int = 0) -> set[str]:
        wanted = params(queries={"per_class": per_class})
        metrics(tmp_path / name, wanted, shared=store, seeds=streams(1, replicate))
        rows = csv.reader((tmp_path / name / "artifacts/retrieved.csv").open())
        return {row[0] for row in rows} - {"query"}

    one, two = asked("b", 1), asked("c", 2)
    assert one < two
    assert asked("d", 1, replicate=1) != one
    with pytest.raises(DataError, match="6 of them cannot ask for others"):
        metrics(tmp_path / "e", params(queries={"per_class": 6}), shared=store)


def test_views_ask_for_one_another(tmp_path: Path, store: Path) -> None:
    """Every view of a test image wants the others of it; more alike views are found more often."""
    found = metrics(tmp_path / "a", params(instances={"views": 3}), shared=store)
    assert found["data/num_queries"] == found["data/num_references"] == 3 * 60
    near = {"views": 3, "scale": [0.98, 1.0], "flip": False}
    same = metrics(tmp_path / "b", params(instances=near), shared=store)
    assert same["test/map"] > found["test/map"] > 0.02
    rows = [*csv.reader((tmp_path / "a/artifacts/retrieved.csv").open())]
    assert all(row[0] not in [name.rstrip("*") for name in row[2:]] for row in rows[1:])
    coloured = {"views": 3, "colour": {"brightness": 0.9, "contrast": 0.9}}
    assert metrics(tmp_path / "c", params(instances=coloured), shared=store) != found


def test_patches_of_one_level_are_whole_images(tmp_path: Path, store: Path) -> None:
    """With one patch each the ranking is that without patches; with more it is another."""
    levels = {"reference_levels": 1, "query_levels": 1}
    whole = metrics(tmp_path / "a", params(), shared=store)
    one = metrics(tmp_path / "b", params(patches=levels), shared=store)
    more = metrics(tmp_path / "c", params(patches={**levels, "reference_levels": 2}), shared=store)
    assert one == whole
    assert more["test/map"] != whole["test/map"]


def test_images_pass_through_the_network_once(tmp_path: Path, store: Path) -> None:
    """Patches are in the store: another normalisation or fewer levels need no forward at all."""
    levels = {"reference_levels": 2, "query_levels": 2}
    first, forwards = counted(tmp_path / "a", params(patches=levels), store)
    assert forwards > 0
    again, forwards = counted(tmp_path / "b", params(patches=levels), store)
    assert forwards == 0 and again == first
    other = params(patches={**levels, "query_levels": 1}, normalise={"pca": 8, "whiten": True})
    assert counted(tmp_path / "c", other, store)[1] == 0


def test_a_pca_is_never_fitted_on_queries(album: Path, tmp_path: Path) -> None:
    """What queries show changes nothing of the basis: that of references alone."""
    normalise = {"pca": 4, "whiten": True}
    for name, colour in (("before", None), ("after", (1, 2, 3))):
        root = tmp_path / name
        root.mkdir()
        for path in album.parent.glob("*.png"):
            image = Image.open(path)
            if colour and path.name in ("0-0.png", "1-0.png", "2-0.png"):
                image = Image.new("RGB", image.size, colour)  # type: ignore[assignment]
            image.save(root / path.name)
        (root / "album.csv").write_text(album.read_text())
        metrics(tmp_path / f"run-{name}", of(root / "album.csv", normalise=normalise))
    bases = [
        [
            path.read_bytes()
            for path in (tmp_path / f"run-{name}/store").glob("pca/*/components.npy")
        ]
        for name in ("before", "after")
    ]
    assert len(bases[0]) == 1
    assert bases[0] == bases[1]


def test_the_fit_set_is_named(tmp_path: Path, store: Path) -> None:
    """The history says what a PCA was fitted on; where all views ask, it is training images."""
    normalise = {"pca": 4}
    assert params(normalise=normalise).normalise.fit == "reference"
    wanted = params(instances={"views": 2}, normalise=normalise)
    assert wanted.normalise.fit == "train"
    (tmp_path / "a").mkdir()
    context = FolderContext(tmp_path / "a", shared=store)
    Retrieval().run(wanted, context)
    (note,) = [data for kind, data in context.notes if kind == "fitted"]
    assert note == {"what": "pca", "on": "train", "num_images": 50}


CHANGES: dict[str, dict[str, Any]] = {
    "layer": {"features": {"layer": "conv3"}},
    "pooling": {"features": {"layer": "conv5", "pooling": {"grid": 2}}},
    "model": {"model": {"name": "mini8-w2", "weights": "none"}},
    "l2": {"normalise": {"l2": False}},
    "pca": {"normalise": {"pca": 5}},
    "whiten": {"normalise": {"pca": 6, "whiten": True}},
    "fit": {"normalise": {"pca": 6, "fit": "train"}},
    "power": {"normalise": {"power": 3}},
    "patches": {"patches": {"reference_levels": 2, "query_levels": 1}},
    "query levels": {"patches": {"reference_levels": 2, "query_levels": 2}},
    "queries": {"queries": {"per_class": 2}},
    "recall_at": {"recall_at": [2]},
    "target": {"target": {**DIGITS, "test_per_class": 5}, "queries": {}},
}
BEFORE: dict[str, dict[str, Any]] = {
    "whiten": {"normalise": {"pca": 6}},
    "fit": {"normalise": {"pca": 6}},
    "query levels": CHANGES["patches"],
}


@pytest.mark.parametrize("name", CHANGES)
def test_every_parameter_counts(name: str, tmp_path: Path, store: Path) -> None:
    """Each belongs to the key, and changes what is found."""
    job = Retrieval()
    before, after = params(**BEFORE.get(name, {})), params(**CHANGES[name])
    assert job.identity(after) != job.identity(before)
    old, _ = counted(tmp_path / "a", before, store)
    new, _ = counted(tmp_path / "b", after, store)
    assert (old.metrics, old.state_sha256) != (new.metrics, new.state_sha256)


def test_what_cannot_matter_is_no_part_of_the_key(album: Path) -> None:
    """Whitening without a PCA; how a manifest with roles would be split."""
    job = Retrieval()
    assert job.identity(params()) == job.identity(params(normalise={"whiten": True}))
    split = {"dataset": "csv", "file": str(album), "decode_size": 28, "test_fraction": 0.4}
    assert job.identity(of(album)) == job.identity(params(target=split))
    assert job.identity(params(recall_at=[4, 1])) == job.identity(params(recall_at=[1, 4, 4]))


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"queries": {}, "instances": {}}, "either queries or instances"),
        ({"target": DIGITS}, "a manifest with a column role"),
        ({"instances": {}, "patches": {}}, "not with instances"),
        ({"instances": {"scale": [1, 0.5]}}, "least, greatest"),
        ({"normalise": {"fit": "train"}}, "goes with normalise.pca"),
        ({"instances": {}, "normalise": {"pca": 2, "fit": "reference"}}, "so fit: train"),
        ({"features": {"layer": "fc9"}}, "has no layer 'fc9'"),
    ],
)
def test_what_cannot_work_is_refused(changes: dict[str, Any], says: str) -> None:
    """Before anything runs."""
    with pytest.raises((ValidationError, InputError), match=says):
        params(**changes)


def test_roles_are_checked_in_the_manifest(album: Path, tmp_path: Path) -> None:
    """A manifest without roles, without queries, or with another word is refused by its place."""
    file = tmp_path / "album.csv"
    file.write_text("path,label\na.png,x\nb.png,y\n")
    with pytest.raises(DataError, match="has no column role"):
        of(file)
    file.write_text("path,label,role\na.png,x,reference\nb.png,y,reference\n")
    with pytest.raises(DataError, match="is a query"):
        of(file)
    file.write_text("path,label,role\na.png,x,questioner\n")
    with pytest.raises(DataError, match=r":2: column role: 'questioner' is none of query"):
        of(file)
    assert read_manifest(album, multi_label=False).rows[3].role == "junk"


# --- left and killed --------------------------------------------------------------------------


def test_left_and_killed_anywhere(album: Path, tmp_path: Path) -> None:
    """Interrupted in decoding, in a pass or between queries, it ends the same."""
    wanted = of(
        album,
        patches={"reference_levels": 2, "query_levels": 1},
        normalise={"pca": 4, "whiten": True, "power": 2},
    )
    case = Case(Retrieval(), wanted, tmp_path / "store")
    whole = run_whole(case, tmp_path / "whole")
    last = len(whole.places)
    spread = sorted({*range(1, last + 1, max(1, last // 8)), *range(max(1, last - 5), last + 1)})
    check_ways(case, whole, tmp_path / "ways", [[Stop(place)] for place in spread])
    for number, way in enumerate(at_random(whole, seed=4, num_ways=2, num_ends=3)):
        fresh = replace(case, store=tmp_path / f"store-{number}")
        check_ways(fresh, whole, tmp_path / f"fresh-{number}", [way])
