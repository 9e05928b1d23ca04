"""README and docs beside what they speak of: the figures in Record/, the layers, the commands, the files.

A page may hold a measured number in two ways. A block between `<!-- name -->` and `<!-- /name -->` is a table that an
experiment prints: BLOCKS makes it again. Anything else is a text of SAID, made from the JSON file that it comes from.
"""

import importlib
import json
import re
import sys
from types import SimpleNamespace

import pytest
from conftest import ROOT

import ClassifyTask_train
from experiments import choices
from model import LeNet5, layer_table

PAGES = {
    path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8")
    for path in (ROOT / "README.md", *(ROOT / "docs").glob("*.md"))
}
SCRIPTS = ["ClassifyTask_train.py", "ClassifyTask_test.py", "ClassifyTask_predict.py"]


def record(name):
    return json.loads((ROOT / "Record" / name).read_text(encoding="utf-8"))


def percent(*shares):
    return " ± ".join(f"{100 * share:.2f}" for share in shares)


def spread(study, prefix="", error=False):
    mean = study[f"{prefix}mean"]
    return percent(1 - mean if error else mean, study[f"{prefix}deviation"])


def results(study):
    """The row of the README's table."""
    runs = study["runs"]
    seconds = sum(run["seconds"] for run in runs) / len(runs)
    last = spread(study, "last_") if study["recipe"]["average"] else ""
    yield f"| {spread(study)} | {last} | {len(runs)} | {seconds:.0f} s | {study['command']} |"


def printed(study):
    """Some of the lines that the training script prints."""
    history = next(run["history"] for run in study["runs"] if run["seed"] == 0)
    for row in history[0], history[1], history[-1]:
        what = {"history": [row], "recipe": SimpleNamespace(epochs=len(history))}
        yield ClassifyTask_train.epoch_line(SimpleNamespace(**what))


def reference_run(metrics):
    (low, high), matrix = metrics["interval"], metrics["confusion_matrix"]
    by_class = "  ".join(f"{digit}: {sum(row) - row[digit]}" for digit, row in enumerate(matrix))
    yield f"test accuracy {metrics['accuracy']:.2%} of 10,000 digits"
    yield f"the last weights alone: {metrics['last_accuracy']:.2%}"
    yield f"accuracy {metrics['accuracy']:.2%}, 95 % interval {low:.2%} to {high:.2%}"
    yield f"{metrics['errors']} errors in 10,000 digits; by class: {by_class}"


def averages(study):
    yield f"the averages reach {spread(study)} % and the last weights {spread(study, 'last_')} %"
    yield f"(mean ± deviation of {len(study['runs'])} seeds, {study['command']})"


def plain(study):
    compiled = record("seeds.json")
    yield f"{spread(study)} % of the test digits ({len(study['runs'])} seeds, {study['command']}"
    yield f"against {spread(compiled)} % ({len(compiled['runs'])} seeds)"


def undistorted(study):
    losses = [row["test_loss"] for row in next(run["history"] for run in study["runs"] if run["seed"] == 0)]
    yield f"the last weights read {spread(study, 'training_')} % of the training digits"
    yield f"of the test digits the averages read only {spread(study)} %"
    yield f"test loss is lowest after epoch {1 + losses.index(min(losses))}"


def distorted_1998(study):
    yield f"comes to {spread(study, error=True)} % ({len(study['runs'])} seeds, {study['command']})"


def by_1998(study):
    ranges = [run["history"][0]["step_range"] for run in study["runs"]]
    yield f"| {spread(study, error=True)} ({len(study['runs'])} seeds) |"
    yield f"| {spread(study, 'training_', error=True)} |"
    yield f"| {min(low for low, _ in ranges):.1e} to {max(high for _, high in ranges):.1e} |"
    yield f"| {study['command']} |"


def steps(study):
    """The rows of the tables of README and speed.md, but for their titles."""
    device = study["devices"]["cpu"]
    for name, row in device["variants"].items():
        ratio = "1" if row["ratio"] == 1 else "{:.1f} ({:.1f} to {:.1f})".format(row["ratio"], *row["ratio_range"])
        if "1998" not in name:
            yield f"| {row['milliseconds']:.2f} | {ratio} |"
    yield f"| {device['floor']:.2f} | |"
    yield f"of {study['rounds']}"
    yield device["machine"]


