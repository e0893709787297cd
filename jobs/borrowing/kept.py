"""What is kept of who borrowed what: a table, and pictures of images beside their neighbours."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

from jobs.borrowing.joint_training import JointTraining
from jobs.data.keyed import keyed_order
from jobs.inspection.canvas import GAP, below, beside, captioned, framed
from jobs.inspection.pictures import strip

TABLE = "neighbours.csv"
PICTURE = "neighbours.png"
NUM_TOLD = 10  # neighbours that the table names
NUM_SHOWN = 8  # neighbours in a row of the picture
NUM_ROWS = 12  # images of the target in the picture


def keep(training: JointTraining) -> None:
    """Keep both as artifacts, where images have neighbours of their own."""
    if training.selection.neighbours is None:
        return
    training.context.artifact(TABLE, lambda path: write_table(path, training))
    training.context.artifact(PICTURE, lambda path: write_picture(path, training))


def write_table(path: Path, training: JointTraining) -> None:
    """A line for each of the target's training images: its level, how many neighbours it has now,
    the ids of the nearest and their distances."""
    found = training.selection.neighbours
    assert found is not None
    own, pool = training.loader.images.listing, training.source.images.listing
    numbers, levels = training.lending().numbers, training.levels
    with path.open("w", newline="") as stream:
        table = csv.writer(stream, lineterminator="\n")
        ranks = range(1, min(NUM_TOLD, found.indices.shape[1]) + 1)
        told = [f"{what}_{rank}" for rank in ranks for what in ("neighbour", "distance")]
        table.writerow(["id", "class", "level", "num_neighbours", *told])
        for place, index in enumerate(training.splits.train.tolist()):
            row: list[str | int] = [own.ids[index], own.class_names[own.labels[index]]]
            row += [int(levels[place]), int(numbers[place])]
            for rank in ranks:
                near = int(found.indices[place, rank - 1])
                row += [pool.ids[near], f"{found.distances[place, rank - 1]:.6g}"]
            table.writerow(row)


def write_picture(path: Path, training: JointTraining) -> None:
    """A few of the target's training images, each beside its nearest neighbours."""
    own, pool = training.loader.images, training.source.images
    train, near = training.splits.train, training.selection.near
    seed = training.context.seeds["source"]
    shown: Sequence[int] = keyed_order(own.digests[train], "picture", seed)[:NUM_ROWS].tolist()
    rows = []
    for place in shown:
        index = int(train[place])
        neighbours = [pool.pixels(row) for row in near[place, :NUM_SHOWN].tolist()]
        pair = beside([strip([own.pixels(index)], 1), strip(neighbours, NUM_SHOWN)], 2 * GAP)
        rows.append(captioned(own.listing.class_names[own.listing.labels[index]], pair))
    framed(below(rows)).save(path, "PNG")
