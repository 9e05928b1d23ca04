"""Digits that are not MNIST's: their files are read and checked, what is missing is left out, and what is measured."""

import bz2
import functools
import gzip
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import REFERENCE, ROOT
from PIL import Image

from digits import foreign
from experiments import elsewhere, runner
from figures import plots
from training import checkpoint
from utils import UserError

FOLDER = Path("data/elsewhere")
# Two digits of each set, as their files write them: a 7 whose second pixel is ink, a 2 whose last one is.
USPS = f"7 -1 1 {'-1 ' * 254}\n2 {'-1.000 ' * 254}0.000 1\n"
BITMAP = [["01" + 30 * "0", *31 * [32 * "0"]], [*31 * [32 * "0"], 31 * "0" + "1"]]
OPTDIGITS = "\n".join(["ntot = 2", "lastparag = 0", *BITMAP[0], " 7", *BITMAP[1], " 2", "EOF", ""])
SEMEION = f"0.0000 1.0000 {'0.0000 ' * 254}0 0 0 0 0 0 0 1 0 0 \r\n{'0.0000 ' * 255}1.0000 0 0 1 0 0 0 0 0 0 0 \r\n"
FILES = {"usps": USPS, "optdigits": OPTDIGITS, "semeion": SEMEION}
FIRST_PIXELS = {"usps": ("-1 1", "1 1"), "optdigits": ("01", "11"), "semeion": ("0.0000 1.0000", "1.0000 1.0000")}


def write(name, content):
    """The file of a set in the data folder."""
    path = Path("data", foreign.SOURCES[name].file)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode())
    return path


@pytest.fixture
def two_digits(own_folders, monkeypatch):
    """The made-up files pass for the sets."""
    for name, source in foreign.SOURCES.items():
        pixels, labels = source.parse(FILES[name].encode())
        digest = foreign.digest(pixels.astype(np.uint8), labels.astype(np.int64))
        monkeypatch.setitem(foreign.SOURCES, name, source._replace(digest=digest))


@pytest.fixture
def start(run_main, tiny_mnist):
    """Starts the experiment where the networks of two recipes are shipped, and MNIST is a tiny one."""
    runner.load.cache_clear()
    shutil.copytree(REFERENCE / "best", Path("Record/reference/best"))
    for name in "default-no-augment", "fast", "1998", "1998-augment":
        shutil.copytree(REFERENCE / "best", Path("Record/reference", name))
    return functools.partial(run_main, runner.main, "elsewhere", "--jobs", 1)


@pytest.mark.parametrize("name", FILES)
def test_a_file_is_read_unpacked_or_not_and_with_other_line_ends(name, two_digits):
    side = 32 if name == "optdigits" else 16
    for packed in False, True:
        path = write(name, FILES[name])
        if packed:
            content = path.read_bytes().replace(b"\r\n", b"\n")
            path.rename(path.with_name(f"{path.name}.gz")).write_bytes(gzip.compress(content))
        images, labels = foreign.load(name, Path("data"))
        assert (images.shape, images.dtype, labels.tolist()) == ((2, side, side), torch.uint8, [7, 2])
        assert images[0].nonzero().tolist() == [[0, 1]] and images[0, 0, 1] == images[1, -1, -1] == 255
    if name == "usps":
        assert images[1, -1, -2] == 128  # grey is kept
    assert labels.dtype == torch.int64


