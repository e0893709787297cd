"""Banks of filters, bins and histograms."""

from __future__ import annotations

import math
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from scipy.signal import correlate2d
from torch import nn

from ftd.errors import InputError, WeightsError
from jobs.descriptors import gabor
from jobs.descriptors.bins import FINE, Extent, edges, fine_counts
from jobs.descriptors.gabor import Gabor, filters, wavelengths
from jobs.descriptors.histograms import counted, shares, weights
from jobs.descriptors.kernels import Kernels
from jobs.params.descriptors import DescriptorParams, identity, inputs, resolved
from jobs.params.model import ModelParams
from tests.networks import network

pytestmark = pytest.mark.usefixtures("torch_left_as_found")


# --- Gabor ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("side", [12, 28, 96])
def test_gabor_responses_are_correlations(side: int) -> None:
    """All 48 responses equal those of scipy's correlation with the mirrored grey image."""
    generator = torch.Generator().manual_seed(side)
    image = torch.rand(1, 3, side, side, generator=generator)
    (responses,) = Gabor(side, "cpu")(image)
    assert responses.shape == (1, 48, side, side)
    grey = np.tensordot(np.array(gabor.GREY), image[0].double().numpy(), 1)
    kernels = filters(side).numpy()
    reach = kernels.shape[-1] // 2
    padded = np.pad(grey, reach, mode="reflect")
    for number in range(0, 24, 1 if side < 96 else 7):
        wanted = correlate2d(padded, kernels[number].conj(), mode="valid")  # scipy conjugates
        np.testing.assert_allclose(responses[0, number], wanted.real, atol=3e-6)
        np.testing.assert_allclose(responses[0, 24 + number], wanted.imag, atol=3e-6)


def test_gabor_filters_answer_to_their_wave_and_not_to_brightness() -> None:
    """Of waves in all scales and orientations each filter answers most to its own; even areas give
    exactly 0."""
    side = 96
    place = torch.arange(side, dtype=torch.float32)
    y, x = torch.meshgrid(place, place, indexing="ij")
    bank = Gabor(side, "cpu")
    strength = np.zeros((24, 24))
    for scale, wave in enumerate(wavelengths(side)):
        for number in range(6):
            angle = math.pi * number / 6
            phase = 2 * math.pi / wave * (x * math.cos(angle) + y * math.sin(angle))
            picture = (0.5 + 0.5 * torch.cos(phase)).expand(1, 3, side, side)
            (found,) = bank(picture)
            middle = found[0, :, 40:56, 40:56]
            energy = middle[:24] ** 2 + middle[24:] ** 2
            strength[6 * scale + number] = energy.mean((1, 2)).numpy()
    assert np.array_equal(strength.argmax(axis=0), np.arange(24))
    assert not bank(torch.full((2, 3, side, side), 0.37))[0].any()


def test_wavelengths_suit_the_image() -> None:
    """Octaves from 3 to 24 pixels where there is room, less where there is not."""
    np.testing.assert_allclose(wavelengths(224), [3, 6, 12, 24])
    assert wavelengths(28)[-1] == pytest.approx(7)
    assert wavelengths(8) == (3, 3, 3, 3)


# --- kernels --------------------------------------------------------------------------------------


def test_kernels_are_the_first_two_convolutions_before_activation() -> None:
    """Responses are the convolutions', the second one given what the network makes of the first."""
    whole = network("mini8")
    whole.eval()
    first, second = [part for part in whole.module.modules() if isinstance(part, nn.Conv2d)][:2]
    images = torch.randn(2, 3, 28, 28, generator=torch.Generator().manual_seed(1))
    one, other = Kernels(whole)(images)
    with torch.inference_mode():
        wanted = first(images)
        assert torch.equal(one, wanted) and (one < 0).any()
        pooled = nn.functional.max_pool2d(nn.functional.relu(wanted), 2)
        assert torch.allclose(other, second(pooled), atol=1e-6) and (other < 0).any()
    assert not any(part._forward_hooks for part in whole.module.modules())


@pytest.mark.parametrize(
    ("model", "size", "channels"),
    [
        ("alexnet", 96, (64, 192)), ("vgg11", 32, (64, 128)), ("mini8", 28, (16, 32)),
        ("resnet18", 32, (64, 64)), ("efficientnet_lite0", 32, (32, 32)),
    ],
)  # fmt: skip
def test_every_family_has_first_convolutions(
    model: str, size: int, channels: tuple[int, int]
) -> None:
    """AlexNet, VGG, ResNet, EfficientNet-Lite and mini8 tell what their first two say; that is
    not what activations, which may work in place, leave of it."""
    images = torch.randn(1, 3, size, size, generator=torch.Generator().manual_seed(2))
    found = Kernels(network(model))(images)
    assert tuple(one.shape[1] for one in found) == channels
    assert all((one < 0).any() for one in found)


