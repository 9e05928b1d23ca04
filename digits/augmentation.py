"""Augmentation: in each epoch the training digits, each distorted at random (section III).

"The distortions were combinations of the following planar affine transformations: horizontal and vertical
translations, scaling, squeezing (simultaneous horizontal compression and vertical elongation, or the reverse), and
horizontal shearing." The paper drew 540,000 such digits once and gives no ranges. Here every digit is drawn anew each
epoch, and the ranges are this project's. Elastic distortions come from P. Y. Simard, D. Steinkraus, J. C. Platt, "Best
Practices for Convolutional Neural Networks Applied to Visual Document Analysis", ICDAR 2003.
"""

import concurrent.futures
from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from model import pad

# How far each goes, either way, at strength 1. A strength multiplies pixels and slopes, and is the power of a factor.
TRANSLATION = 2.5  # pixels, along each axis
SCALING = 1.12  # a factor
SQUEEZING = 1.1  # a factor of the width, and its inverse of the height
SHEARING = 0.25  # pixels sideways for each pixel of height
NUMBERS = 5  # random numbers a digit: translation right and down, scaling, squeezing, shearing

SPACING = 4  # pixels between the places whose random displacements make the elastic field, and its Gaussian's sigma
PLACES = 32 // SPACING

CENTRE, HALF = 15.5, 16  # pixels: the middle of an image, and half its side
CHUNK, LARGE_CHUNK = 100, 1_000  # digits at a time: few enough for a core's cache, and on a GPU


def augment(images: Tensor, generator: np.random.Generator, strength: float = 1.0, elastic: float = 0.0) -> Tensor:
    """Each digit distorted at random: uint8 (N, 32, 32), background 0, -> uint8 (N, 32, 32), on the same device.

    `elastic` is the standard deviation, in pixels, of each pixel's displacement besides. A digit takes its numbers
    from the generator after the one before it: calls for parts of the digits give what one call for all gives.
    """
    count = NUMBERS + (2 * PLACES**2 if elastic else 0)
    numbers = torch.from_numpy(2 * generator.random((len(images), count), np.float32) - 1)
    maps = affine_maps(strength * numbers[:, :NUMBERS]).to(images.device)
    numbers = elastic * 3**0.5 * numbers[:, NUMBERS:].to(images.device)  # +-1, uniform: a deviation of 1 / sqrt(3)
    result = torch.empty_like(images)
    chunk = CHUNK if images.device.type == "cpu" else LARGE_CHUNK
    for first in range(0, len(images), chunk):
        chosen = slice(first, first + chunk)
        shifts = elastic_shifts(numbers[chosen]) if elastic else None
        result[chosen] = warp(images[chosen], maps[chosen], shifts)
    return result


def affine_maps(amounts: Tensor) -> Tensor:
    """Where the pixels of augmented digits come from: amounts (N, 5), +-1 the ranges above, -> maps (N, 2, 3).

    A distortion sends the point (x, y) of a digit, in pixels right of and below the centre, to (x', y'):

        x' = s q x + h s y / q + t_x,  y' = s y / q + t_y

    with scaling s, squeezing q, shearing h and translation t. A map [M | v] is its inverse: (x, y) = M (x', y') + v.
    """
    right, down = TRANSLATION * amounts[:, 0], TRANSLATION * amounts[:, 1]
    s, q, h = SCALING ** amounts[:, 2], SQUEEZING ** amounts[:, 3], SHEARING * amounts[:, 4]
    width, height, zero = s * q, s / q, torch.zeros_like(s)
    x = torch.stack([1 / width, -h / width, (h * down - right) / width], 1)
    y = torch.stack([zero, 1 / height, -down / height], 1)
    return torch.stack([x, y], 1)


def elastic_shifts(numbers: Tensor) -> Tensor:
    """A smooth random field: numbers (N, 2 PLACES^2) of the coarse places -> shifts (N, 2, 32, 32), right and down.

    Each pixel's shift is a sum of those of the places, weighted by a Gaussian of their distance. The squares of the
    weights sum to 1, so that the shifts have the numbers' deviation everywhere.
    """
    pixels = torch.arange(32.0, device=numbers.device)
    places = SPACING * (torch.arange(PLACES, device=numbers.device) + 0.5) - 0.5
    weights = torch.exp(-((pixels[:, None] - places) ** 2) / (2 * SPACING**2))  # (32, PLACES)
    weights /= weights.norm(dim=1, keepdim=True)
    return weights @ (numbers.view(-1, 2, PLACES, PLACES) @ weights.T)


def warp(images: Tensor, maps: Tensor, shifts: Tensor | None = None) -> Tensor:
    """Pixels from where maps (N, 2, 3) and shifts (N, 2, 32, 32) say: uint8 (N, 32, 32) -> uint8 (N, 32, 32), rounded.

    In pixels from the centre, pixel p of the result is what the image has at M p + v + shift, bilinearly interpolated;
    outside the image all is background.
    """
    places = torch.arange(32, device=images.device) - CENTRE
    x, y, v = maps.unsqueeze(-1).unbind(2)  # each (N, 2, 1): what a step right or down adds, and the constant
    sources = (x * places).unsqueeze(2) + (y * places + v).unsqueeze(3)  # (N, 2, 32, 32)
    if shifts is not None:
        sources += shifts
    grid = sources.div_(HALF).permute(0, 2, 3, 1)  # a view (N, 32, 32, 2); grid_sample counts in half sides
    grey = F.grid_sample(images.float().unsqueeze(1), grid, align_corners=False).squeeze(1)
    return grey.round_().to(torch.int32).to(torch.uint8)  # straight to bytes takes twice as long


class AugmentedImages:
    """Each epoch's images of a training run: images uint8 (N, 28, 28), padded and augmented anew.

    `generator_of` gives an epoch's random numbers. Where PyTorch may use a second core, a second thread makes the next
    epoch's images while one epoch is trained on. They are the same either way. Not on CUDA: there nothing else may run
    while a graph is captured, and there is little to gain. The thread ends when nothing refers to this any more.
    """

    def __init__(
        self,
        images: Tensor,
        strength: float,
        elastic: float,
        generator_of: Callable[[int], np.random.Generator],
        last_epoch: int,
    ):
        self.images, self.strength, self.elastic = images, strength, elastic
        self.generator_of, self.last_epoch = generator_of, last_epoch
        self.started = {}  # epoch -> future of its images
        self.pool = None
        if images.device.type == "cpu" and torch.get_num_threads() > 1:
            # The number of PyTorch's threads is each thread's own: more than one here would take the training's core.
            self.pool = concurrent.futures.ThreadPoolExecutor(1, "augmentation", torch.set_num_threads, (1,))

    def put(self, epoch: int, place: Tensor):
        """Copy the epoch's images into place, uint8 (N, 32, 32). Raises what went wrong in the making of them."""
        if not self.pool:
            place.copy_(self.make(epoch))
            return
        place.copy_((self.started.pop(epoch, None) or self.pool.submit(self.make, epoch)).result())
        if epoch < self.last_epoch:
            self.started[epoch + 1] = self.pool.submit(self.make, epoch + 1)

    def make(self, epoch: int) -> Tensor:
        generator, made = self.generator_of(epoch), self.images.new_empty(len(self.images), 32, 32)
        for part, place in zip(self.images.split(LARGE_CHUNK), made.split(LARGE_CHUNK)):  # padded, all take 60 MB more
            place.copy_(augment(pad(part), generator, self.strength, self.elastic))
        return made
