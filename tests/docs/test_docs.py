"""README and docs beside what they speak of: the code, the commands, the files, and Record/reference/.

A page may hold a measured number in two ways. A block between `<!-- experiment: table -->` and `<!-- /experiment -->`
is a table that an experiment prints. Anything else is a text that a function below makes from a JSON file.
"""

import importlib
import json
import re
import sys
from types import SimpleNamespace

import pytest

import ClassifyTask_predict
import ClassifyTask_test
import ClassifyTask_train
import utils
from experiments import NAMES, runner
from model import LeNet5, layer_table
from training import checkpoint
from training.recipes import RECIPES
from utils import ROOT

FOLDER = utils.RECORD / utils.REFERENCE
FILES = (*(ROOT / room / "README.md" for room in ("", "data", "tests/faults")), *sorted((ROOT / "docs").glob("*.md")))
PAGES = {path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8") for path in FILES}
FENCED = re.compile(r"^```\w*\n(.*?)^```$", re.M | re.S)
PROSE = {page: FENCED.sub("", text) for page, text in PAGES.items()}
BLOCK = re.compile(r"<!-- (\w*)(.*?) -->\n(.*?)\n<!-- /", re.S)
each_page = pytest.mark.parametrize("page", PAGES)


def record(name):
    return json.loads((FOLDER / name).read_text(encoding="utf-8"))


def spread(study, variant, prefix="", error=False):
    mean, deviation = (100 * study["variants"][variant][prefix + key] for key in ("mean", "deviation"))
    return f"{100 - mean if error else mean:.2f} ± {deviation:.2f}"


def runs_of(study, variant):
    return [run for run in study["runs"] if run["variant"] == variant]


def seeds():
    study, quiet = record("study/seeds.json"), record("study/speedrun.json")
    for name in "1998", "default", "best":
        (alone,) = runs_of(quiet, name)
        yield "README.md", f"| {spread(study, name)} | {len(runs_of(study, name))} | {alone['seconds']:.0f} |"
    default, last, name = spread(study, "default"), spread(study, "default", "last_"), "default-no-augment"
    losses = [row["test_loss"] for row in runs_of(study, name)[0]["history"]]
    yield "docs/training.md", f"averages reach {default} % and the last weights {last} % (mean ± deviation of"
    yield "docs/training.md", f"of {len(runs_of(study, 'default'))} seeds, python -m experiments seeds default)"
    yield "docs/training.md", f"classify {spread(study, name, 'training_')} % of the training digits correctly"
    yield "docs/training.md", f"but of the test digits only {spread(study, name, 'last_')} %"
    yield "docs/training.md", f"(the averages: {spread(study, name)} %)"
    yield "docs/training.md", f"With seed 0 the test loss is lowest after epoch {1 + losses.index(min(losses))}"
    fast = quiet["fast"]
    accuracy = f"{100 * fast['mean']:.2f} ± {100 * fast['deviation']:.2f}"
    yield "README.md", f"| {accuracy} | {fast['seeds']} | {fast['seconds']:.1f} |"
    plain = [str(run["seed"]) for run in runs_of(study, "default-plain")]
    command = f"{len(plain)} seeds, python -m experiments seeds default-plain --seeds {' '.join(plain)}"
    yield "docs/speed.md", f"{spread(study, 'default-plain')} % of the test digits ({command}), against {default} %"


def of_1998():
    study, curve = record("study/seeds.json"), record("study/paper_curve.json")
    own = runs_of(study, "1998")
    lows, highs = zip(*(run["history"][0]["step_range"] for run in own))
    drawn_once = record("study/paper_augmentation.json")
    (once,) = {run["variant"] for run in drawn_once["runs"]}
    yield "docs/1998.md", f"| {spread(study, '1998', error=True)} ({len(own)} seeds) |"
    yield "docs/1998.md", f"| {100 * curve['train']['mean'][-1]:.2f} |"
    yield "docs/1998.md", f"| {spread(study, '1998', 'training_', error=True)} |"
    yield "docs/1998.md", f"| {sum(lows) / len(lows):.1e} to {sum(highs) / len(highs):.1e} |"
    yield "docs/1998.md", f"| {spread(drawn_once, once, error=True)} ({len(drawn_once['runs'])} seeds) |"
    most, tried = curve["distances"], record("study/left_open.json")["settings"]
    outside = [distance for row in most.values() for distance in row["outside"]]
    yield "docs/1998.md", f"{len(outside)} of the 40 dots lie outside their band, by at most {max(outside):.2f} %"
    yield "docs/exercises.md", f"{len(outside)} of the 40 dots lie outside the range of our ten seeds"
    yield (
        "docs/1998.md README.md",
        f"{most['training']['most_from_pass_3']:.2f} percentage points of the paper's from the third pass on",
    )
    yield "docs/1998.md", f"{len(tried)} settings of seven factors"


def speed():
    study = record("study/benchmark.json")
    found, device, both = study["program"], study["devices"]["cpu"], "README.md docs/speed.md"
    for row in (row for name, row in device["variants"].items() if "1998" not in name):
        ratio = "1" if row["ratio"] == 1 else "{:.1f} ({:.1f} to {:.1f})".format(row["ratio"], *row["ratio_range"])
        yield both, f"| {row['milliseconds']:.2f} | {ratio} |"
    yield from ((both, text) for text in (f"| {device['floor']:.2f} | |", f"of {study['rounds']}", device["machine"]))
    evaluation, compiling = found["evaluation_seconds"], found["compile_seconds"]
    for text in (
        f"| import of PyTorch and torchvision | {found['import_seconds']:.1f} s |",
        f"| from the start to the first step, compiled before | {found['first_step_seconds']:.1f} s |",
        f"recipe default, recipe 1998 | {compiling['default']:.0f} s, {compiling['1998']:.0f} s |",
        f"test digits: compiled, model.py | {evaluation['compiled']:.1f} s, {evaluation['plain']:.1f} s |",
        f"with all tests and checkpoints, from start to end | {found['run_seconds']:.0f} s |",
        f"(one pattern each) | {device['steps_per_second_1998']:,.0f} |",
        f"in the time of one step of the usual script | {device['steps_1998_a_usual_step']:.0f} |",
        f"| {found['training_mib'] - found['import_mib']:.0f} MiB |",
        f"the step's operations take {device['floor']:.2f} ms: the floor",
    ):
        yield "docs/speed.md", text


def ladder():
    steps = record("study/ladder.json")["ladder"]
    first, *_, last = (f"{100 - 100 * row['mean']:.2f} %" for row in steps.values())
    yield "README.md docs/study.md", f"from {first} test error to {last}"
    taught = spread(record("study/seeds.json"), "distilled", error=True)
    yield "README.md", f"one network comes to {taught.split()[0]} %"
    yield "docs/study.md", f"learns from their probabilities: {taught} % test error"


def others():
    study = record("study/augmentation.json")
    without, augmented = (sum(r["seconds"] for r in runs_of(study, f"default, strength {s}")) for s in (0, 0.7))
    yield "docs/training.md", f"augmentation makes training {augmented / without:.1f} times as long"
    wrong = {name: 100 - 100 * row["mean"] for name, row in record("study/numbers_choice.json")["variants"].items()}
    yield "docs/numbers.md", f"{wrong['relu']:.2f} % of the lines were wrong with it, and {wrong['squash']:.2f} % with"
    digits, found = (record("study/rendered.json")[what] for what in ("digits", "predict"))
    shares = found["accuracy"], digits["accuracy"], found["plain_accuracy"]
    right, told, plain = (f"{100 * share:.1f} %" for share in shares)
    yield "README.md", f"Of {found['images']:,} test digits made into large images {right} are classified correctly,"
    yield "README.md", f"with --digit {told}, in MNIST's form {plain} (python -m experiments rendered)"
    script = record("study/handwriting.json")["readers"]["the script"]
    totals = {
        kind: [sum(half[key] for half in own.values()) for key in ("right", "images")] for kind, own in script.items()
    }
    digits, numbers, cheques = (f"{100 * right / count:.1f} %" for right, count in totals.values())
    yield "README.md", f"reads {digits} of the digits, {numbers} of the numbers and {cheques} of amounts on cheques"
    squash, relu = (spread(record("study/exercises.json"), name, error=True) for name in ("default", "ReLU"))
    yield "docs/exercises.md", f"is exercise 6, without augmentation: {relu} % instead of {squash} %"
    several, refused = found["several_digits"], found["unread"]
    yield "docs/numbers.md", f"digits {several} are taken for several digits and {refused} is refused"
    networks = [row for run in record("study/elsewhere.json")["runs"] for row in run["networks"].values()]
    pairs = [[row[way]["accuracy"] for way in ("prepared", "centred")] for row in networks if "centred" in row]
    most = max(abs(one - other) for one, other in pairs)
    yield "docs/elsewhere.md", f"accuracy differs by at most {100 * most:.1f} percentage points"
    search = record("study/faults.json")
    yield from (("tests/faults/README.md", f"| {kind} | {times:,} |") for kind, times in search["tried"].items())
    assert search["failed"] == 0


@pytest.mark.parametrize("texts", [seeds, of_1998, ladder, speed, others])
def test_pages_say_what_was_measured(texts):
    said = {page: " ".join(re.sub("[*`]", "", text).split()) for page, text in PAGES.items()}
    missing = [(page, text) for pages, text in texts() for page in pages.split()]
    missing = [(page, text) for page, text in missing if " ".join(text.split()) not in said[page]]
    assert missing == []


@each_page
def test_tables_are_those_of_the_experiments(page):
    for name, part, table in BLOCK.findall(PAGES[page]):
        assert table == runner.tables(name)[part.strip(": ")], f"print the table {name}{part} anew"


def test_the_layers():
    """Each layer's parameters and connections, and the sums."""
    cells = [line.strip("| ").split(" | ") for line in PAGES["docs/network.md"].splitlines()]
    for output, title in ("linear", "default"), ("rbf", "as published"):
        rows = {name: counts for name, (_, *counts) in layer_table(LeNet5(output=output)).items()}
        found = {f"output, {title}" if name == "output" else name.upper(): rows[name] for name in rows}
        found = [(name, *(f"{count:,}" for count in counts)) for name, counts in found.items()]
        found.append((f"**total, {title}**", *(f"**{sum(column):,}**" for column in zip(*rows.values()))))
        assert set(found) <= {(row[0], *row[-2:]) for row in cells}


def test_the_pages_show_what_the_scripts_print(capsys, monkeypatch):
    monkeypatch.chdir(ROOT)
    images = [f"Record/reference/{name}.jpg" for name in ("example", "number")]
    monkeypatch.setattr(sys, "argv", ["ClassifyTask_predict.py", *images])
    ClassifyTask_predict.main()
    lines = capsys.readouterr().out.splitlines()[-2:]
    assert lines[1] in PAGES["docs/numbers.md"].splitlines()
    path, metrics = utils.RECORD / checkpoint.FILE, record("metrics.json")
    history = runs_of(record("study/seeds.json"), "default")[0]["history"]
    after = [SimpleNamespace(history=history[: epoch + 1], recipe=RECIPES["default"]) for epoch in range(len(history))]
    ClassifyTask_train.report(path, after[-1], SimpleNamespace(test=(SimpleNamespace(device="cpu"), range(10_000))))
    ClassifyTask_test.report(path, path.parent, metrics)
    lines += [ClassifyTask_train.epoch_line(after[i]) for i in (0, 1, -1)] + capsys.readouterr().out.splitlines()
    assert [line for line in lines if line not in PAGES["README.md"].splitlines()] == []


def test_the_constraints_are_what_the_networks_were_made_with():
    """Every package of requirements.txt in one version, which is that of the networks' metadata where they name it."""
    text = (FOLDER / "constraints.txt").read_text(encoding="utf-8")
    kept = dict(re.findall(r"^([\w-]+)==(\S+)$", text, re.M)) | {"python": re.search(r"Python ([\d.]+),", text)[1]}
    made = [checkpoint.load(path).versions for path in FOLDER.rglob(checkpoint.FILE)]
    made += [json.loads(path.read_text(encoding="utf-8"))["versions"] for path in FOLDER.rglob("metrics.json")]
    named = {(name, version.split("+")[0]) for versions in made for name, version in versions.items()}
    assert named and named <= set(kept.items())
    assert set(re.findall(r"^[\w-]+", (ROOT / "requirements.txt").read_text(), re.M)) <= kept.keys()


def test_the_changes_begin_with_the_version_and_date_of_the_citation():
    citation = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    version, date = (re.search(rf"^{key}: (\S+)$", citation, re.M)[1] for key in ("version", "date-released"))
    assert re.search(r"^## (.*)$", PAGES["docs/CHANGELOG.md"], re.M)[1] == f"{version}, {date}"


@each_page
def test_links_images_anchors_and_files_named_exist(page):
    for target in re.findall(r"\]\(([^)\s]+)\)", PROSE[page]):
        path, _, anchor = target.partition("#")
        if not re.match(r"https?:|mailto:", path):
            file = ((ROOT / page).parent / path).resolve() if path else ROOT / page
            assert file.exists(), target
            assert utils.RECORD not in file.parents or FOLDER in file.parents, f"{target} is not shipped"
            titles = re.findall(r"^#+ (.*)$", PROSE[file.relative_to(ROOT).as_posix()], re.M) if anchor else ()
            assert anchor in {"", *(re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles)}
    named = set(re.findall(r"`([\w./-]+\.(?:py|md|toml|txt)|\w+/)`", PAGES[page]))
    folders = (ROOT, (ROOT / page).parent, ROOT / "training", FOLDER, FOLDER.parent)
    assert [name for name in sorted(named) if not any((folder / name).exists() for folder in folders)] == []


@each_page
def test_pages_are_short_and_in_the_words_of_the_field(page):
    old = r"misread|held[- ]out|running (?:average|mean)|trainings|undistorted|\bexperiments\.\w|\badam\b"
    assert re.findall(old, re.sub(r"\]\(.*?\)", "", PAGES[page])) == []
    assert PAGES[page].count("\n") <= (150 if page == "README.md" else 400)


def test_messages_are_those_that_are_printed():
    """Of each symptom in docs/troubleshooting.md that this code prints: what does not differ from case to case."""
    files = [file for room in ("*", "training/*", "digits/*") for file in ROOT.glob(f"{room}.py")]
    source = re.sub(r"\"\s+f?\"", "", "\n".join(file.read_text(encoding="utf-8") for file in files))
    for cell in re.findall(r"^\| (`.*?) \| ", PAGES["docs/troubleshooting.md"], re.M):
        for message in re.findall(r"`([^`]+)`", cell):
            if not message.startswith(("--resume", "ensurepip", ".venv", "operator torchvision")):
                parts = [part.strip(" .:;,") for part in re.split(r"…|\(.*?\)|\d+|[,;]", message)]
                assert [part for part in parts if part not in source] == []


class Parsed(Exception):
    """A command line is right; its parser knows these flags."""


@pytest.fixture
def flags_of(monkeypatch):
    """The flags that a command knows: a script or module, and its words. Raises UserError if these are wrong."""

    def stop(parser, args=None):
        parse_args(parser, args)
        raise Parsed({flag for flag in parser._option_string_actions if flag.startswith("--")} - {"--help"})

    def flags_of(name, *words):
        monkeypatch.setattr(sys, "argv", [name, *words])
        main = runner.main if name == "experiments" else importlib.import_module(name.removesuffix(".py")).main
        with pytest.raises(Parsed) as parsed:
            main()
        return parsed.value.args[0]

    parse_args = utils.Parser.parse_args
    monkeypatch.setattr(utils.Parser, "parse_args", stop)
    return flags_of


def commands():
    """All commands of the pages that start Python: scripts or modules, and their words."""
    for page, text in PAGES.items():
        lines = [re.sub(r"\s#.*", "", line) for block in FENCED.findall(text) for line in block.splitlines()]
        spans = [" ".join(span.split()) for span in re.findall(r"`([^`]+)`", PROSE[page])]
        for line in (*lines, *spans, *(f"python {span}" for span in spans if re.match(r"\w+\.py -", span))):
            if found := re.fullmatch(r"(?:\$ )?(?:\.venv/bin/)?python3? (-m [\w.]+|[\w/]+\.py)((?: .*)?)", line):
                yield found[1].removeprefix("-m "), *found[2].split()


OTHERS = (("model.py",), ("minimal.py",), ("experiments", "NAME"), ("experiments", "--list"))


def test_commands_are_right(flags_of):
    for words in {words for words in commands() if words not in OTHERS and words[0] not in ("pytest", "venv")}:
        print("python", *words)  # shown if it fails
        flags_of(*words)


def test_the_reference_has_every_flag_experiment_and_module(flags_of):
    page = PAGES["docs/reference.md"]
    flags, tools, experiments = (page.split(f"\n## {title}\n")[1] for title in ("Flags", "Tools", "Experiments"))

    def documented(text):
        """The flags in the tables of a section, and what the second column says of each."""
        rows = re.findall(r"^\| (`-.*?) \| ([^|]*) \|", text.split("\n## ")[0], re.M)
        return {flag: whose for cell, whose in rows for flag in re.findall(r"--[\w-]+", cell)}

    for name in "train", "test", "predict", "page", "animation", "export_onnx":
        text, room = (flags, "ClassifyTask_") if name in ("train", "test", "predict") else (tools, "tools.")
        found = {flag for flag, whose in documented(text).items() if name in whose or whose == "all"}
        assert found == flags_of(room + name, *["image.png"] * (name == "predict"))
    assert set(documented(experiments)) == {"--list"}.union(*(flags_of("experiments", name) for name in NAMES))
    assert tuple(re.findall(r"^\| `(\w+)` \| ", experiments, re.M)[: len(NAMES)]) == NAMES
    listed = re.findall(r"^([\w/]+\.py|\w+/)  ", page, re.M)
    rooms = ("", "training/", "digits/", "reading/", "figures/")
    found = {f"{room}{file.name}" for room in rooms for file in ROOT.glob(f"{room}*.py") if file.stem != "__init__"}
    assert found | {"experiments/", "tools/", "tests/"} == set(listed)
    made = {"".join(found) for text in PAGES.values() for found in re.findall(r"`make (\w+)`|make (\w+)$", text, re.M)}
    assert made and made <= set(re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.M))