def test_a_network_with_one_convolution_is_refused() -> None:
    """A vision transformer has one: the error names the network and other banks."""
    with pytest.raises(InputError, match="vit_b_16 has fewer than 2 convolutions"):
        Kernels(network("vit_b_16"))(torch.zeros(1, 3, 224, 224))


# --- bins -----------------------------------------------------------------------------------------


def fitted(responses: torch.Tensor, num_bins: int, binning: Any = "equal_mass") -> Any:
    extent = Extent.of(responses)
    return edges(extent, fine_counts(responses, extent), num_bins, binning)


@settings(max_examples=60)
@given(
    seed=st.integers(0, 2**32 - 1),
    num_bins=st.integers(2, 40),
    shape=st.sampled_from(["normal", "uniform", "exponential"]),
    scale=st.floats(1e-3, 1e3),
    shift=st.floats(-10, 10),
)
def test_bins_hold_equal_shares_of_what_they_are_fitted_on(
    seed: int, num_bins: int, shape: str, scale: float, shift: float
) -> None:
    """Each bin's share is within what a fine bin can hold of 1 / bins, for every filter."""
    rng = np.random.default_rng(seed)
    values = getattr(rng, shape)(size=(4, 3, 20, 25)) * scale + shift
    responses = torch.from_numpy(values.astype(np.float32))
    extent = Extent.of(responses)
    fine = fine_counts(responses, extent)
    assert fine.shape == (3, FINE) and (fine.sum(axis=1) == 2000).all()
    found = edges(extent, fine, num_bins, "equal_mass")
    assert found.shape == (3, num_bins - 1) and (np.diff(found) >= 0).all()
    histograms = counted(responses, found).reshape(4, 3, num_bins).sum(axis=0, dtype=np.int64)
    most = fine.max(axis=1, keepdims=True) + 2
    assert (np.abs(histograms - 2000 / num_bins) <= most).all()


def test_edges_are_quantiles() -> None:
    """Of evenly spread responses they are numpy's."""
    responses = torch.linspace(-3, 5, 40_001).reshape(1, 1, 1, -1)
    wanted = np.quantile(responses.numpy(), np.arange(1, 10) / 10)
    np.testing.assert_allclose(fitted(responses, 10)[0], wanted, atol=8 / FINE)


def test_bins_of_equal_mass_are_not_those_of_equal_width() -> None:
    """Equal width parts the range evenly whatever is in it."""
    values = np.random.default_rng(0).exponential(size=(1, 1, 50, 50)).astype(np.float32)
    responses = torch.from_numpy(values)
    even = fitted(responses, 8, "equal_width")[0]
    np.testing.assert_allclose(np.diff(even), (values.max() - values.min()) / 8, rtol=1e-4)
    masses = [counted(responses, one[None])[0] for one in (even, fitted(responses, 8)[0])]
    assert masses[0].max() > 1000 > 400 > masses[1].max()


@pytest.mark.parametrize("binning", ["equal_mass", "equal_width"])
@pytest.mark.parametrize("value", [0.0, -1.5, 1e-42])
def test_a_filter_that_always_says_the_same_is_no_problem(binning: Any, value: float) -> None:
    """Its responses are in one bin, greater and smaller ones in those at the ends."""
    responses = torch.full((2, 1, 4, 4), value)
    found = fitted(responses, 5, binning)
    assert np.isfinite(found).all()
    assert counted(responses, found)[0].max() == 16
    beyond = torch.tensor([value - 1, value + 1]).reshape(1, 1, 1, 2)
    assert counted(beyond, found)[0, [0, 4]].tolist() == [1, 1]


def test_what_is_beyond_the_edges_goes_to_the_ends() -> None:
    """Responses that the target never gave are counted in the first and last bin."""
    found = fitted(torch.linspace(0, 1, 1000).reshape(1, 1, 10, 100), 4)
    far = torch.tensor([-9.0, -0.1, 1.1, 9.0, 99.0]).reshape(1, 1, 1, 5)
    assert counted(far, found).tolist() == [[2, 0, 0, 3]]


def test_two_extents_are_those_of_both() -> None:
    """Batches give the same bins as everything at once."""
    responses = torch.randn(6, 2, 5, 5, generator=torch.Generator().manual_seed(3))
    whole = Extent.of(responses)
    parts = Extent.of(responses[:2]).with_(Extent.of(responses[2:]))
    assert np.array_equal(whole.low, parts.low) and np.array_equal(whole.high, parts.high)
    assert not np.array_equal(whole.low, Extent.of(responses[:1]).low)


def test_responses_that_are_not_finite_are_refused() -> None:
    """Weights of a network that diverged describe nothing."""
    for bad in (math.nan, math.inf):
        responses = torch.zeros(1, 2, 3, 3)
        responses[0, 1, 2, 2] = bad
        with pytest.raises(WeightsError, match="not finite"):
            Extent.of(responses)


# --- histograms -----------------------------------------------------------------------------------


