"""The new parts of a grown network, and how they are computed.

Equations are those of Wang, Ramanan, Hebert: Growing a Brain (CVPR 2017).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import nn
from torch.nn import functional

from jobs.growth.structure import Dims, Structure
from jobs.models.dropout import KeyedDropout

# The paper divides by the norm alone; where all units of a block are 0, this keeps it 0.
EPSILON = 1e-12
GAMMA = 10.0


def as_vectors(features: torch.Tensor) -> torch.Tensor:
    """Features with their channels last: a vector (N, C), tokens (N, T, C) or a map (N, H, W, C).

    A map's channels stand where the two other sizes are not equal to one another; else second.
    """
    if features.dim() != 4:
        return features
    _, first, middle, last = features.shape
    return features if first == middle != last else features.movedim(1, -1)


class Units(nn.Linear):
    """New units: ReLU of weighted sums, h+ = f(W+ h); `num_units` of them, with a bias.

    Of a map or of tokens, each unit's mean over all places.  `dropout`: as of the old units beside.
    """

    def __init__(self, num_in: int, num_units: int, dropout: KeyedDropout | None = None) -> None:
        super().__init__(num_in, num_units, device="meta")
        self.dropout = dropout

    def forward(self, passed: torch.Tensor, seen: torch.Tensor | None = None) -> torch.Tensor:
        """(N, num_units) of what is `seen` (default: `passed`).

        What stands before a part in the network's list is passed to it first, so that whoever
        listens to layers hears it.
        """
        vectors = as_vectors(passed if seen is None else seen)
        hidden = functional.relu(functional.linear(vectors, self.weight, self.bias))
        if hidden.dim() > 2:
            hidden = hidden.flatten(1, -2).mean(1)
        return hidden if self.dropout is None else self.dropout(hidden)


class Scale(nn.Module):
    """Blocks of units brought to the same pace: y_i = gamma_i h_i / |h|_2 (equations 1 and 2).

    Each block has an L2 norm of its own for every image, each unit a learned gamma.
    """

    def __init__(self, sizes: Sequence[int]) -> None:
        super().__init__()
        self.sizes = tuple(sizes)
        self.gamma = nn.Parameter(torch.full((sum(sizes),), GAMMA))

    def forward(self, passed: torch.Tensor, *blocks: torch.Tensor) -> torch.Tensor:
        """The joined blocks (N, sum of sizes); one block alone is `passed`."""
        normed = [normalised(block) for block in blocks or (passed,)]
        return torch.cat(normed, 1) * self.gamma


def normalised(block: torch.Tensor) -> torch.Tensor:
    """A block (N, D) divided by its L2 norm, row by row; computed in float32 at least."""
    wide = block if block.dtype == torch.float64 else block.float()
    return functional.normalize(wide, dim=1, eps=EPSILON)


class LowRank(nn.Module):
    """A branch up(down(x)) around a linear layer (Hu et al. 2022, LoRA, with alpha = rank)."""

    def __init__(self, num_in: int, num_out: int, rank: int) -> None:
        super().__init__()
        self.down = nn.Parameter(torch.empty(rank, num_in, device="meta"))
        self.up = nn.Parameter(torch.empty(num_out, rank, device="meta"))

    def forward(self, passed: torch.Tensor) -> torch.Tensor:
        """What fc7 gives, passed on; the branch has entered it before its ReLU."""
        return passed

    def beside(
        self, _layer: nn.Module, given: tuple[torch.Tensor, ...], result: torch.Tensor
    ) -> torch.Tensor:
        """A hook: what the layer gives, plus the branch's share."""
        return result + functional.linear(functional.linear(given[0], self.down), self.up)


class WiderLinear(nn.Linear):
    """A classifier whose old columns stay one tensor; those of each growth's units are their own.

    ``weight`` (classes, D), ``bias``, and in ``more`` by the growth's number (classes, S).
    """

    def __init__(self, old: nn.Linear) -> None:
        super().__init__(old.in_features, old.out_features, device="meta")
        self.weight = old.weight
        self.bias = old.bias
        self.more = nn.ParameterDict()

    def forward(self, joined: torch.Tensor) -> torch.Tensor:
        """Logits of the joined units (N, D + S + ...), in the order of growth."""
        columns = torch.cat([self.weight, *self.more.values()], 1)
        return functional.linear(joined, columns, self.bias)


class Generation(nn.Module):
    """All parts of one growth: turns what the classifier was given into what it is given now.

    `dropouts` are those of the new units beside fc6, and of those that the classifier reads.
    """

    def __init__(
        self,
        structure: Structure,
        dims: Dims,
        dropouts: tuple[KeyedDropout | None, KeyedDropout | None] = (None, None),
    ) -> None:
        super().__init__()
        into_last, width = dims.into_last, dims.width
        self.structure = structure
        self.listener: Callable[[torch.Tensor, torch.Tensor], None] | None = None  # see blocks
        self._below: torch.Tensor | None = None  # what fc6 was given
        self._last: torch.Tensor | None = None  # what fc7 was given
        reads, joined = into_last, [width]
        if structure.below:
            self.below = Units(dims.into_below, structure.below, dropouts[0])
            reads += structure.below
        if structure.scales_below:
            self.scale_below = Scale((into_last, structure.below))
        if structure.beside:
            self.beside = Units(reads, structure.beside, dropouts[1])
            joined.append(structure.beside)
        if structure.hidden:
            self.hidden = Units(width, structure.hidden, dropouts[1])
            joined.append(structure.hidden)
        if structure.top:
            self.top = Units(sum(joined), structure.top)
        if structure.scaled:
            alone = structure.top and not structure.joins
            self.scale = Scale((structure.top,) if alone else joined)
        if structure.rank:
            self.lora = LowRank(into_last, dims.last, structure.rank)

    def see_below(self, _layer: nn.Module, given: tuple[torch.Tensor, ...]) -> None:
        """A hook before fc6."""
        self._below = given[0]

    def see_last(self, _layer: nn.Module, given: tuple[torch.Tensor, ...]) -> None:
        """A hook before fc7."""
        self._last = given[0]

    def join(
        self, _classifier: nn.Module, given: tuple[torch.Tensor, ...]
    ) -> tuple[torch.Tensor, ...]:
        """A hook before the classifier: what it shall be given."""
        joined = self._joined(given[0])
        self._below = self._last = None
        return (joined,)

    def _joined(self, old: torch.Tensor) -> torch.Tensor:
        structure, last = self.structure, old
        blocks = [old]
        if structure.beside:
            last = self.beside(*self._seen_by_last(old))
            blocks.append(last)
        if structure.hidden:
            last = self.hidden(last, old)
            blocks.append(last)
        alone = structure.top > 0 and not structure.joins
        joined: torch.Tensor
        if structure.scaled and not alone:
            joined = self.scale(last, *blocks)
        else:
            joined = torch.cat(blocks, 1) if len(blocks) > 1 else old
        if self.listener is not None:
            self.listener(joined[:, : old.shape[1]], joined[:, old.shape[1] :])
        if structure.rank:
            joined = self.lora(joined)
        if structure.top:
            joined = self.top(joined)
        if structure.scaled and alone:
            joined = self.scale(joined)
        return joined

    def _seen_by_last(self, old: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """What the units beside fc7 are given: what fc7 is, and the new units beside fc6."""
        assert self._last is not None, "fc7 comes before the classifier"
        if not self.structure.below:
            return old, self._last
        assert self._below is not None, "fc6 comes before fc7"
        below = self.below(old, self._below)
        if self.structure.scaled:
            return (self.scale_below(below, self._last, below),)
        return below, torch.cat([self._last, below], 1)
