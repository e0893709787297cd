"""Who asks for what: queries, references, and what each query passes over.

Every entry is one view of one sample; an entry's instance is what it shows.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ftd.errors import DataError
from ftd.printable import printable
from jobs.data.images import Images
from jobs.data.keyed import Indices, keyed_order
from jobs.manifest import read_manifest

Booleans = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Entries:
    """Views of samples: ``samples`` and ``views`` (int64, N), and the ``instances`` they show."""

    samples: Indices
    views: Indices
    instances: Indices

    @classmethod
    def of(cls, samples: Indices, instances: Indices) -> Entries:
        """One view of each sample."""
        return cls(samples, np.zeros_like(samples), instances)

    def __len__(self) -> int:
        return len(self.samples)


@dataclass(frozen=True)
class Asking:
    """Queries and references; ``junk`` (bool, over references) is passed over by queries of the
    same instance, and wrong for others."""

    queries: Entries
    references: Entries
    junk: Booleans

    def wanted(self, query: int) -> Booleans:
        """Which references show what a query shows, itself and junk left out."""
        return self._same(query) & self.counted(query)

    def counted(self, query: int) -> Booleans:
        """Which references are ranked for a query: neither junk of its instance nor itself."""
        is_itself = (self.references.samples == self.queries.samples[query]) & (
            self.references.views == self.queries.views[query]
        )
        found: Booleans = ~(is_itself | (self.junk & self._same(query)))
        return found

    def require_answers(self, images: Images) -> None:
        """Raise DataError for a query that no reference answers."""
        for query in range(len(self.queries)):
            if not self.wanted(query).any():
                sample = int(self.queries.samples[query])
                raise DataError(
                    f"query {printable(images.listing.ids[sample])} has no reference of its label",
                    where=images.listing.where,
                    fix="Add one, or leave the query out",
                )

    def _same(self, query: int) -> Booleans:
        same: Booleans = self.references.instances == self.queries.instances[query]
        return same


def from_manifest(images: Images, members: Indices, file: Path) -> Asking:
    """As the column role of the manifest `file` says, whose rows are the samples."""
    rows = read_manifest(file, multi_label=False).rows
    roles = np.array([row.role for row in rows])[members]
    labels = images.listing.labels

    def entries(is_one: Booleans) -> Entries:
        samples = by_content(images, members[is_one])
        return Entries.of(samples, labels[samples])

    references = entries(roles != "query")
    junk = np.isin(references.samples, members[roles == "junk"])
    return Asking(entries(roles == "query"), references, junk)


def within_classes(images: Images, test: Indices, per_class: int, seed: int) -> Asking:
    """`per_class` of each class's samples in `test` ask for the others, drawn by content.

    Raises DataError for a class that has no others.
    """
    labels = images.listing.labels
    ordered = test[keyed_order(images.digests[test], "query", seed)]
    chosen = []
    for label in np.unique(labels[test]).tolist():
        members = ordered[labels[ordered] == label]
        if len(members) <= per_class:
            raise DataError(
                f"class {images.listing.class_names[label]} has {len(members)} test images: "
                f"{per_class} of them cannot ask for others",
                where=images.listing.where,
                fix="Ask with fewer (queries.per_class), or test on more",
            )
        chosen.append(members[:per_class])
    queries = by_content(images, np.concatenate(chosen))
    references = by_content(images, np.setdiff1d(test, queries))
    return Asking(
        Entries.of(queries, labels[queries]),
        Entries.of(references, labels[references]),
        np.zeros(len(references), np.bool_),
    )


def within_views(images: Images, test: Indices, num_views: int) -> Asking:
    """Every view of every sample in `test` asks for the sample's other views."""
    samples = np.repeat(by_content(images, test), num_views)
    views = np.tile(np.arange(num_views), len(test))
    entries = Entries(samples, views, samples)
    return Asking(entries, entries, np.zeros(len(samples), np.bool_))


def by_content(images: Images, samples: Indices) -> Indices:
    """The samples in an order that knows no position."""
    return samples[np.argsort(images.digests[samples])]