@settings(max_examples=40)
@given(
    seed=st.integers(0, 2**32 - 1),
    num_bins=st.integers(2, 12),
    smoothing=st.sampled_from([0.0, 0.01, 1.0]),
)
def test_histograms_sum_to_one_and_know_no_places(
    seed: int, num_bins: int, smoothing: float
) -> None:
    """Each filter's shares sum to 1; shuffling a filter's responses changes nothing; they are
    numpy's histograms."""
    rng = np.random.default_rng(seed)
    responses = torch.from_numpy(rng.normal(size=(3, 2, 7, 9)).astype(np.float32))
    found = fitted(responses[:2], num_bins)
    counts = counted(responses, found)
    assert counts.dtype == np.uint8 and counts.shape == (3, 2 * num_bins)
    rows = shares([counts, counts], num_bins, smoothing)
    np.testing.assert_allclose(rows.reshape(3, 4, num_bins).sum(axis=2), 1)
    flat = responses.numpy().reshape(3, 2, 63)
    shuffled = torch.from_numpy(rng.permuted(flat, axis=2).reshape(3, 2, 7, 9))
    assert np.array_equal(counted(shuffled, found), counts)
    ends = np.concatenate([[-np.inf], found[1], [np.inf]])
    wanted = np.array([((flat[2, 1] >= a) & (flat[2, 1] < b)).sum() for a, b in pairwise(ends)])
    assert np.array_equal(counts[2, num_bins:], wanted)
    expected = (wanted / 63 + smoothing) / (1 + num_bins * smoothing)
    np.testing.assert_allclose(rows[2, num_bins : 2 * num_bins], expected)


@pytest.mark.parametrize(("side", "kind"), [(15, np.uint8), (16, np.uint16), (256, np.uint32)])
def test_counts_hold_all_positions(side: int, kind: Any) -> None:
    """An even picture puts all of them into one bin, and the type has room for that."""
    counts = counted(torch.zeros(1, 1, side, side), np.array([[1.0]], np.float32))
    assert counts.dtype == kind and counts.tolist() == [[side * side, 0]]


def test_layers_weigh_equally() -> None:
    """A filter counts 1 / its layer's number of filters, and the layers together 1."""
    found = weights([2, 3], 4)
    np.testing.assert_allclose(found, [1 / 4] * 8 + [1 / 6] * 12)


# --- parameters -----------------------------------------------------------------------------------

MINI8 = ModelParams(name="mini8", weights="none")


def asked(**given: Any) -> DescriptorParams:
    return resolved(DescriptorParams(**given), MINI8, 28, Path("/"))


def test_defaults_are_said() -> None:
    """The job's own network, the layer's number and the bank's measure."""
    assert (asked().model, asked().measure) == (MINI8, "kl")
    deep = asked(bank="deep")
    assert (deep.features.layer, deep.measure) == ("7", "cosine")
    assert asked(bank="gabor").model is None
    own = asked(model={"name": "resnet18", "weights": "imagenet"})
    assert own.model is not None and own.model.name == "resnet18"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"bank": "deep", "measure": "kl"}, "bank deep has the measures l2, cosine"),
        ({"measure": "l2"}, "bank kernels has the measures kl, js, l1, chi2"),
        ({"bank": "gabor", "model": {"name": "mini8"}}, "bank gabor takes no model"),
    ],
)
def test_what_does_not_go_together_is_refused(given: dict[str, Any], message: str) -> None:
    """Measures belong to banks, and Gabor filters to no network."""
    with pytest.raises(ValidationError, match=message):
        DescriptorParams.model_validate(given)


def test_what_cannot_matter_is_no_part_of_the_identity() -> None:
    """Bins of deep features and layers of histograms are left out; all else is told apart."""
    assert identity(asked(bank="deep")) == identity(asked(bank="deep", bins=7, smoothing=0.5))
    assert identity(asked()) == identity(asked(features={"layer": "3"}))
    assert identity(asked(bank="gabor"))["bins"] == 100
    different = [
        asked(), asked(bins=7), asked(binning="equal_width"), asked(smoothing=0.1),
        asked(measure="js"), asked(size=16), asked(bank="gabor"), asked(bank="deep"),
        asked(bank="deep", features={"layer": "3"}), asked(bank="deep", measure="l2"),
        asked(model={"name": "mini8-w2", "weights": "none"}),
        asked(model={"name": "mini8", "weights": "none", "mean": [0.1, 0.1, 0.1]}),
    ]  # fmt: skip
    assert len({str(identity(one)) for one in different}) == len(different)


def test_the_weights_are_an_input(tmp_path: Path) -> None:
    """A file is read from outside; Gabor filters read nothing."""
    (tmp_path / "w.safetensors").touch()
    model = {"name": "mini8", "weights": {"file": "w.safetensors"}}
    found = resolved(DescriptorParams(model=model), MINI8, 28, tmp_path)  # type: ignore[arg-type]
    assert inputs(found)["weights"].where == str(tmp_path / "w.safetensors")
    assert inputs(asked(bank="gabor")) == {}
