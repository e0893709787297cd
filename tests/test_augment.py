"""Augmentation: the definitions are torchvision's, the draws belong to samples and nothing else."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torchvision.transforms import functional as reference
from torchvision.transforms.autoaugment import RandAugment, _apply_op
from torchvision.transforms.functional import InterpolationMode

from jobs.data.augment import Augmentation, Views
from jobs.data.colour import PROPERTIES, adjusted
from jobs.data.keyed import Bits, keyed_choice, keyed_uniform, splitmix64
from jobs.data.mixing import Mix, mixed
from jobs.data.rand_augment import NAMES, SIGNED, operated
from jobs.data.resized_crop import crop_boxes, resized
from jobs.params.augment import AugmentParams, ResizedCropParams

DIGESTS = splitmix64(np.arange(300, dtype=np.uint64))
EVERYTHING: dict[str, object] = {
    "resized_crop": {},
    "colour": {"brightness": 0.4, "contrast": 0.3, "saturation": 0.2, "hue": 0.1},
    "rand_augment": {"num_ops": 3, "magnitude": 20},
    "mixup": 0.4,
    "cutmix": 1.0,
}
ONES = sorted(EVERYTHING)


def picture(seed: int = 0, size: int = 40) -> np.ndarray:
    """Smooth colours: no operation leaves them as they are by accident."""
    noise = np.random.default_rng(seed).integers(0, 256, (5, 5, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(noise).resize((size, size), Image.Resampling.BICUBIC))


def augmentation(**more: object) -> Augmentation:
    """Everything that `more` names, on images of 40 pixels seen at 32."""
    return Augmentation(40, 32, True, False, 7, AugmentParams.model_validate(more))


def looked_at(views: Views) -> list[bytes]:
    """What a picture becomes in each view."""
    found = []
    for row in range(len(views.top)):
        pixels = picture()[4:36, 4:36]
        if views.boxes is not None:
            pixels = resized(picture(), tuple(views.boxes[row].tolist()), 32, "bilinear")
        image = Image.fromarray(pixels)
        for retouch in views.retouches:
            image = retouch(image, row)
        found.append(image.tobytes())
    return found


# --- definitions ------------------------------------------------------------------------------


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@given(st.integers(0, 20), st.integers(0, 20), st.integers(1, 20), st.integers(1, 20))
@settings(max_examples=20)
def test_a_resized_part_is_torchvisions(
    interpolation: str, top: int, left: int, height: int, width: int
) -> None:
    """A box is cut out first and resized then: nothing outside it is seen."""
    wanted = reference.resized_crop(
        Image.fromarray(picture()),
        top, left, height, width,
        [32, 32],
        InterpolationMode(interpolation),
    )  # fmt: skip
    found = resized(picture(), (top, left, height, width), 32, interpolation)
    assert (found == np.asarray(wanted)).all()


@pytest.mark.parametrize("scale", [(0.08, 1.0), (0.5, 0.6)])
def test_boxes_have_the_distribution_of_torchvisions(scale: tuple[float, float]) -> None:
    """Places, areas and ratios of boxes have the quantiles that RandomResizedCrop's have."""
    from torchvision.transforms import RandomResizedCrop

    digests = splitmix64(np.arange(4000, dtype=np.uint64))
    wanted = ResizedCropParams(scale=scale)
    boxes = crop_boxes(digests, wanted, 64, seed=3, epoch=1)
    torch.manual_seed(0)
    image = torch.zeros(3, 64, 64)
    drawn = [RandomResizedCrop.get_params(image, list(scale), [3 / 4, 4 / 3]) for _ in digests]
    for ours, theirs in zip(boxes.T, np.array(drawn).T, strict=True):
        shares = np.linspace(0.05, 0.95, 10)
        assert np.abs(np.quantile(ours, shares) - np.quantile(theirs, shares)).max() <= 2


def test_boxes_stay_inside_and_a_range_that_never_fits_gives_the_centre() -> None:
    """Every box lies in the image; where ten tries fail it is the largest central one."""
    boxes = crop_boxes(DIGESTS, ResizedCropParams(), 40, 1, 0)
    assert (boxes[:, :2] >= 0).all() and (boxes[:, 2:] >= 1).all()
    assert (boxes[:, :2] + boxes[:, 2:] <= 40).all()
    wide = crop_boxes(DIGESTS, ResizedCropParams(scale=(1, 1), ratio=(2, 2)), 40, 1, 0)
    assert {tuple(box) for box in wide.tolist()} == {(10, 0, 20, 40)}
    high = crop_boxes(DIGESTS, ResizedCropParams(scale=(1, 1), ratio=(0.5, 0.5)), 40, 1, 0)
    assert {tuple(box) for box in high.tolist()} == {(0, 10, 40, 20)}


@pytest.mark.parametrize(
    ("which", "value"),
    [(which, value) for which in PROPERTIES[:3] for value in (0.0, 0.1, 0.5, 1.0, 1.7)]
    + [("hue", value) for value in (-0.5, -0.21, -0.001, 0.0, 0.1, 0.5)],
)
def test_colours_change_as_torchvisions(which: str, value: float) -> None:
    """Each adjustment gives torchvision's bytes."""
    adjust = getattr(reference, f"adjust_{which}")
    image = Image.fromarray(picture())
    assert adjusted(image, which, value).tobytes() == adjust(image, value).tobytes()


