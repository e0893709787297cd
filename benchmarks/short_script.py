"""What somebody would write instead of a short run: ``python train.py`` for mini8 on the digits.

The same network, images, numbers of steps, validation and test; no service around it.
"""

from __future__ import annotations

import sys

import numpy as np
import torch
import torchvision  # noqa: F401  (as training scripts do)
from PIL import Image
from torch.nn import functional

from jobs.data.digits import digits_listing
from jobs.models.mini8 import SHAPES
from jobs.models.plain import Plain

SIZE, BATCH, LR = 28, 32, 0.01


def main(steps: int) -> None:
    """Train, validate, test, print."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    listing = digits_listing()
    resized = [
        listing.image(listing.content(index)).convert("RGB").resize((SIZE, SIZE), Image.BILINEAR)
        for index in range(len(listing.ids))
    ]
    pixels = torch.from_numpy(np.stack([np.asarray(image) for image in resized]))
    images = (pixels.permute(0, 3, 1, 2).float() / 255 - 0.5) / 0.5
    labels = torch.from_numpy(listing.labels)
    order = torch.randperm(len(labels))
    test, val, train = order[:450], order[450:500], order[500:600]
    network = Plain(SHAPES["mini8"], 10)
    optimizer = torch.optim.SGD(network.parameters(), LR, momentum=0.9, weight_decay=5e-4)
    for _ in range(steps):
        network.train()
        batch = train[torch.randperm(len(train))[:BATCH]]
        loss = functional.cross_entropy(network(images[batch]), labels[batch])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    network.eval()
    with torch.no_grad():
        for part in (val, test):
            right = (network(images[part]).argmax(1) == labels[part]).float().mean()
            print(steps, float(right))


if __name__ == "__main__":
    main(int(sys.argv[1]))
