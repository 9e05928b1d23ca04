"""Command lines of every kind, and MNIST's files damaged in every way: a run, or one line."""

import collections
import shutil
from functools import partial
from pathlib import Path

import pytest
from conftest import NAMES
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import checkpoint
import mnist as datasets
from faults.conftest import FILE, LINUX, PREDICT, TEST, TRAIN, limit_memory, write_picture
from utils import UserError

# ---------------------------------------------------------------------------------------------- options

FOLDERS = ["run", "new", "a/b/c", ".", "", f"run/{FILE}", f"run/{FILE}/below", "x" * 300, "/dev/null/x", "é\udcff"]
NUMBERS = [*"123०0x", "+1", " 1", "1_0", "-1", "-0", "1e-3", "1e5", "1e-320", "5e-324", "1e999", "nan", "5001"]
CHECKPOINTS = [f"run/{FILE}", "missing", "run", "", "text", "/dev/null", "a/b", "\udcff"]
COMMON = {
    "--device": ["auto", "cpu", "cpu:1", "cuda:99", "meta", "", "gpu"],
    "--record-dir": FOLDERS,
    "--help": [None],
}
DATA = {
    "--dataset": ["auto", "mnist", "digits", "digits", "digits", "Digits", ""],
    "--data-dir": FOLDERS,
    "--recipe": ["adam", "1998", "adam", "", "2024"],
    **dict.fromkeys(("--distort", "--no-distort"), [None]),
}
FLAGS = {
    TRAIN: {
        **COMMON,
        **DATA,
        **dict.fromkeys(("--epochs", "--batch-size", "--lr"), NUMBERS),
        "--seed": [*NUMBERS, str(2**32 - 1), str(2**32)],
        "--resume": [None],
        "--plain": [None],
    },
    TEST: {**COMMON, **DATA, "--checkpoint": CHECKPOINTS, "--weights": ["reported", "last", "best"]},
    PREDICT: {**COMMON, "--checkpoint": CHECKPOINTS, "--csv": [None], "--figure": [None]},
}
PICTURES = ["digit.png", "text", "missing.png", "run", "", f"run/{FILE}", "\udcff.png"]


def command_lines(script):
    """Flags with values that they may or may not take, in any order, and now and then anything at all."""
    text = st.text(st.characters(exclude_characters="\0/\\:", exclude_categories=["Cs"]), max_size=6)
    flags = [
        st.sampled_from(values).map(lambda value, flag=flag: [flag] if value is None else [flag, value])
        for flag, values in FLAGS[script].items()
    ]
    bare = st.sampled_from(list(FLAGS[script])).map(lambda flag: [flag])
    words = st.lists(st.one_of(*flags, *flags, *flags, bare, text.map(lambda word: [word])), max_size=5)
    start = st.sampled_from([[], ["--dataset", "digits"], ["--dataset", "digits", "--record-dir", "run"]])
    if script == PREDICT:
        pictures = st.lists(st.sampled_from(PICTURES), max_size=3)
        start = st.builds(list.__add__, st.sampled_from([[], ["--checkpoint", f"run/{FILE}"]]), pictures)
    return st.builds(lambda start, words: sum(words, start), start, words)