def program(study):
    found, evaluation = study["program"], study["program"]["evaluation_seconds"]
    compiling = ", ".join(f"{seconds:.0f} s" for seconds in found["compile_seconds"].values())
    yield f"| import of PyTorch and torchvision | {found['import_seconds']:.1f} s |"
    yield f"| from the start to the first step, compiled before | {found['first_step_seconds']:.1f} s |"
    yield f"| compiling, once: recipe adam, recipe 1998 | {compiling} |"
    yield "| the 10,000 test digits: compiled, model.py | {compiled:.1f} s, {plain:.1f} s |".format(**evaluation)
    whole_run = "20 epochs without distortions, with all tests and checkpoints, from start to end"
    yield f"| {whole_run} | {found['run_seconds']:.0f} s |"
    yield f"(one pattern each) | {study['devices']['cpu']['steps_per_second_1998']:,.0f} |"
    yield f"in the time of one step of the usual script | {study['devices']['cpu']['steps_1998_a_usual_step']:.0f} |"
    yield f"| {found['training_mib'] - found['import_mib']:.0f} MiB |"
    yield f"the step's operations take {study['devices']['cpu']['floor']:.2f} ms: the floor"


def faults(search):
    assert search["failed"] == 0
    yield from (f"| {kind} | {times:,} |" for kind, times in search["tried"].items())


def cost_of_distorting(study):
    seconds = [
        [run["seconds"] for run in study["runs"] if run["variant"] == f"adam, strength {strength}"]
        for strength in (0, 0.7)
    ]
    yield f"distorting makes training {sum(seconds[1]) / sum(seconds[0]):.1f} times as long"


def digits_in_pictures(study):
    yield f"Of {study['pictures']:,} test digits made into large pictures {100 * study['accuracy']:.1f} % are read"
    assert study["kept"] == 1  # "as many as of the same digits"


def numbers_in_pictures(study):
    found, plain, kept = (f"{100 * study[key]:.1f} %" for key in ("accuracy", "plain_accuracy", "kept"))
    yield f"{found} are read correctly, and {plain} of the same lines as they are: {kept} of it is kept"


def activation_for_numbers(study):
    relu, squash = (f"{100 - 100 * study['variants'][name]['mean']:.2f}" for name in ("relu", "squash"))
    yield f"{relu} % of the lines were wrong with it, and {squash} % with the squashing function of 1998 (one run each;"


def choices_of_adam(study):
    yield from (
        line for line in choices.table(choices.summarize(study["runs"])["variants"]).splitlines() if "| adam" in line
    )


SEEDS = ["seeds.json", *(f"study/seeds-{name}.json" for name in ("undistorted", "best", "1998", "1998-distorted"))]
SAID = [  # page, file in Record/, what the page says of it
    *(("README.md", name, results) for name in SEEDS),
    ("README.md", "seeds.json", printed),
    ("README.md", "metrics.json", reference_run),
    ("README.md", "study/benchmark.json", steps),
    ("README.md", "study/own_pictures.json", digits_in_pictures),
    ("docs/training.md", "seeds.json", averages),
    ("docs/training.md", "study/seeds-undistorted.json", undistorted),
    ("docs/training.md", "study/choices.json", choices_of_adam),
    ("docs/training.md", "study/distortions.json", cost_of_distorting),
    ("docs/1998.md", "study/seeds-1998.json", by_1998),
    ("docs/1998.md", "study/seeds-1998-distorted.json", distorted_1998),
    ("docs/numbers.md", "study/own_numbers.json", numbers_in_pictures),
    ("docs/numbers.md", "study/numbers-choice.json", activation_for_numbers),
    ("docs/reference.md", "study/faults.json", faults),
    ("docs/speed.md", "study/benchmark.json", steps),
    ("docs/speed.md", "study/benchmark.json", program),
    ("docs/speed.md", "study/seeds-plain.json", plain),
]


@pytest.mark.parametrize(
    ("page", "name", "texts"), SAID, ids=[f"{page}-{texts.__name__}-{name}" for page, name, texts in SAID]
)
def test_a_page_says_what_was_measured(page, name, texts):
    said = " ".join(re.sub("[*`]", "", PAGES[page]).split())
    missing = [text for text in texts(record(name)) if " ".join(text.split()) not in said]
    assert missing == [], f"{page} should say this of Record/{name}"


def block(name):
    """The table of a block, made again from its JSON file by the experiment that prints it."""
    experiment, _, part = name.partition(": ")
    module = importlib.import_module(f"experiments.{experiment}")
    if experiment == "seeds":  # of all its files
        return module.tables()[part]
    content = record(f"study/{experiment}.json")
    return module.tables(content)[part] if part else module.table(module.summarize(content["runs"])["variants"])


