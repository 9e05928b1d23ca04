"""Pictures of one's own: every kind of file is read alike, into MNIST's form; what is wrong is said in a line."""

import csv
import io
import struct
import zlib

import numpy as np
import pytest
import torch
from conftest import reference
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from PIL import Image

import ClassifyTask_predict
import utils
from ClassifyTask_predict import layer_outputs, prepare, read_grey
from model import LeNet5, pad, scale


@pytest.fixture
def predict(call, tmp_path):
    """Runs the script with the checkpoint in its record folder."""
    utils.save_checkpoint(tmp_path / utils.RECORD / "LeNet5.pt", reference())
    return lambda *arguments: call("ClassifyTask_predict.py", *arguments)


def stroke(height, width, points, thickness):
    """A line through points (x, y) as ink from 0 to 1: (height, width)."""
    y, x = np.mgrid[:height, :width] + 0.5
    distance = np.full((height, width), np.inf)
    for (x0, y0), (x1, y1) in zip(points, points[1:]):
        along = ((x - x0) * (x1 - x0) + (y - y0) * (y1 - y0)) / ((x1 - x0) ** 2 + (y1 - y0) ** 2)
        along = along.clip(0, 1)
        distance = np.minimum(distance, np.hypot(x - x0 - along * (x1 - x0), y - y0 - along * (y1 - y0)))
    return (thickness / 2 - distance + 0.5).clip(0, 1)


def seven(height=240, width=200):
    """A seven, a little off the centre."""
    points = [(0.3, 0.2), (0.75, 0.22), (0.45, 0.8)]
    return stroke(height, width, [(x * width, y * height) for x, y in points], width / 11)


INK = seven()
PAPER = np.uint8(np.rint(235 - 200 * INK))  # dark on light
SEEN = prepare(PAPER)


def alike(image, other=SEEN, most=4.0):
    """Whether two images (28, 28) differ by but a few grey levels on average, and by a pixel's shift."""
    shifted = [np.roll(image, (y, x), (0, 1)).astype(int) for y in (-1, 0, 1) for x in (-1, 0, 1)]
    return min(np.abs(one - other).mean() for one in shifted) < most


def layers(colour):
    """A drawing whose paper is transparent."""
    alpha = np.uint8(np.rint(255 * INK))
    return Image.fromarray(np.dstack([*[np.full_like(alpha, level) for level in colour], alpha]))


def animation(file):
    frames = [Image.fromarray(PAPER), Image.fromarray(np.full_like(PAPER, 255))]
    frames[0].save(file, "GIF", save_all=True, append_images=frames[1:])


def turned(file):
    """Stored lying on its side, with an EXIF note to turn it."""
    picture = Image.fromarray(PAPER).transpose(Image.Transpose.ROTATE_90)
    exif = Image.Exif()
    exif[0x0112] = 6
    picture.save(file, "JPEG", quality=95, exif=exif)


def colours(ink, paper):
    return Image.fromarray(np.uint8(paper + INK[..., None] * (np.array(ink) - paper)))


