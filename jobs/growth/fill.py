"""What new parts start from: drawn by name from the seed, apart from everything old.

Random weights follow the rules of :mod:`jobs.models.initialise`; new columns of the classifier are
drawn by class name like its rows.  Where a growth promises to change nothing at first, what it adds
adds nothing, or what it copies is divided among the copies.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from ftd.seeds import keyed_hash
from jobs.growth.place import Place
from jobs.growth.structure import ROOT
from jobs.models.initialise import initial_state
from jobs.models.network import Network
from jobs.params.growth import GrowthParams

Tensors = dict[str, torch.Tensor]

# GradMax needs a derivative of the new units where their weights are 0; this is their bias.
AWAKE = 1e-6


def filling(
    network: Network,
    place: Place,
    wanted: GrowthParams,
    number: int,
    names: Sequence[str],
    seed: int,
) -> Tensors:
    """The tensors called `names`, those of the network's growth `number`, and old ones that change.

    ``gradmax`` leaves the classifier's new columns 0; see :mod:`jobs.growth.gradmax`.
    """
    found = initial_state(
        network.module,
        set(names),
        classifier=place.classifier,
        class_names=network.class_names,
        seed=seed,
    )
    part, columns = f"{ROOT}.{number}", f"{place.classifier}.more.{number}"
    for name in names:
        if name.endswith(".gamma"):
            found[name] = torch.full_like(found[name], wanted.gamma)
    if wanted.type in ("zero_outgoing", "gradmax"):
        found[columns].zero_()
    if wanted.type == "gradmax":
        found[f"{part}.beside.weight"].zero_()
        found[f"{part}.beside.bias"].fill_(AWAKE)
    if wanted.type == "lora":
        found[f"{part}.lora.up"].zero_()
    if wanted.type == "net2deeper":
        found[f"{part}.top.weight"] = torch.eye(len(found[f"{part}.top.weight"]))
    if wanted.noisy:
        for layer, new in ((place.last, "beside"), (place.below, "below")):
            if f"{part}.{new}.weight" in found:
                _copy_units(network, layer, found, f"{part}.{new}", wanted.noise, seed)
    if wanted.type == "net2wider":
        found |= _shared_out(network, place, columns, found[columns].shape[1], seed)
    return found


def copied_units(num_old: int, num_new: int, layer: str, seed: int) -> torch.Tensor:
    """Which old unit each new one copies: int64 (num_new,); all before any is copied again."""
    order = sorted(range(num_old), key=lambda unit: keyed_hash("copy", seed, layer, unit))
    return torch.tensor([order[index % num_old] for index in range(num_new)])


def _copy_units(
    network: Network, layer: str, found: Tensors, part: str, noise: float, seed: int
) -> None:
    """Copies of the incoming weights and biases of old units of `layer`, plus noise.

    The columns for new inputs, which the old units do not have, stay as they were drawn.
    """
    state = network.state()
    weight, bias = state[f"{layer}.weight"].cpu(), state[f"{layer}.bias"].cpu()
    rows = copied_units(len(weight), len(found[f"{part}.weight"]), layer, seed)
    copies = weight[rows].to(found[f"{part}.weight"].dtype)
    if noise:
        generator = torch.Generator().manual_seed(keyed_hash("init", seed, part, "noise"))
        drawn = torch.empty(copies.shape).normal_(0, 1, generator=generator)
        copies = copies + drawn * (noise * weight.std())
    found[f"{part}.weight"][:, : weight.shape[1]] = copies
    found[f"{part}.bias"] = bias[rows].clone()


def _shared_out(network: Network, place: Place, columns: str, num_new: int, seed: int) -> Tensors:
    """The outgoing weights of each copied unit, in equal parts for it and its copies.

    Chen, Goodfellow, Shlens: Net2Net (ICLR 2016).
    """
    name = f"{place.classifier}.weight"
    outgoing = network.state()[name].cpu()
    rows = copied_units(outgoing.shape[1], num_new, place.last, seed)
    shares = 1 + torch.bincount(rows, minlength=outgoing.shape[1])
    divided = outgoing / shares
    return {name: divided, columns: divided[:, rows].clone()}
