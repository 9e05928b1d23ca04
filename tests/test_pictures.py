"""Pictures of one's own: every kind of file is read alike, into MNIST's form; what cannot be read is refused."""

import io

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageOps

from mnist import load_dataset
from pictures import prepare, read_grey


def stroke(height, width, points, thickness):
    """A line through points (x, y) as ink from 0 to 1: (height, width)."""
    large = Image.new("L", (4 * width, 4 * height))
    ImageDraw.Draw(large).line([(4 * x, 4 * y) for x, y in points], 255, round(4 * thickness), "curve")
    return np.asarray(large.reduce(4)) / 255


def seven(height=240, width=200):
    points = [(0.3, 0.2), (0.75, 0.22), (0.45, 0.8)]  # a little off the centre
    return stroke(height, width, [(x * width, y * height) for x, y in points], width / 11)


INK = seven()
PAPER = np.uint8(np.rint(235 - 200 * INK))  # dark on light
SEEN = prepare(PAPER)


def alike(image, other=SEEN, most=4.0):
    """Whether two images (28, 28) differ by but a few grey levels on average, and by a pixel's shift."""
    shifted = [np.roll(image, (y, x), (0, 1)).astype(int) for y in (-1, 0, 1) for x in (-1, 0, 1)]
    return min(np.abs(one - other).mean() for one in shifted) < most


GREY = Image.fromarray(PAPER)
COLOURED = ImageOps.colorize(GREY, (30, 40, 160), (250, 240, 200))
BLANK = Image.new("L", GREY.size, 255)
CUT = Image.fromarray(np.dstack([PAPER, 255 * (np.add.outer(range(240), range(200)) > 60)]).astype(np.uint8))
LYING = GREY.transpose(Image.Transpose.ROTATE_90)
LYING.getexif()[0x0112] = 6  # a note to turn it
KINDS = {  # picture, format, and options of saving it
    "grey": (GREY, "PNG", {}),
    "light on dark": (Image.fromarray(255 - PAPER), "PNG", {}),
    "colour": (COLOURED, "JPEG", {"quality": 80}),
    "palette": (COLOURED.quantize(16), "PNG", {}),
    "one bit": (GREY.convert("1"), "PNG", {}),
    "12 of 16 bits": (Image.fromarray(PAPER.astype(np.uint16) * 16), "PNG", {}),
    "float": (Image.fromarray(np.float32(PAPER / 255)), "TIFF", {}),
    "CMYK": (COLOURED.convert("CMYK"), "JPEG", {"quality": 90}),
    "black on nothing": (Image.fromarray(np.dstack([0 * PAPER, np.uint8(255 * INK)])), "PNG", {}),
    "a corner cut off": (CUT, "PNG", {}),
    "turned": (LYING, "JPEG", {"quality": 95, "exif": LYING.getexif()}),
    "animated": (GREY, "GIF", {"save_all": True, "append_images": [BLANK]}),
    "large": (GREY.resize((2000, 2400)), "PNG", {"compress_level": 1}),
}


def content(picture, kind="PNG", **options):
    picture.save(file := io.BytesIO(), kind, **options)
    return file.getvalue()


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_file_is_read_alike(kind):
    picture, name, options = KINDS[kind]
    grey = read_grey(io.BytesIO(content(picture, name, **options)))
    assert grey.dtype == np.uint8 and max(grey.shape) <= 1024
    assert alike(prepare(grey))


REFUSED = {
    "empty": (b"", "no picture"),
    "a program, never run": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "no picture"),
    "cut short": (content(GREY)[:-400], "cannot be read"),
    "huge": (b"P5 100000 100000 255\n", "64 million pixels"),
    "all transparent": (content(Image.new("RGBA", (50, 50))), "transparent all over"),
    "no numbers": (content(Image.fromarray(np.float32([[np.nan]])), "TIFF"), "not all .* finite"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_cannot_be_read_is_refused(kind, monkeypatch):
    bad, words = REFUSED[kind]
    if "pixels" in words:  # and before it is decoded
        monkeypatch.setattr(Image.core, "new", lambda *_: pytest.fail("memory was taken"))
    with pytest.raises(ValueError, match=words):
        read_grey(io.BytesIO(bad))


def shaded(slope, noise, size=(600, 500)):
    y, x = np.mgrid[-1 : 1 : size[0] * 1j, -1 : 1 : size[1] * 1j]
    picture = (200 - 120 * seven(*size)) * (1 + slope * x - slope * y / 2)
    return (picture + np.random.default_rng(0).normal(0, noise, size)).clip(0, 255).astype(np.uint8)


@pytest.mark.parametrize(("slope", "noise"), [(0.3, 0), (0, 25)])
def test_uneven_light_and_noise_do_not_matter(slope, noise):
    assert alike(prepare(shaded(slope, noise)))


@pytest.mark.parametrize("share", [0.1, 0.9])
def test_size_and_place_do_not_matter(share):
    page, side = Image.new("L", (1000, 1200), 235), (int(1000 * share), int(1200 * share))
    page.paste(GREY.resize(side), (1000 - side[0], 0))
    assert alike(prepare(np.asarray(page)))


@pytest.mark.parametrize("points", [[(100, 20), (100, 180)], [(20, 40), (180, 60)]])
def test_the_form_is_that_of_mnist(points):
    """20 pixels on the longer side, the centre of mass in the centre, ink up to 255; and what has it stays as it is."""
    image = prepare(np.uint8(255 * stroke(200, 200, points, 20)))
    assert image.shape == (28, 28) and image.dtype == np.uint8 and image.max() == 255
    sides = [np.flatnonzero(image.max(axis) > 100) for axis in (0, 1)]
    assert max(side[-1] - side[0] + 1 for side in sides) == 20
    for axis in (0, 1):
        profile = image.sum(axis, dtype=float)
        assert 13.9 < profile @ (np.arange(28) + 0.5) / profile.sum() < 15.1
    assert alike(prepare(image), image, most=2)


def test_digits_of_mnist_stay_what_they_are(mnist):
    images = load_dataset("mnist", mnist, "train")[0][:100].numpy()
    assert np.mean([np.abs(prepare(image).astype(int) - image) for image in images]) < 2


def test_any_grey_levels_give_an_image_or_are_refused():
    random, refused = np.random.default_rng(0), 0
    for levels in 1, 2, 2, 2, 3, 256:
        for _ in range(20):
            grey = random.choice(random.integers(0, 256, levels, np.uint8), random.integers(1, 60, 2))
            try:
                assert prepare(grey).max() == 255
            except ValueError as error:
                assert "shows no digit" in str(error)
                refused += 1
    assert 20 <= refused < 120


NO_INK = {
    "white": np.full((300, 200), 255),
    "gradient": np.tile(np.linspace(60, 200, 400), (300, 1)),
    "noise": np.random.default_rng(0).normal(128, 30, (300, 400)).clip(0, 255),
}


@pytest.mark.parametrize("kind", NO_INK)
def test_no_ink_is_refused(kind):
    with pytest.raises(ValueError, match="shows no digit"):
        prepare(NO_INK[kind].astype(np.uint8))