@pytest.mark.parametrize("script", FLAGS)
def test_any_options_give_a_run_or_one_line(script, mutations, trained, here, tmp_path, tally):
    statuses = collections.Counter()

    @settings(max_examples=mutations // 10, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
    @given(command_lines(script))
    def run(arguments):
        for path in tmp_path.iterdir():
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        shutil.copytree(trained[0], "run")
        Path("text").write_text("neither a checkpoint nor a picture")
        write_picture(Path("digit.png"))
        result = here(script, *arguments)
        statuses[result.status] += 1
        lines = [line for line in result.err.splitlines() if not line.startswith("WARNING:")]
        if result.status == 0:
            assert result.out and not lines, result
        else:
            assert result.status == 2 and lines and all(line.startswith(script) for line in lines), result
            assert len(lines) == 1 or script == PREDICT and len(lines) <= len(arguments), result  # one a picture
        assert not list(tmp_path.rglob(".*"))
        assert checkpoint.load(Path("run", FILE))

    run()
    assert set(statuses) == {0, 2}
    tally[f"command line of {script}"] += statuses.total()


# ---------------------------------------------------------------------------------------------- MNIST's files


def damaged(name, content, other):
    """A good file's damaged forms, by the names of the damage."""
    header = 16 if "images" in name else 8
    yield "empty", b""
    yield "one byte missing", content[:-1]
    yield "half", content[: len(content) // 2]
    yield "the header alone", content[:header]
    for bit in 0, 8 * header, 4 * len(content), 8 * len(content) - 1:
        flipped = bytearray(content)
        flipped[bit // 8] ^= 1 << bit % 8
        yield f"bit {bit} flipped", bytes(flipped)
    yield "another magic number", b"\0\0\x0d" + content[3:]
    yield "another count", content[:4] + (7).to_bytes(4, "big") + content[8:]
    yield "terabytes", content[:4] + b"\xff" * (header - 4) + content[header:]
    yield "swapped", other
    yield "garbage behind", content + b"garbage"
    yield "a folder", None


def put(path, content):
    """Put a file, or a folder (None), in the place of what is there."""
    shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
    path.mkdir() if content is None else path.write_bytes(content)


def damage_data(data, name, other, tally):
    """Damage one of MNIST's files, packed and unpacked, in every way: it is mended, or refused and left."""
    raw = data / "MNIST" / "raw"
    archive, unpacked = raw / f"{name}.gz", raw / name
    assert datasets.find_dataset("mnist", data) == "mnist"
    good = {path: path.read_bytes() for path in (archive, unpacked)}
    for path, partner, stranger in (unpacked, archive, raw / other), (archive, unpacked, raw / f"{other}.gz"):
        for what, bad in damaged(name, good[path], stranger.read_bytes()):
            put(path, bad)
            assert datasets.find_dataset("mnist", data) == "mnist", what  # for the other one is good
            if path == unpacked and bad is not None:  # a folder is nobody's to remove
                assert unpacked.read_bytes() == good[unpacked], what
            put(path, bad)
            partner.unlink()
            for choice in "auto", "mnist":
                with pytest.raises(UserError) as error:
                    datasets.find_dataset(choice, data)
                assert str(path) in str(error.value) and "delete it" in str(error.value), what
            assert path.is_dir() if bad is None else path.read_bytes() == bad
            assert not list(raw.glob(".*"))
            for each, content in good.items():
                put(each, content)
            tally[f"{'archive' if path == archive else 'unpacked file'} of MNIST damaged"] += 1


OTHER = dict(zip(NAMES, [NAMES[1], NAMES[0], NAMES[3], NAMES[2]]))  # images for labels and labels for images


@pytest.mark.parametrize("name", NAMES)
def test_damaged_data_are_mended_or_refused(name, tiny_mnist, tally):
    damage_data(tiny_mnist, name, OTHER[name], tally)
    damage_data(tiny_mnist, name, NAMES[NAMES.index(name) - 2], tally)  # training for test


@pytest.mark.faults
@pytest.mark.parametrize("name", NAMES)
def test_damaged_real_data_are_mended_or_refused(name, mnist, tmp_path, tally):
    shutil.copytree(mnist / "MNIST", tmp_path / "MNIST")
    for archive in (tmp_path / "MNIST" / "raw").iterdir():
        archive.chmod(0o644)
    damage_data(tmp_path, name, OTHER[name], tally)


@LINUX
def test_data_that_would_fill_the_memory_are_refused_in_little(child, tmp_path, tally):
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for name in NAMES[0], f"{NAMES[0]}.gz":
        with open(raw / name, "wb") as file:
            file.truncate(2**40)  # a terabyte, of which nothing is on the disk
        run = child(TRAIN, "--data-dir", tmp_path, hinder=partial(limit_memory, 2**28))
        run.end().refused(raw / name, "damaged")
        (raw / name).unlink()
        tally["file of a terabyte"] += 1
