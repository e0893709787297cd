"""A bank of 48 Gabor filters: real and imaginary parts of 4 scales x 6 orientations.

So many are named by Ge and Yu 2017 ("Borrowing Treasures from the Wealthy"), who do not say which.
These have a round envelope and a bandwidth of one octave, sigma = 0.56 wavelengths (Daugman 1985,
"Uncertainty relation for resolution in space", for cells of the visual cortex), and wavelengths in
a geometric progression from 3 pixels to 24 or a quarter of the image's side, whichever is less: 3,
6, 12, 24 pixels in images of 96 and more, 3 to 7 pixels in those of 28.  They do not answer to
brightness: even areas give 0.
"""

from __future__ import annotations

import math

import torch
from torch.nn import functional

NUM_SCALES, NUM_ORIENTATIONS = 4, 6
NUM_FILTERS = 2 * NUM_SCALES * NUM_ORIENTATIONS
SHORTEST, LONGEST = 3.0, 24.0  # wavelengths in pixels
SIDES_PER_WAVE = 4  # of the longest
SIGMA = math.sqrt(math.log(2) / 2) / math.pi * 3  # in wavelengths: one octave at half the height
REACH = 3.0  # in sigmas: where filters are cut off
GREY = (0.299, 0.587, 0.114)  # ITU-R BT.601
# Responses of images in 0..1 are of about 0.1. A Fourier transform's last digits depend on the
# machine and on the rest of the picture; without them even areas are 0 everywhere.
STEP = 2.0**-20


def wavelengths(side: int) -> tuple[float, ...]:
    """The wavelengths in pixels for images of `side` pixels, ascending."""
    longest = max(SHORTEST, min(LONGEST, side / SIDES_PER_WAVE))
    ratio = (longest / SHORTEST) ** (1 / (NUM_SCALES - 1))
    return tuple(SHORTEST * ratio**scale for scale in range(NUM_SCALES))


def filters(side: int) -> torch.Tensor:
    """The filters for images of `side` pixels: complex128 (scales x orientations, L, L), L odd.

    The sum of each is 0, that of its absolute values 1.
    """
    waves = wavelengths(side)
    reach = math.ceil(REACH * SIGMA * waves[-1])
    place = torch.arange(-reach, reach + 1, dtype=torch.float64)
    y, x = torch.meshgrid(place, place, indexing="ij")
    found = []
    for wave in waves:
        envelope = torch.exp(-(x**2 + y**2) / (2 * (SIGMA * wave) ** 2))
        for number in range(NUM_ORIENTATIONS):
            angle = math.pi * number / NUM_ORIENTATIONS
            phase = 2 * math.pi / wave * (x * math.cos(angle) + y * math.sin(angle))
            gabor = envelope * torch.polar(torch.ones_like(phase), phase)
            gabor = gabor - envelope * (gabor.sum() / envelope.sum())
            found.append(gabor / gabor.abs().sum())
    return torch.stack(found)


class Gabor:
    """The bank for images of `side` pixels, on a device."""

    def __init__(self, side: int, device: str) -> None:
        kernels = filters(side)
        self._reach = kernels.shape[-1] // 2
        length = side + 2 * self._reach
        # the product of spectra is a convolution: a correlation with the flipped filter
        spectra = torch.fft.fft2(kernels.flip(1, 2), (length, length))
        self._spectra = spectra.to(torch.complex64).to(device)

    def __call__(self, images: torch.Tensor) -> tuple[torch.Tensor]:
        """Responses (N, 48, S, S) of images (N, 3, S, S) in 0..1, mirrored at their edges.

        The 24 real parts come first; one layer of filters.
        """
        weights = images.new_tensor(GREY).view(1, 3, 1, 1)
        grey = (images * weights).sum(1, keepdim=True)
        reach, side = self._reach, images.shape[-1]
        padded = functional.pad(grey, (reach,) * 4, mode="reflect")
        spectrum = torch.fft.fft2(padded)
        responses = images.new_empty((len(images), NUM_FILTERS, side, side))
        for scale in range(NUM_SCALES):  # one after the other, for memory's sake
            first, last = scale * NUM_ORIENTATIONS, (scale + 1) * NUM_ORIENTATIONS
            waves = torch.fft.ifft2(spectrum * self._spectra[first:last])
            waves = waves[:, :, 2 * reach :, 2 * reach :]
            responses[:, first:last] = waves.real
            responses[:, NUM_FILTERS // 2 + first : NUM_FILTERS // 2 + last] = waves.imag
        return (responses.div_(STEP).round_().mul_(STEP),)
