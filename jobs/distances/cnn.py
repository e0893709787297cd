"""How well a small convolutional network tells two sets of images apart.

Chu et al. 2016 name "a three-layer convolutional net"; its architecture, training and the size of
its images are not known.  Ours: convolutions of 5x5, 3x3 and 3x3 with stride 2 and 16, 32 and 64
kernels, each followed by a ReLU, their mean over places, and a linear classifier; Adam.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from ftd.seeds import keyed_hash
from jobs.data.images import Pixels
from jobs.data.keyed import Bits, Indices, keyed_order
from jobs.distances.halves import Half
from jobs.params.distance import CnnParams

BATCH = 64
KERNELS = ((3, 16, 5), (16, 32, 3), (32, 64, 3))


def cnn_accuracy(
    first: Pixels,
    second: Pixels,
    digests: tuple[Bits, Bits],
    half: Half,
    params: CnnParams,
    *,
    init_seed: int,
    order_seed: int,
    device: str,
) -> float:
    """Accuracy (0 to 1; 0.5: cannot be told apart) of a small network; each set counts the same.

    Trained on `half` of the images (uint8, (m, S, S, 3) and (n, S, S, 3)), tested on the others.
    `digests` (uint64, m and n) key the order of training, so that positions do not matter.
    """
    images = [torch.from_numpy(pixels) for pixels in (first, second)]
    mean, std = _statistics(images[0][half.first], images[1][half.second])
    network = _network(init_seed).to(device)
    optimizer = torch.optim.Adam(network.parameters(), lr=params.lr)

    def batch(sides: tuple[Indices, Indices]) -> torch.Tensor:
        chosen = torch.cat([whole[rows] for whole, rows in zip(images, sides, strict=True)])
        return ((chosen.to(torch.float32) - mean) / std).permute(0, 3, 1, 2).to(device)

    orders = [
        _Order(rows, keys, order_seed)
        for rows, keys in zip((half.first, half.second), digests, strict=True)
    ]
    network.train()
    for step in range(params.steps):
        sides = orders[0].batch(step), orders[1].batch(step)
        labels = torch.repeat_interleave(torch.arange(2), torch.tensor([*map(len, sides)]))
        optimizer.zero_grad(set_to_none=True)
        functional.cross_entropy(network(batch(sides)), labels.to(device)).backward()
        optimizer.step()
    network.eval()
    none = np.empty(0, np.int64)
    shares = []
    with torch.inference_mode():
        for side, rest in enumerate((half.first_rest, half.second_rest)):
            right = 0
            for start in range(0, len(rest), 4 * BATCH):
                rows = rest[start : start + 4 * BATCH]
                said = network(batch((rows, none) if side == 0 else (none, rows))).argmax(dim=1)
                right += int((said == side).sum())
            shares.append(right / len(rest))
    return sum(shares) / 2


class _Order:
    """Half a batch of each step: the rows over and over, each time in another order."""

    def __init__(self, rows: Indices, digests: Bits, seed: int) -> None:
        self._rows, self._digests, self._seed = rows, digests[rows], seed
        self._size = min(BATCH // 2, len(rows))
        self._steps_per_pass = len(rows) // self._size

    def batch(self, step: int) -> Indices:
        """The rows of `step`."""
        epoch, place = divmod(step, self._steps_per_pass)
        order = keyed_order(self._digests, "cnn", self._seed, epoch)
        return self._rows[order[place * self._size : (place + 1) * self._size]]


def shrunk(pixels: Pixels, size: int) -> Pixels:
    """A square image (uint8, (H, H, 3)) as one of `size` pixels, by means; not enlarged."""
    if pixels.shape[0] <= size:
        return pixels
    from PIL import Image

    image = Image.fromarray(pixels).resize((size, size), Image.Resampling.BOX)
    return np.asarray(image)


def _network(seed: int) -> nn.Sequential:
    """Weights drawn by He's rule (uniform), each tensor by its name."""
    layers: list[nn.Module] = []
    for inputs, outputs, side in KERNELS:
        layers += [nn.Conv2d(inputs, outputs, side, stride=2, padding=side // 2), nn.ReLU()]
    network = nn.Sequential(*layers, _Mean(), nn.Linear(KERNELS[-1][1], 2))
    for name, parameter in network.named_parameters():
        generator = torch.Generator().manual_seed(keyed_hash("cnn", seed, name))
        with torch.no_grad():
            bound = (6 / parameter[0].numel()) ** 0.5 if parameter.ndim > 1 else 0.0
            parameter.uniform_(-bound, bound, generator=generator) if bound else parameter.zero_()
    return network


class _Mean(nn.Module):
    """The mean over places: (N, C, H, W) to (N, C)."""

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        return maps.mean(dim=(2, 3))


def _statistics(first: torch.Tensor, second: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and standard deviation per channel of both sets' pixels together, (3,) each."""
    sums, squares, count = torch.zeros(3, dtype=torch.float64), torch.zeros(3).double(), 0
    for whole in (first, second):
        pixels = whole.reshape(-1, 3).double()
        sums += pixels.sum(dim=0)
        squares += (pixels**2).sum(dim=0)
        count += len(pixels)
    mean = sums / count
    std = (squares / count - mean**2).clamp(min=0).sqrt()
    return mean.float(), std.clamp(min=1.0).float()
