"""What somebody would write instead of a grid of probes: one script, features in memory, loops.

The same network, images, layers, poolings, components and solvers; nothing is kept, resumed or
shared, and there is no service around it.  Prints JSON: seconds of each part, and peak memory.
"""

from __future__ import annotations

import itertools
import json
import resource
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from PIL import Image
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.metrics import roc_auc_score
from sklearn.neighbors import KNeighborsClassifier
from sklearn.svm import SVC
from torch.nn import functional

from benchmarks.cases import CASES, network_of
from benchmarks.probe_grid import Size, grid
from jobs.data.elpv import elpv_listing

BATCH = 16
POOL: dict[str, Callable[[torch.Tensor, int], torch.Tensor]] = {
    "mean": functional.adaptive_avg_pool2d,
    "max": functional.adaptive_max_pool2d,
}
SOLVERS: dict[str, Callable[[], Any]] = {
    "soft": lambda: SVC(C=0.1, kernel="linear"),
    "svm": lambda: SVC(C=1, kernel="linear"),
    "ridge": lambda: Ridge(alpha=1),
    "logistic": lambda: LogisticRegression(C=1, max_iter=100_000, tol=1e-3),
    "knn": lambda: KNeighborsClassifier(5, algorithm="brute"),
}


def decoded(pixels: int) -> tuple[Any, Any]:
    """Images (float32, (N, 3, H, W), normalised) and labels."""
    listing = elpv_listing(threshold=0.5, drop_uncertain=False)
    found = []
    for index in range(len(listing)):
        image = listing.image(listing.content(index)).convert("RGB")
        found.append(np.asarray(image.resize((pixels, pixels), Image.BICUBIC)))
    return (np.stack(found).astype(np.float32) / 255 - 0.5) / 0.5, listing.labels


def features_of(images: Any, layers: set[int]) -> dict[tuple[int, int, str], Any]:
    """What the stem, blocks and head say, pooled, of all images in one pass."""
    network = network_of(CASES[0], 2).eval()
    stages = [network.bn0, *network.blocks, network.bn1]  # type: ignore[misc]
    found: dict[tuple[int, int, str], list[Any]] = {}

    def listen(layer: int) -> Callable[..., None]:
        def hook(_part: object, _given: object, maps: torch.Tensor) -> None:
            if layer in (1, len(stages)):
                maps = functional.relu6(maps)
            for size, by in itertools.product((1, 2), POOL):
                rows = POOL[by](maps, size).flatten(1).numpy()
                found.setdefault((layer, size, by), []).append(rows)

        return hook

    for layer in layers:
        stages[layer - 1].register_forward_hook(listen(layer))
    with torch.inference_mode():
        for start in range(0, len(images), BATCH):
            batch = torch.from_numpy(images[start : start + BATCH]).permute(0, 3, 1, 2)
            network(batch.contiguous())
    return {key: np.concatenate(parts) for key, parts in found.items()}


def main(size: Size) -> None:
    """Decode, pass, fit, print."""
    torch.set_num_threads(1)
    began = time.perf_counter()
    images, labels = decoded(size.pixels)
    after_decoding = time.perf_counter()
    cells = grid(size)
    features = features_of(images, {cell.layer for cell in cells})
    after_pass = time.perf_counter()
    del images
    order = np.random.default_rng(0).permutation(len(labels))
    test, val, train = np.split(order, [len(order) // 4, len(order) * 2 // 5])
    for cell in cells:
        samples = features[cell.layer, cell.grid, cell.by]
        samples = samples / np.maximum(np.linalg.norm(samples, axis=1, keepdims=True), 1e-12)
        if cell.pca is not None:
            components = PCA(min(cell.pca, samples.shape[1]), random_state=0).fit(samples[train])
            samples = components.transform(samples)
        model = SOLVERS[cell.solver]().fit(samples[train], labels[train])
        for part in (val, test):
            kind = "decision_function" if hasattr(model, "decision_function") else "predict"
            roc_auc_score(labels[part], getattr(model, kind)(samples[part]))
    print(
        json.dumps(
            {
                "decoding_s": after_decoding - began,
                "pass_s": after_pass - after_decoding,
                "solvers_s": time.perf_counter() - after_pass,
                "cpu_s": time.process_time(),
                "memory_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
            }
        )
    )


if __name__ == "__main__":
    main(Size(*map(int, sys.argv[1:])))