@pytest.mark.parametrize("which", PROPERTIES)
def test_each_colour_alone_changes_a_picture(which: str) -> None:
    """A strength of one property gives every sample other colours, each its own."""
    found = looked_at(augmentation(colour={which: 0.4}).views(0, DIGESTS[:8]))
    assert len(set(found)) > 6
    assert found != looked_at(augmentation().views(0, DIGESTS[:8]))


def test_colour_factors_fill_their_ranges() -> None:
    """A strength of x gives factors of 1 - x to 1 + x (never below 0), the hue -x to x."""
    views = augmentation(colour={"brightness": 1.5, "contrast": 0.2, "hue": 0.1}).views(0, DIGESTS)
    (jitter,) = views.retouches
    values = jitter.values  # type: ignore[attr-defined]
    ranges = [(0, 2.5), (0.8, 1.2), (1, 1), (-0.1, 0.1)]
    for column, (low, high) in zip(values.T, ranges, strict=True):
        assert low <= column.min() <= low + 0.03 * (high - low)
        assert high - 0.03 * (high - low) <= column.max() <= high
    orders = {tuple(order) for order in jitter.order.tolist()}  # type: ignore[attr-defined]
    assert len(orders) == 24


@pytest.mark.parametrize("magnitude", [0, 1, 9, 10, 17, 30])
@pytest.mark.parametrize("negative", [False, True])
@pytest.mark.parametrize("name", NAMES)
def test_operations_are_torchvisions(name: str, negative: bool, magnitude: int) -> None:
    """Every operation of RandAugment gives torchvision's pixels at every strength.

    (Its strengths are float32, ours float64: a colour may be rounded the other way.)
    """
    space = RandAugment()._augmentation_space(31, (40, 40))
    assert list(space) == list(NAMES)
    strengths, signed = space[name]
    assert signed == (name in SIGNED)
    strength = float(strengths[magnitude].item()) if strengths.ndim else 0.0
    strength = -strength if signed and negative else strength
    image = Image.fromarray(picture())
    wanted = np.asarray(_apply_op(image, name, strength, InterpolationMode.NEAREST, None))
    found = np.asarray(operated(image, name, magnitude, negative))
    off = np.abs(found.astype(int) - wanted)
    assert off.max() <= (name in ("Brightness", "Color", "Contrast", "Sharpness"))
    assert (off > 0).mean() < 0.01


def test_operations_are_drawn_evenly() -> None:
    """Each of the 14 comes in each place about equally often, each way in half of the cases."""
    digests = splitmix64(np.arange(14_000, dtype=np.uint64))
    views = augmentation(rand_augment={"num_ops": 2}).views(0, digests)
    (chosen,) = views.retouches
    for place in range(2):
        counts = np.bincount(chosen.operations[:, place], minlength=14)  # type: ignore[attr-defined]
        assert (np.abs(counts - 1000) < 150).all()
    assert abs(chosen.negative.mean() - 0.5) < 0.02  # type: ignore[attr-defined]


# --- mixing -----------------------------------------------------------------------------------


def mix_of(digests: Bits = DIGESTS, epoch: int = 0, seed: int = 7, **wanted: float) -> Mix:
    """How a batch is mixed."""
    found = mixed(digests, AugmentParams.model_validate(wanted), 32, seed, epoch)
    assert found is not None
    return found


def test_mixup_blends_with_one_partner() -> None:
    """Each image is the blend of itself and one other, in the share that its labels get."""
    mix = mix_of(mixup=0.4)
    images = torch.rand(len(DIGESTS), 3, 32, 32)
    share = mix.share.view(-1, 1, 1, 1)
    wanted = share * images + (1 - share) * images[mix.partner]
    torch.testing.assert_close(mix(images), wanted)
    assert (mix.partner != torch.arange(len(DIGESTS))).all()
    assert len(set(mix.partner.tolist())) > 0.5 * len(DIGESTS)


@pytest.mark.parametrize("alpha", [0.2, 1.0, 4.0])
def test_shares_are_betas(alpha: float) -> None:
    """Shares have the quantiles of Beta(alpha, alpha)."""
    from scipy.stats import beta, kstest

    digests = splitmix64(np.arange(1500, dtype=np.uint64))
    shares = mix_of(digests, mixup=alpha).share.double().numpy()
    assert kstest(shares, beta(alpha, alpha).cdf).pvalue > 0.001


def test_cutmix_pastes_a_rectangle() -> None:
    """Inside one rectangle an image is its partner, outside it is itself; its share is the area."""
    mix = mix_of(cutmix=1.0)
    images = torch.rand(len(DIGESTS), 3, 32, 32)
    found = mix(images)
    for row in range(len(DIGESTS)):
        top, left, bottom, right = mix.box[row].tolist()
        wanted = images[row].clone()
        wanted[:, top:bottom, left:right] = images[mix.partner[row], :, top:bottom, left:right]
        assert torch.equal(found[row], wanted)
        assert mix.share[row].item() == pytest.approx(1 - (bottom - top) * (right - left) / 32**2)
    assert 0.2 < mix.share.mean().item() < 0.8