@pytest.mark.parametrize("name", FILES)
def test_a_damaged_or_foreign_file_is_one_line(name, two_digits):
    whole = FILES[name]
    other = whole.replace(*FIRST_PIXELS[name], 1)
    for content in "", "EOF", other, whole[: len(whole) // 2], 2 * whole, whole.replace("1", "one"):
        path = write(name, content)
        with pytest.raises(UserError, match=f"{path} is damaged or holds other digits; fetch it anew from") as error:
            foreign.load(name, Path("data"))
        assert str(error.value).endswith(foreign.SOURCES[name].place)
    path.unlink()
    packed = gzip.compress(whole.encode())
    for content in packed[:-9], packed[:40] + b"?" + packed[41:], b"":
        path.with_name(f"{path.name}.gz").write_bytes(content)
        with pytest.raises(UserError, match="damaged"):
            foreign.load(name, Path("data"))


def idx(array, kind):
    """An array as the files of MNIST's kin hold it; kind: 8 for bytes, 12 for int32."""
    sizes = b"".join(size.to_bytes(4, "big") for size in array.shape)
    return bytes([0, 0, kind, array.ndim]) + sizes + array.astype(">i4" if kind == 12 else np.uint8).tobytes()


def test_what_torchvision_has_fetched_is_read_upright(own_folders, monkeypatch):
    for name, row in foreign.TORCHVISION.items():
        monkeypatch.setitem(foreign.TORCHVISION, name, (*row[:2], 2))
    for folder in "QMNIST", "EMNIST":
        Path("data", folder, "raw").mkdir(parents=True)
    lines = [f"{label + 1} 1:-1 2:1 {' '.join(f'{i}:-1' for i in range(3, 257))} \n" for label in (7, 2)]
    Path("data/usps.t.bz2").write_bytes(bz2.compress("".join(lines).encode()))
    images, found = foreign.load("torchvision-usps", Path("data"))
    assert images[0].nonzero().tolist() == [[0, 1]] and found.tolist() == [7, 2]
    one, two = np.zeros((2, 28, 28)), np.zeros((10_002, 28, 28), np.uint8)
    one[0, 3, 9], two[10_000, 3, 9] = 255, 255
    labels = np.zeros((10_002, 8), int)
    labels[10_000:, 0] = [7, 2]
    for name, images, named in ("emnist", one, labels[10_000:, 0]), ("qmnist", two, labels):
        path = Path("data", foreign.TORCHVISION[name][1])
        path.write_bytes(idx(images, 8))
        end = ("idx2-int", 12) if name == "qmnist" else ("idx1-ubyte", 8)
        path.with_name(path.name.replace("images-idx3-ubyte", f"labels-{end[0]}")).write_bytes(idx(named, end[1]))
        images, found = foreign.load(name, Path("data"))
        pixel = [9, 3] if name == "emnist" else [3, 9]  # in EMNIST's files rows are columns
        assert images[0].nonzero().tolist() == [pixel] and found.tolist() == [7, 2]
        path.write_bytes(path.read_bytes()[:-5])
        with pytest.raises(UserError, match=f"{path.name} is damaged or holds other digits; fetch it .* torchvision"):
            foreign.load(name, Path("data"))


def test_bitmaps_are_brought_into_mnists_form():
    bar = np.zeros((1, 16, 16), np.uint8)
    bar[0, :, :4] = 255  # at the left edge, as high as the field
    for way, image in elsewhere.in_form(torch.from_numpy(bar)).items():
        rows, columns = (image[0].amax(axis).nonzero().flatten() for axis in (1, 0))
        assert (rows[0], rows[-1], columns[0], columns[-1]) == (4, 23, 12, 16), way
        assert image[0, 4:24, 12:17].min() == 255, way
    digit = torch.randint(256, (1, 28, 28), dtype=torch.uint8)
    assert {way: torch.equal(image, digit) for way, image in elsewhere.in_form(digit).items()} == {"unchanged": True}
    nothing = elsewhere.prepared(np.zeros((16, 16), np.uint8))
    assert nothing.shape == (28, 28) and not nothing.any()


def test_a_committee_takes_the_mean_of_probabilities_neither_of_logits_nor_of_votes():
    def answer(*logits):
        models = [lambda images, own=own: torch.tensor([own]) for own in logits]
        return elsewhere.answers(models, torch.zeros(1, 28, 28, dtype=torch.uint8)).item()

    assert answer([9.0, 0.0], [0.0, 0.5], [0.0, 0.5]) == 0  # 1.00 + 0.38 + 0.38 of 3, though two say 1
    assert answer([99.0, 0.0], [0.0, 5.0], [0.0, 5.0]) == 1  # 1.00 + 0.01 + 0.01 of 3, though the logits sum to 99


def test_a_rehearsal_takes_scikit_learns_digits_for_foreign_ones(start):
    out = start("--tiny").succeeded().out
    assert "left out: the committee, Record/study/tiny/networks/best-0.safetensors is missing" in out
    content = json.loads(Path("Record/study/tiny/elsewhere.json").read_text())
    (run,) = content["runs"]
    assert run["digits"] == 100 and run["without_ink"] == 0
    best = {way: row["accuracy"] for way, row in run["networks"]["best"].items()}
    assert 0.85 < best["prepared"] == 1 - len(run["errors"]) / 100 and best["centred"] > 0.85
    assert Image.open("Record/study/tiny/elsewhere.png").width == round(plots.WIDTH * plots.DPI)
    for seed in range(elsewhere.MEMBERS):
        shutil.copytree(REFERENCE / "best", Path("Record/study/tiny/networks", str(seed)))
        file = Path("Record/study/tiny/networks", str(seed), checkpoint.FILE)
        file.rename(file.parent.parent / f"best-{seed}.safetensors")
    Path("Record/study/tiny/elsewhere.json").unlink()
    assert f"| best, {elsewhere.MEMBERS} networks together | " in start("--tiny").succeeded().out
    (run,) = json.loads(Path("Record/study/tiny/elsewhere.json").read_text())["runs"]
    assert run["networks"]["committee"] == run["networks"]["best"]  # the same network, several times


def test_what_is_missing_is_left_out_in_a_line(start, two_digits):
    start().refused(
        "there are no digits but MNIST's: ", *(word for s in foreign.SOURCES.values() for word in (s.file, s.place))
    )
    write("semeion", "damaged")
    start().refused("data/elsewhere/semeion.data is damaged")
    write("semeion", SEMEION)
    out = start().succeeded().out
    for name in "usps", "optdigits":
        source = foreign.SOURCES[name]
        assert f"left out: {source.title}, data/{source.file} is missing; it is published at {source.place}\n" in out
    assert "| network | MNIST's test set, 200 digits | Semeion, 2 digits |" in out
    runs = json.loads(Path("Record/study/elsewhere.json").read_text())["runs"]
    assert [(run["set"], run["digits"]) for run in runs] == [("mnist", 200), ("semeion", 2)]


def test_tables_in_percent_with_wilsons_interval():
    half, whole = {"accuracy": 0.5, "interval": [0.09453, 0.90547]}, {"accuracy": 1.0, "interval": [0.3424, 1.0]}
    runs = [
        {"set": "usps", "digits": 2, "networks": {"best": {"prepared": half, "centred": whole}}},
        {"set": "mnist", "digits": 1234, "networks": {"best": {"unchanged": whole}}},
    ]
    found = elsewhere.tables({"weights": {"best": []}, "runs": runs})
    head, _, row = found["results"].splitlines()
    assert head == "| network | MNIST's test set, 1,234 digits | USPS, 2 digits |"
    assert row == "| best | 100.0 (34.2 to 100.0) | 50.0 (9.5 to 90.5) |"
    assert found["centred"].splitlines()[::2] == ["| simply centred | USPS |", "| best | 100.0 |"]


def test_the_page_on_data_names_each_file_and_its_place():
    page = (ROOT / "data" / "README.md").read_text(encoding="utf-8")
    missing = [text for source in foreign.SOURCES.values() for text in (source.file, source.place) if text not in page]
    assert missing == []
