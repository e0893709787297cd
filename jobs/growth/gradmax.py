"""GradMax: new units whose outgoing weights make the gradient of their incoming ones greatest.

Evci, van Merrienboer, Unterthiner, Pedregosa, Vladymyrov: GradMax, ICLR 2022.  With incoming
weights 0 nothing changes at first; the gradient of unit j's incoming weights is M^T u_j for
outgoing weights u_j, where M is the sum over images of (gradient of the logits) x (what fc7 is
given)^T.  Under a bound on |u| its norm is greatest along the first left singular vectors of M.
"""

from __future__ import annotations

from typing import Any

import torch

from ftd.seeds import keyed_hash
from jobs.data.batches import Batch
from jobs.growth.parts import as_vectors
from jobs.growth.place import Place
from jobs.models.network import Network
from jobs.train.loss import Objective


def aim(
    network: Network, place: Place, number: int, batch: Batch, objective: Objective, seed: int
) -> None:
    """Set the classifier's columns for the units of growth `number`, by the gradients of `batch`.

    Each column is as long as the old ones are on average.  The paper takes one direction per unit;
    there are no more than classes, so that further units get random mixtures of them, weighted by
    their singular values.  The network is left as it was but for these columns.
    """
    gradient = _gradient(network, place, batch, objective)
    columns = network.module.get_parameter(f"{place.classifier}.more.{number}")
    old = network.module.get_parameter(f"{place.classifier}.weight").detach()
    length = float(old.double().norm(dim=0).mean())
    found = directions(gradient, columns.shape[1], seed) * length
    with torch.no_grad():
        columns.copy_(found.to(columns))


def directions(gradient: torch.Tensor, num_units: int, seed: int) -> torch.Tensor:
    """Outgoing weights of `num_units` new units, of length 1: float64 (K, num_units).

    `gradient` is M, float64 (K, D).
    """
    left, values, _ = torch.linalg.svd(gradient, full_matrices=False)
    rank = max(int((values > values[0] * 1e-9).sum()), 1)
    left, values = left[:, :rank], values[:rank]
    signs = torch.sign(left.gather(0, left.abs().argmax(0, keepdim=True)))
    left = left * torch.where(signs == 0, 1.0, signs)  # an SVD leaves the signs open
    num_mixed = max(num_units - rank, 0)
    generator = torch.Generator().manual_seed(keyed_hash("init", seed, "gradmax"))
    mixing = torch.empty(rank, num_mixed, dtype=torch.float64).normal_(generator=generator)
    shares = values / values[0] if values[0] > 0 else torch.ones_like(values)
    mixed = left @ (mixing * shares.unsqueeze(1))
    mixed = mixed / mixed.norm(dim=0)
    return torch.cat([left[:, :num_units], mixed], 1)


def _gradient(network: Network, place: Place, batch: Batch, objective: Objective) -> torch.Tensor:
    """M of the mean loss, float64 (K, D) on the CPU, in evaluation mode."""
    seen: list[torch.Tensor] = []

    def listen(_layer: Any, given: tuple[torch.Tensor, ...]) -> None:
        vectors = as_vectors(given[0])
        seen.append(vectors.flatten(1, -2).mean(1) if vectors.dim() > 2 else vectors)

    was_training = network.module.training
    network.eval()
    handle = network.module.get_submodule(place.last).register_forward_pre_hook(listen)
    with torch.no_grad():
        logits = network(batch.images).float()
    handle.remove()
    if was_training:
        network.train()
    logits.requires_grad_()
    targets = objective.targets(batch)
    loss = objective.sum(logits, targets) / objective.weight(targets)
    (slope,) = torch.autograd.grad(loss, logits)
    return slope.double().cpu().T @ seen[0].double().cpu()
