"""``python -P -m jobs.measure.predict``: what kept weights say about images that no run has seen.

A process of its own, for commands that have no torch.  Standard input holds one JSON object:
``weights`` (a file that a run kept), ``images`` (paths), ``numerics`` and ``threads``.  It answers
with JSON lines: the classes, then an object per image, in their order, with ``probabilities`` or
with ``unreadable``, or at any point why it is ``refused``.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ftd.answers import answers
from ftd.errors import InputError
from ftd.regular import read_bytes
from jobs.data.batches import Loader
from jobs.data.files import MAX_IMAGE_BYTES, image_of
from jobs.data.images import UNREADABLE, Images, Pixels, unreadable_reason
from jobs.data.listing import Listing
from jobs.data.pixels import square
from jobs.layers import numbered, treatments
from jobs.measure.calibration import log_probabilities
from jobs.measure.evaluate import BATCH_SIZE, evaluate
from jobs.models.build import build
from jobs.models.description import Description
from jobs.models.network import Network
from jobs.models.weights import read
from jobs.train import numerics

AT_ONCE = 16 * BATCH_SIZE["cpu"]  # decoded images in memory


@dataclass(frozen=True)
class Classifier:
    """A network with kept weights, and what these say about it."""

    network: Network
    told: Description

    @classmethod
    def load(cls, path: Path) -> Classifier:
        """The classifier in a file that a trained network kept; WeightsError for any other file."""
        told = Description.read(path)
        network = build(
            told.model,
            told.class_names,
            treatments("FT(1-)", len(numbered(told.model))),
            read(path),
            init_seed=0,
            dropout_seed=0,
        )
        network.eval()
        return cls(network, told)

    def probabilities(self, pixels: Pixels) -> npt.NDArray[np.float64]:
        """Of decoded images, uint8 (N, decode_size, decode_size, 3): float64 (N, classes)."""
        number = len(pixels)
        listing = Listing(
            self.network.class_names,
            tuple(map(str, range(number))),
            np.zeros(number, np.int64),
            lambda index: b"",
            image_of,
            "",
        )
        digests = np.arange(number, dtype=np.uint64)
        images = Images(
            listing, [pixels], number, digests, digests, digests, {}, self.told.decode_size
        )
        loader = Loader(images, self.told.size, self.told.preprocessing, "cpu")
        logits = evaluate(self.network, loader, np.arange(number), "cpu", lambda: None)
        if self.told.multi_label:
            return np.asarray(np.exp(-np.logaddexp(0, -logits.astype(np.float64))))
        return np.exp(log_probabilities(logits))

    def answers(self, paths: Sequence[str]) -> Iterator[dict[str, Any]]:
        """One for each image, as said above."""
        for start in range(0, len(paths), AT_ONCE):
            chosen = paths[start : start + AT_ONCE]
            decoded = {path: self._decoded(path) for path in chosen}
            pixels = [found for found in decoded.values() if not isinstance(found, str)]
            told = iter(self.probabilities(np.stack(pixels)).tolist() if pixels else ())
            said = {
                path: {"unreadable": found} if isinstance(found, str)
                else {"probabilities": next(told)}
                for path, found in decoded.items()
            }  # fmt: skip
            yield from ({"image": path} | said[path] for path in chosen)

    def _decoded(self, path: str) -> Pixels | str:
        """An image's pixels, or why there are none."""
        try:
            image = image_of(read_bytes(Path(path), MAX_IMAGE_BYTES))
            return square(image, self.told.decode_size, self.told.preprocessing.interpolation)
        except UNREADABLE as error:
            return unreadable_reason(error)


def main() -> int:
    """Answer one request."""
    channel = answers()
    request = json.load(sys.stdin)
    try:
        numerics.configure(request["numerics"], request["threads"])
        classifier = Classifier.load(Path(request["weights"]))
        head = {
            "class_names": classifier.told.class_names,
            "multi_label": classifier.told.multi_label,
        }
        print(json.dumps(head), file=channel, flush=True)
        for answer in classifier.answers(request["images"]):
            print(json.dumps(answer), file=channel, flush=True)
    except InputError as error:
        print(json.dumps({"refused": error.what, "fix": error.fix}), file=channel, flush=True)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