KINDS = {
    "grey": lambda file: Image.fromarray(PAPER).save(file, "PNG"),
    "light on dark": lambda file: Image.fromarray(255 - PAPER).save(file, "PNG"),
    "colour": lambda file: colours((30, 40, 160), (250, 240, 200)).save(file, "JPEG", quality=80),
    "chalk": lambda file: colours((230, 230, 200), (20, 60, 40)).save(file, "BMP"),
    "palette": lambda file: colours((30, 40, 160), (250, 240, 200)).quantize(16).save(file, "PNG"),
    "one bit": lambda file: Image.fromarray(PAPER).convert("1").save(file, "PNG"),
    "16 bits": lambda file: Image.fromarray(PAPER.astype(np.uint16) * 257).save(file, "PNG"),
    "12 of 16 bits": lambda file: Image.fromarray(PAPER.astype(np.uint16) * 16).save(file, "TIFF"),
    "32 bits": lambda file: Image.fromarray(PAPER.astype(np.int32) * 1000 - 5000).save(file, "TIFF"),
    "float": lambda file: Image.fromarray(np.float32(PAPER / 255)).save(file, "TIFF"),
    "CMYK": lambda file: colours((30, 40, 160), (250, 240, 200)).convert("CMYK").save(file, "JPEG", quality=90),
    "black on nothing": lambda file: layers((0, 0, 0)).save(file, "PNG"),
    "white on nothing": lambda file: layers((255, 255, 255)).save(file, "PNG"),
    "grey and alpha": lambda file: layers((40, 40, 40)).convert("LA").save(file, "PNG"),
    "half transparent": lambda file: Image.fromarray(np.dstack([PAPER, PAPER // 2 + 100])).save(file, "PNG"),
    "rotated": turned,
    "animated": animation,
    "WebP": lambda file: Image.fromarray(PAPER).save(file, "WEBP", quality=90),
}  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_kinds_of_pictures(kind):
    file = io.BytesIO()
    KINDS[kind](file)
    file.seek(0)
    assert alike(prepare(read_grey(file)))


def test_corners_that_are_transparent():
    """A picture cut out round: what is transparent counts as paper, not as ink."""
    picture = Image.fromarray(np.dstack([PAPER, np.full_like(PAPER, 255)]), "LA")
    for corner in ((0, 0), (170, 0), (0, 210), (170, 210)):
        picture.paste((0, 0), (*corner, corner[0] + 30, corner[1] + 30))
    file = io.BytesIO()
    picture.save(file, "PNG")
    assert alike(prepare(read_grey(file)))


def shaded(slope, noise, size=(600, 500)):
    random = np.random.default_rng(0)
    y, x = np.mgrid[-1 : 1 : size[0] * 1j, -1 : 1 : size[1] * 1j]
    picture = (200 - 120 * seven(*size)) * (1 + slope * x - slope * y / 2) + random.normal(0, noise, size)
    return picture.clip(0, 255).astype(np.uint8)


@pytest.mark.parametrize(("slope", "noise"), [(0, 0), (0.3, 0), (0, 25), (0.2, 15)])
def test_lighting_and_noise(slope, noise):
    assert alike(prepare(shaded(slope, noise)))


@pytest.mark.parametrize("share", [0.1, 0.3, 0.9])
@pytest.mark.parametrize("corner", [0.0, 0.5, 1.0])
def test_size_and_place(share, corner):
    digit = seven(int(1200 * share), int(1000 * share))
    page = np.full((1200, 1000), 240.0)
    top, left = (int(corner * (side - part)) for side, part in zip(page.shape, digit.shape))
    page[top : top + digit.shape[0], left : left + digit.shape[1]] -= 190 * digit
    assert alike(prepare(page.astype(np.uint8)))


def test_specks():
    page = PAPER.copy()
    random = np.random.default_rng(0)
    for y, x in random.integers(2, 198, (12, 2)):
        page[y : y + 2, x : x + 2] = 20
    assert alike(prepare(page), most=6)


def test_mnist_form():
    """20 pixels on the longer side, the centre of mass in the centre, ink up to 255."""
    for points in ([(0.5, 0.1), (0.5, 0.9)], [(0.1, 0.2), (0.9, 0.3)], [(0.3, 0.2), (0.75, 0.22), (0.45, 0.8)]):
        image = prepare(np.uint8(255 * stroke(200, 200, [(200 * x, 200 * y) for x, y in points], 20)))
        assert image.shape == (28, 28) and image.dtype == np.uint8 and image.max() == 255
        sides = [np.flatnonzero(image.max(axis) > 100) for axis in (0, 1)]
        assert max(side[-1] - side[0] + 1 for side in sides) == 20
        for axis in (0, 1):
            profile = image.sum(axis, dtype=float)
            assert 13.9 < profile @ (np.arange(28) + 0.5) / profile.sum() < 15.1


def test_prepared_again_is_the_same():
    assert alike(prepare(SEEN), most=2)


def test_mnist_digits_stay_what_they_are(mnist):
    images, labels = utils.load_dataset("mnist", mnist, "train")
    images, labels = images[:100], labels[:100]
    again = torch.stack([torch.from_numpy(prepare(image.numpy())) for image in images])
    assert (again.float() - images.float()).abs().mean() < 2


@settings(max_examples=60, deadline=None, derandomize=True)
@given(arrays(np.uint8, array_shapes(min_dims=2, max_dims=2, max_side=60), elements=st.integers(0, 255)))
def test_whatever_a_picture_holds(grey):
    try:
        image = prepare(grey)
    except ValueError as error:
        assert "shows no digit" in str(error)
    else:
        assert image.shape == (28, 28) and image.dtype == np.uint8 and image.max() == 255


@pytest.mark.parametrize(
    "grey",
    [
        np.full((300, 200), 255, np.uint8),
        np.zeros((28, 28), np.uint8),
        np.full((1, 1), 7, np.uint8),
        np.tile(np.linspace(60, 200, 400).astype(np.uint8), (300, 1)),
        np.random.default_rng(0).normal(128, 30, (300, 400)).clip(0, 255).astype(np.uint8),
    ],
    ids=["white", "black", "one pixel", "gradient", "noise"],
)
def test_no_ink(grey):
    with pytest.raises(ValueError, match="shows no digit"):
        prepare(grey)


# ---------------------------------------------------------------------------------------------- the script


def save(folder, name, kind="grey"):
    with open(folder / name, "wb") as file:
        KINDS[kind](file)
    return name


def huge_png():
    """A PNG that says it is 100,000 pixels square, and holds next to nothing."""

    def chunk(name, content):
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    header = struct.pack(">IIBBBBB", 100_000, 100_000, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def test_a_line_a_picture(predict, tmp_path):
    run = predict(save(tmp_path, "one.png"), save(tmp_path, "two.jpg", "rotated")).succeeded()
    scores = utils.class_scores(utils.load_model(reference()), pad(torch.from_numpy(SEEN)[None]))[0]
    digit, runner_up = scores.topk(2).indices.tolist()
    probability = f"{scores.softmax(0)[digit]:.1%}"
    lines = run.out.splitlines()
    assert lines[0] == f"one.png: {digit}, probability {probability}, runner-up {runner_up}"
    assert len(lines) == 2 and lines[1].startswith(f"two.jpg: {digit}, ") and not run.err


def test_csv(predict, tmp_path):
    names = [save(tmp_path, name) for name in ("plain.png", "a, b.png", "Ziffer ä €.png")]
    run = predict("--csv", *names).succeeded()
    assert run.out.splitlines()[0] == "file,digit,probability,runner_up"
    rows = list(csv.DictReader(io.StringIO(run.out)))
    assert [row["file"] for row in rows] == names
    for row in rows:
        assert row["digit"] != row["runner_up"] and 0 <= float(row["probability"]) <= 1
        assert {row["digit"], row["runner_up"]} <= set("0123456789")


def test_what_is_wrong_is_said_in_a_line_and_stops_nothing(predict, tmp_path):
    whole = io.BytesIO()
    KINDS["grey"](whole)
    broken = {
        "empty.png": b"",
        "text.png": b"seven\n",
        "cut.png": whole.getvalue()[:-400],
        "huge.png": huge_png(),
        "program.eps": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\nshowpage\n",
    }
    for name, content in broken.items():
        (tmp_path / name).write_bytes(content)
    (tmp_path / "folder").mkdir()
    Image.new("L", (200, 100), 255).save(tmp_path / "blank.png")
    Image.new("RGBA", (50, 50)).save(tmp_path / "nothing.png")
    Image.fromarray(np.full((20, 20), np.nan, np.float32)).save(tmp_path / "nan.tiff")
    names = ["missing.png", *broken, "folder", "blank.png", "nothing.png", "nan.tiff"]
    save(tmp_path, "good.png")
    run = predict("--csv", *names, "good.png")
    assert run.status == 2
    assert [line.split(",")[0] for line in run.out.splitlines()] == ["file", "good.png"]
    lines = run.err.splitlines()
    assert len(lines) == len(names)
    for name, line in zip(names, lines):
        assert line.startswith(f"ClassifyTask_predict.py: {name} "), line
    for name, word in (("huge.png", "64 million pixels"), ("missing.png", "does not exist"), ("blank.png", "no digit")):
        assert word in lines[names.index(name)]


def test_a_huge_picture_is_refused_before_it_is_decoded(monkeypatch):
    monkeypatch.setattr(Image.core, "new", lambda *_: pytest.fail("memory was taken"))
    with pytest.raises(ValueError, match="million pixels"):
        read_grey(io.BytesIO(huge_png()))


def test_a_large_picture_is_reduced():
    file = io.BytesIO()
    Image.fromarray(np.uint8(235 - 200 * seven(2400, 2000))).save(file, "PNG", compress_level=1)
    grey = read_grey(file)
    assert max(grey.shape) == 1024 and alike(prepare(grey))


def test_figure(predict, tmp_path):
    names = [save(tmp_path, "a$b$ c.png"), "missing.png", save(tmp_path, "..e.png")]
    run = predict("--figure", "--record-dir", tmp_path / "Record", *names)
    assert run.status == 2 and run.err.count("\n") == 1, run
    figures = sorted(path.name for path in (tmp_path / "Record").iterdir())
    assert figures == ["LeNet5.pt", "prediction-1.png", "prediction-3.png"]
    for name in figures[1:]:
        with Image.open(tmp_path / "Record" / name) as picture:
            assert picture.format == "PNG" and picture.width == 1660


def test_published_network(call, tmp_path):
    """Its outputs are penalties with their sign turned; the most likely class is still the largest probability."""
    torch.manual_seed(0)
    model = LeNet5(output="rbf")
    outputs = layer_outputs(model, torch.from_numpy(SEEN)[None])
    assert outputs["output"].max() < 0 and abs(outputs["output"].softmax(0).sum() - 1) < 1e-6
    ClassifyTask_predict.figure(tmp_path / "figure.png", "seven.png", PAPER, SEEN, model, outputs)
    assert (tmp_path / "figure.png").stat().st_size > 10_000


@pytest.mark.parametrize("arguments", [{}, {"output": "rbf"}, {"subsampling": "average", "activation": "relu"}])
def test_layer_outputs_are_those_of_the_network(arguments):
    torch.manual_seed(0)
    model = LeNet5(**arguments)
    image = torch.from_numpy(SEEN)[None]
    outputs = layer_outputs(model, image)
    assert torch.equal(outputs["output"], model(scale(pad(image)))[0])
    shapes = [(1, 32, 32), (6, 28, 28), (6, 14, 14), (16, 10, 10), (16, 5, 5), (120,), (84,), (10,)]
    assert [tuple(maps.shape) for maps in outputs.values()] == shapes


def test_mistakes(call, tmp_path):
    call("ClassifyTask_predict.py").refused("PICTURE")
    save(tmp_path, "good.png")
    call("ClassifyTask_predict.py", "good.png").refused("no checkpoint", "LeNet5.pt")
    call("ClassifyTask_predict.py", "good.png", "--checkpoint", "good.png").refused("good.png", "no checkpoint")