def test_with_both_each_image_gets_one() -> None:
    """About half of the images are cut, the others blended, and each as if there were no other."""
    both, blended, cut = mix_of(mixup=0.4, cutmix=1.0), mix_of(mixup=0.4), mix_of(cutmix=1.0)
    is_cut = torch.tensor([any(box) for box in both.box.tolist()])
    share = torch.where(is_cut, cut.share, blended.share)
    assert 0.35 < is_cut.double().mean().item() < 0.65
    assert torch.equal(both.share, share) and torch.equal(both.partner, cut.partner)


@given(st.data())
@settings(max_examples=30)
def test_mixing_follows_the_sample(data: st.DataObject) -> None:
    """Shares and boxes are a sample's own; its partner is the same in every batch that holds it."""
    chosen = np.array(data.draw(st.permutations(range(12))))[: data.draw(st.integers(2, 12))]
    whole, part = (
        mix_of(DIGESTS[:12], mixup=1, cutmix=1),
        mix_of(DIGESTS[chosen], mixup=1, cutmix=1),
    )
    assert torch.equal(part.share, whole.share[chosen])
    assert torch.equal(part.box, whole.box[chosen])
    for row, index in enumerate(chosen.tolist()):
        partner = whole.partner[index].item()
        if partner in chosen:
            assert chosen[part.partner[row]] == partner


def test_an_image_alone_stays_as_it_is() -> None:
    """Without another image in its batch, an image is mixed with itself."""
    images = torch.rand(1, 3, 32, 32)
    torch.testing.assert_close(mix_of(DIGESTS[:1], mixup=0.4)(images), images)


# --- draws ------------------------------------------------------------------------------------


def drawn(
    more: dict[str, object], epoch: int = 0, digests: Bits = DIGESTS[:40]
) -> dict[str, object]:
    """What each augmentation does to each sample, by name."""
    found: dict[str, object] = {}
    chosen = augmentation(**more)
    views = chosen.views(epoch, digests)
    found["flip"] = views.flipped.tolist()
    if views.boxes is not None:
        found["resized_crop"] = views.boxes.tolist()
    for retouch in views.retouches:
        alone = replace(views, boxes=None, retouches=(retouch,))
        found[type(retouch).__name__] = looked_at(alone)
    mix = chosen.mix(epoch, digests)
    if mix is not None:
        found["mix"] = (mix.partner.tolist(), mix.share.tolist(), mix.box.tolist())
    return found


@pytest.mark.parametrize("name", ONES)
def test_adding_one_changes_no_other(name: str) -> None:
    """What the others draw is the same with and without each augmentation."""
    without = {key: value for key, value in EVERYTHING.items() if key != name}
    if name in ("mixup", "cutmix"):  # which of the two an image gets is drawn where there are both
        without = {key: value for key, value in without.items() if key not in ("mixup", "cutmix")}
    more, less = drawn(EVERYTHING), drawn(without)
    assert set(less) < set(more) or name in ("mixup", "cutmix")
    assert {key: more[key] for key in less} == less


@pytest.mark.parametrize("name", ONES)
def test_each_augmentation_does_something_and_differs_by_epoch(name: str) -> None:
    """Alone, each one changes what is seen, in another way in each epoch."""
    only = {name: EVERYTHING[name]}
    first, second = drawn(only), drawn(only, epoch=1)
    (key,) = set(first) - {"flip"}
    assert first[key] != second[key]
    assert set(drawn({})) == {"flip"}


def test_views_do_not_depend_on_the_batch() -> None:
    """A sample looks the same alone, in a batch, and in any order."""
    only = {key: value for key, value in EVERYTHING.items() if key not in ("mixup", "cutmix")}
    chosen = augmentation(**only)
    together = looked_at(chosen.views(3, DIGESTS[:8]))
    backwards = looked_at(chosen.views(3, DIGESTS[:8][::-1].copy()))[::-1]
    alone = [looked_at(chosen.views(3, DIGESTS[row : row + 1]))[0] for row in range(8)]
    assert together == backwards == alone
    assert len(set(together)) == 8


@pytest.fixture
def many() -> Iterator[Bits]:
    """Enough samples to see a distribution."""
    yield splitmix64(np.arange(20_000, dtype=np.uint64))


def test_uniform_draws_are_uniform(many: Bits) -> None:
    """Numbers fill [0, 1) evenly, choices come equally often, keys make them independent."""
    numbers, others = keyed_uniform(many, "a", 1), keyed_uniform(many, "b", 1)
    assert numbers.min() >= 0 and numbers.max() < 1
    assert np.abs(np.histogram(numbers, 10, (0, 1))[0] - 2000).max() < 250
    assert abs(np.corrcoef(numbers, others)[0, 1]) < 0.03
    counts = np.bincount(keyed_choice(many, 7, "c", 1), minlength=7)
    assert len(counts) == 7 and np.abs(counts - 20_000 / 7).max() < 250
