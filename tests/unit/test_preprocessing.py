"""Images of one's own: every kind of file is read alike, into MNIST's form; what cannot be read is refused."""

import io

import numpy as np
import pytest
from drawn import INK, PAPER, SEEN, shaded, stroke
from PIL import Image, ImageOps

from digits.mnist import load_dataset
from digits.preprocessing import prepare, read_grey


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
KINDS = {  # image, format, and options of saving it
    **{"grey": (GREY, "PNG"), "light on dark": (Image.fromarray(255 - PAPER), "PNG"), "a corner cut off": (CUT, "PNG")},
    **{"one bit": (GREY.convert("1"), "PNG"), "palette": (COLOURED.quantize(16), "PNG")},
    **{"colour": (COLOURED, "JPEG", {"quality": 80}), "CMYK": (COLOURED.convert("CMYK"), "JPEG", {"quality": 90})},
    "12 of 16 bits": (Image.fromarray(PAPER.astype(np.uint16) * 16), "PNG"),
    "float": (Image.fromarray(np.float32(PAPER / 255)), "TIFF"),
    "black on nothing": (Image.fromarray(np.dstack([0 * PAPER, np.uint8(255 * INK)])), "PNG"),
    "turned": (LYING, "JPEG", {"quality": 95, "exif": LYING.getexif()}),
    "animated": (GREY, "GIF", {"save_all": True, "append_images": [BLANK]}),
    "large": (GREY.resize((2000, 2400)), "PNG", {"compress_level": 1}),
}


def content(image, kind="PNG", options=None):
    image.save(file := io.BytesIO(), kind, **options or {})
    return file.getvalue()


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_file_is_read_alike(kind):
    grey = read_grey(io.BytesIO(content(*KINDS[kind])))
    assert grey.dtype == np.uint8 and max(grey.shape) <= 1024 and alike(prepare(grey))


REFUSED = {
    "empty": (b"", "is no image"),
    "a program, never run": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "is no image"),
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


def test_uneven_light_noise_size_and_place_do_not_matter():
    assert alike(prepare(shaded(0.3, 0))) and alike(prepare(shaded(0, 25)))
    for share in 0.1, 0.9:
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
    for profile in image.sum(0, dtype=float), image.sum(1, dtype=float):
        assert 13.9 < profile @ (np.arange(28) + 0.5) / profile.sum() < 15.1
    assert alike(prepare(image), image, most=2)


def test_digits_of_mnist_stay_what_they_are(mnist):
    images = load_dataset("mnist", mnist, "train")[0][:100].numpy()
    assert np.mean([np.abs(prepare(image).astype(int) - image) for image in images]) < 2


def test_any_grey_levels_give_an_image_or_show_no_digit():
    random, outcomes = np.random.default_rng(0), []
    gradient, noise = np.tile(np.linspace(60, 200, 400), (300, 1)), random.normal(128, 30, (300, 400)).clip(0, 255)
    few = [
        random.choice(random.integers(0, 256, n, np.uint8), random.integers(1, 60, 2)) for n in 20 * [1, 2, 2, 3, 256]
    ]
    for grey in np.full((300, 200), 255), gradient, noise, *few:
        try:
            outcomes.append(prepare(grey.astype(np.uint8)).max())
        except ValueError as error:
            outcomes.append(str(error)[:14])
    assert (
        set(outcomes) == {255, "shows no digit"} and {*outcomes[:3]} == {"shows no digit"} and outcomes.count(255) > 20
    )