BLOCKS = [
    (p, *found) for p, text in PAGES.items() for found in re.findall(r"<!-- ([\w: ]+) -->\n(.*?)<!-- /", text, re.S)
]


@pytest.mark.parametrize(("page", "name", "table"), BLOCKS, ids=[f"{page}, {name}" for page, name, _ in BLOCKS])
def test_a_table_is_that_of_the_experiment(page, name, table):
    assert table.strip() == block(name), f"{page}: print the table {name} anew"


def test_the_layers():
    page = PAGES["docs/network.md"]
    for output, title in ("linear", "default"), ("rbf", "as published"):
        rows, names = layer_table(LeNet5(output=output)), {"output": f"output, {title}"}
        for name, (_, parameters, connections) in rows.items():
            assert re.search(
                rf"^\| {names.get(name, name.upper())} \|.*\| {parameters:,} \| {connections:,} \|$", page, re.M
            )
        parameters, connections = (sum(row[i] for row in rows.values()) for i in (1, 2))
        assert f"| **total, {title}** | | | **{parameters:,}** | **{connections:,}** |" in page


def anchors(text):
    """The anchors that GitHub gives to a page's headings."""
    titles = re.findall(r"^#+ (.*)$", re.sub(r"^```.*?^```$", "", text, flags=re.M | re.S), re.M)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES)
def test_links_pictures_and_anchors_exist(page):
    text, missing = re.sub(r"^```.*?^```$", "", PAGES[page], flags=re.M | re.S), []
    for target in re.findall(r"\]\(([^)\s]+)\)|(?:src|href)=\"([^\"]+)\"", text):
        path, _, anchor = "".join(target).partition("#")
        if re.match(r"https?:|mailto:", path):
            continue
        file = (ROOT / page).parent / path if path else ROOT / page
        if not file.exists() or anchor and anchor not in anchors(file.read_text(encoding="utf-8")):
            missing.append("".join(target))
    assert missing == []


@pytest.mark.parametrize("page", PAGES)
def test_files_named_on_a_page_exist(page):
    named = set(re.findall(r"`([\w./-]+\.(?:py|md|toml|txt))`", PAGES[page]))
    for tree in re.findall(r"^```\n(.*?)^```$", PAGES[page], re.M | re.S):
        named |= set(re.findall(r"^([\w./-]+(?:\.\w+|/))  ", tree, re.M))
    assert [
        name for name in sorted(named) if not (ROOT / name).exists() and not ((ROOT / page).parent / name).exists()
    ] == []


COMMANDS = {
    match
    for text in PAGES.values()
    for match in re.findall(r"python3? (-m [\w.]+|[\w/]+\.py)((?:[ =][^\s#`|]+)*)", text)
}


@pytest.fixture
def options(monkeypatch, capsys):
    """The flags that --help shows of a script, or of an experiment's or a tool's module."""

    def options(command):
        monkeypatch.setattr(sys, "argv", [command, "--help"])
        name = command.removeprefix("-m ").removesuffix(".py").replace("/", ".")
        with pytest.raises(SystemExit) as stop:
            importlib.import_module(name).main()
        assert not stop.value.code
        return set(re.findall(r"(?<![\w-])--[\w-]+", capsys.readouterr().out)) - {"--help"}

    return options


def test_commands_exist_with_the_flags_named(options):
    wrong = []
    for command, rest in sorted(COMMANDS):
        name = command.removeprefix("-m ").split(".")[0]
        if name in ("pytest", "venv", "pip", "http"):
            continue
        if (
            not (ROOT / command).exists()
            and not (ROOT / (command.removeprefix("-m ").replace(".", "/") + ".py")).exists()
        ):
            wrong.append(command)
        elif flags := set(re.findall(r"--[\w-]+", rest)):
            wrong += [f"{command} {flag}" for flag in flags - options(command)]
    targets = set(re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.M))
    made = {target for text in PAGES.values() for target in re.findall(r"`make (\w+)`|^make (\w+)", text, re.M)}
    assert wrong == [] and {"".join(target) for target in made} <= targets


@pytest.mark.parametrize("script", SCRIPTS)
def test_the_reference_has_every_flag(script, options):
    short, rows = script[13:-3], re.findall(r"^\| (`-.*?) \| ([^|]*) \|", PAGES["docs/reference.md"], re.M)
    documented = {
        flag
        for cells, scripts in rows
        if short in scripts or "all" in scripts
        for flag in re.findall(r"--[\w-]+", cells)
    }
    assert documented == options(script)


def test_the_readme_is_short():
    assert PAGES["README.md"].count("\n") <= 170
