"""What all experiments share: options, files, runs side by side, resuming, tables, and the reference beside them.

An experiment is a file of this folder whose EXPERIMENT says only what is particular to it. Its runs are kept in
Record/study/NAME.json, written anew after each of them; a start goes on with what is missing there. benchmark.py and
profile.py have a `main` in its place.
"""

import ast
import contextlib
import functools
import importlib
import json
import os
import statistics
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from tqdm import tqdm

import utils
from digits import mnist
from digits.mnist import Data
from experiments import NAMES, RENAMED, pool
from experiments.results import beside
from training import checkpoint, provenance
from training.recipes import Recipe, record_dir
from utils import UserError, shown

LONG = 180  # seconds: what takes longer is announced


def folder(reference: bool = False, tiny: bool = False) -> Path:
    """Where experiments write."""
    root = utils.RECORD / utils.REFERENCE if reference else utils.RECORD
    return root / "study" / "tiny" if tiny else root / "study"


@dataclass(frozen=True)
class Context:
    """What an experiment was started with. Other processes get it, too."""

    name: str
    dataset: str = "mnist"
    data_dir: Path = utils.DATA
    device: str = "cpu"
    tiny: bool = False
    reference: bool = False
    seeds: tuple[int, ...] = ()
    variants: tuple[str, ...] = ()
    images: Path | None = None  # a folder of the user's images

    @property
    def folder(self) -> Path:
        return folder(self.reference, self.tiny)

    def load(self) -> Data:
        return load(self.dataset, self.data_dir, self.device)

    def validation(self) -> Data:
        """The training digits alone: those trained on, and as the test set the last 5,000 (a seventh of few)."""
        images, labels = mnist.load_dataset(self.dataset, self.data_dir, "train")
        count = min(5000, len(labels) // 7)
        return Data(self.dataset, *((images[part], labels[part]) for part in (slice(-count), slice(-count, None))))

    def shorten(self, recipe: Recipe) -> Recipe:
        """The recipe, of one epoch in a rehearsal."""
        return recipe.override(epochs=1) if self.tiny else recipe

    def tasks(self, recipes: dict[str, Recipe]) -> list[dict]:
        """Each of these recipes from each seed."""
        return [
            {"variant": name, "seed": seed, "recipe": self.shorten(recipe).to_json()}
            for name, recipe in recipes.items()
            for seed in self.seeds
        ]

    def network_file(self, recipe: Recipe) -> Path:
        """The checkpoint of a recipe trained on MNIST: the user's own, else the reference's."""
        own, shipped = (record_dir(recipe, "mnist", reference) / checkpoint.FILE for reference in (False, True))
        return own if own.exists() and not self.reference else shipped


@functools.lru_cache(1)
def load(dataset: str, data_dir: Path, device: str) -> Data:
    """The data set, verified once."""
    return mnist.load(dataset, data_dir, utils.pick_device(device))


@dataclass(frozen=True)
class Experiment:
    """What is particular to an experiment. Its runs are dictionaries: a task, and what `measure` found."""

    tables: Callable[[dict], dict[str, str]]  # the content of its file -> tables in Markdown, by name
    summarize: Callable[[Context, list[dict]], dict]  # its runs -> what the file holds besides
    tasks: Callable[[Context, list[dict]], list[dict]] | None = None  # all that can be told after these runs
    measure: Callable[[Context, dict], dict] | None = None
    draw: Callable[[Context, dict, Path], None] = lambda context, content, path: None  # the file's content -> a PNG
    facts: Callable[[Context], dict] = lambda context: {}  # what all runs of one file must share
    notice: Callable[[Context], str] = lambda context: ""  # which other results it reads
    seeds: tuple[int, ...] = ()
    variants: tuple[str, ...] = ()  # that can be named
    optional: tuple[str, ...] = ()  # those of them that must be named
    seconds: float = 0  # of a run, about, where the reference does not tell
    alone: bool = False  # its runs are timed, so nothing else may run beside them
    device: bool = False  # whether --device is one of its options
    data: bool = True  # whether it reads a data set
    images: bool = False  # whether it reads a folder of the user's images


# ---------------------------------------------------------------------------------------------- the command line


def main():
    """python -m experiments NAME [options]"""
    name, words = (sys.argv[1:2] or [""])[0], sys.argv[2:]
    if name in ("-h", "--help"):
        print("usage: python -m experiments NAME [options]; NAME --help lists them, --list what was made by older code")
        print(*(f"{name}: {description(name)}" for name in NAMES), sep="\n")
    elif name == "--list":
        listing = importlib.import_module("experiments.listing")
        print(*map(listing.state, NAMES), *listing.others(), sep="\n")
    elif name in RENAMED:
        raise UserError(f"{name} is started as python -m experiments {RENAMED[name]} now")
    elif name not in NAMES:
        what = f"there is no experiment {name!r}" if name else "name an experiment"
        raise UserError(f"{what}: {', '.join(NAMES)}; --list says what each of them shows")
    else:
        sys.argv[0] += f" {name}"  # as messages name it
        module = importlib.import_module(f"experiments.{name}")
        start = getattr(module, "main", None) or functools.partial(run, module.EXPERIMENT)
        start(name, words)


def description(name: str) -> str:
    source = Path(__file__).with_name(f"{name}.py").read_text(encoding="utf-8")
    return ast.get_docstring(ast.parse(source)).splitlines()[0]


def parser(name: str) -> utils.Parser:
    """The options that every experiment has."""
    return utils.Parser(prog=f"python -m experiments {name}", description=description(name)).share("--reference")


def parse(name: str, experiment: Experiment, words: list[str]) -> tuple[Context, int]:
    options = parser(name).share("--data-dir", *["--device"] * experiment.device)
    options.add_argument("--tiny", action="store_true", help="a rehearsal on small digits, into Record/study/tiny")
    if experiment.measure and not experiment.alone:
        options.add_argument("--jobs", type=utils.positive(int, 1000), default=cores(), metavar="N", help="at a time")
    if experiment.seeds:
        shown_seeds = " ".join(map(str, experiment.seeds))
        options.add_argument("--seeds", type=utils.seed, nargs="+", metavar="N", help=f"default: {shown_seeds}")
    if experiment.variants:
        options.add_argument("variants", nargs="*", metavar="VARIANT", help="; ".join(experiment.variants))
    if experiment.images:
        folder_named = os.environ.get("REAL_IMAGES")
        what = "a folder of images with an index.csv: file,label; default: what REAL_IMAGES names"
        options.add_argument("--images", type=Path, default=folder_named, metavar="DIR", help=what)
    args = options.parse_args(words)
    if experiment.images and not args.images:
        raise UserError("no images: name a folder that has an index.csv (file,label) with --images DIR")
    if unknown := [name for name in getattr(args, "variants", ()) if name not in experiment.variants]:
        raise UserError(f"there is no variant {unknown[0]!r}; choose from: {'; '.join(experiment.variants)}")
    seeds = getattr(args, "seeds", None) or experiment.seeds[: 1 if args.tiny else None]
    most = tuple(variant for variant in experiment.variants if variant not in experiment.optional)
    variants = getattr(args, "variants", None) or most
    device = str(utils.pick_device(args.device)) if experiment.device else "cpu"
    dataset = "digits" if args.tiny else "mnist"
    if experiment.data:
        mnist.find_dataset(dataset, args.data_dir)
    seeds, variants = tuple(dict.fromkeys(seeds)), tuple(dict.fromkeys(variants))
    images = Path(args.images).resolve() if experiment.images else None
    context = Context(name, dataset, args.data_dir, device, args.tiny, args.reference, seeds, variants, images)
    return context, getattr(args, "jobs", 1) if device == "cpu" else 1


def cores() -> int:
    """The cores that this process may use."""
    with contextlib.suppress(AttributeError):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


# ---------------------------------------------------------------------------------------------- a start


def run(experiment: Experiment, name: str, words: list[str]):
    """Make what is missing, draw it, and print it beside the reference."""
    context, jobs = parse(name, experiment, words)
    with utils.sole_writer(context.folder / f"{name}.json", "then give the command again"):
        make(experiment, context, jobs)


def make(experiment: Experiment, context: Context, jobs: int):
    files = f"{shown(context.folder / f'{context.name}.json')}, or a file that it reads,"
    with readable(files):
        if notice := experiment.notice(context):
            print(notice)
        study = Study(context, experiment)
        if study.runs:
            study.content()  # what they lack is told before others are made
    while experiment.tasks and (missing := study.missing()):
        announce(experiment, context, missing, jobs)
        study.finish(missing, jobs)
    with readable(files):
        content = study.content()
        kept = read(study.path) if study.path.exists() else {}
        same = all(kept.get(key) == json.loads(json.dumps(content[key])) for key in content if key != "modules")
        if not (same and experiment.tasks):  # what has no runs was made anew; a summary may be of results that changed
            provenance.save_json(study.path, content)
        study.path.parent.mkdir(parents=True, exist_ok=True)
        experiment.draw(context, content, study.path.with_suffix(".png"))
        found = experiment.tables(content)
    report(context.name, found, study.path, beside_reference=not (context.reference or context.tiny))


class Study:
    """A file {"command", **facts, "runs": [...], **summary, "modules"}, written anew after each run.

    Raises UserError if the file is damaged, or if its runs were made with other facts (a recipe, say).
    """

    def __init__(self, context: Context, experiment: Experiment):
        self.context, self.experiment = context, experiment
        self.path = context.folder / f"{context.name}.json"
        device = {"device": torch.device(context.device).type} if experiment.device else {}
        self.facts = json.loads(json.dumps({"dataset": context.dataset, **device, **experiment.facts(context)}))
        self.runs, self.modules = [], {}
        if experiment.tasks and self.path.exists():
            found = read(self.path)
            self.runs = [run for run in found["runs"] if run.get("passed", True)]  # what failed is tried again
            self.modules = found.get("modules", {})
            other = [key for key, value in self.facts.items() if found.get(key) != value]
            if self.runs and other:
                what = f"{shown(self.path)} holds runs with other {', '.join(other)} than now"
                raise UserError(f"{what}; move it away to start anew")

    def missing(self) -> list[dict]:
        """The tasks that have no run yet."""
        tasks = json.loads(json.dumps(self.experiment.tasks(self.context, self.runs)))
        return [task for task in tasks if not any(task.items() <= run.items() for run in self.runs)]

    def finish(self, tasks: list[dict], jobs: int):
        """Add a run for each task: `jobs` at a time, each on one thread."""
        work = functools.partial(measured, self.context)
        with tqdm(total=len(tasks), unit="run", disable=None) as bar:
            in_turn = pool.one_by_one if 1 in (jobs, len(tasks)) else pool.side_by_side
            for task, (result, modules) in in_turn(tasks, work, jobs):
                self.runs.append(json.loads(json.dumps({**task, **result})))
                self.modules = modules | self.modules  # the first digest stays: what it gave is still in the file
                provenance.save_json(self.path, self.content())
                bar.update()

    def content(self) -> dict:
        runs = {"runs": self.runs} if self.experiment.tasks else {}
        head = {"command": f"python -m experiments {self.context.name}{' --tiny' * self.context.tiny}", **self.facts}
        return {**head, **runs, **self.experiment.summarize(self.context, self.runs), "modules": self.modules}


def measured(context: Context, task: dict) -> tuple[dict, dict]:
    """What a run gives, and the digests of the modules that gave it: this may be a process of its own."""
    experiment = importlib.import_module(f"experiments.{context.name}").EXPERIMENT
    return experiment.measure(context, task), provenance.module_digests()


def announce(experiment: Experiment, context: Context, missing: list[dict], jobs: int):
    """Say how many runs are left and how long they will take, if that is long."""
    known = []
    with contextlib.suppress(UserError):
        known = [run for run in reference(context.name).get("runs", []) if "seconds" in run]
    seconds = [experiment.seconds if context.tiny else seconds_of(task, known, experiment.seconds) for task in missing]
    total = max(max(seconds), sum(seconds) / jobs)
    if total > LONG and not context.tiny:
        hours, minutes = total / 3600, total / 60
        duration = f"{hours:.1f} hours" if hours >= 2 else f"{minutes:.0f} minutes"
        how = f"{min(jobs, len(missing))} at a time: about {duration}; if it is stopped, the same command goes on"
        print(f"{len(missing)} runs are left, {how}", flush=True)


def seconds_of(task: dict, known: list[dict], otherwise: float) -> float:
    """What a run like this took in the reference: its mean over the seeds."""
    what = {key: value for key, value in task.items() if key not in ("seed", "recipe")}
    return statistics.mean([run["seconds"] for run in known if what.items() <= run.items()] or [otherwise])


# ---------------------------------------------------------------------------------------------- results


def read(path: Path) -> dict:
    """The content of an experiment's file. Raises UserError if it is missing, damaged or another file."""
    if not path.exists():
        raise UserError(f"{shown(path)} is missing; make it with: python -m experiments {path.stem}")
    with readable(shown(path)):
        content = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(content["command"], str):
            raise ValueError("its command is no text")
        content = {"device": "cpu", **content}  # as in files that do not tell it
        content["runs"] = [dict(run) for run in content.get("runs", [])]
    return content


@contextlib.contextmanager
def readable(what: str):
    """Raise UserError, about `what`, for anything that is missing or of another type in the files that are read."""
    try:
        yield
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        reason = f"no {error}" if isinstance(error, KeyError) else error
        raise UserError(f"{what} is foreign, of another version or damaged ({reason}); move it away") from None


def reference(name: str) -> dict:
    """What the project ships of an experiment. Raises UserError as `read`."""
    return read(folder(reference=True) / f"{name}.json")


def tables(name: str) -> dict[str, str]:
    """The tables of what the project ships of an experiment, in Markdown: what the docs show."""
    module = importlib.import_module(f"experiments.{name}")
    with readable(shown(folder(reference=True) / f"{name}.json")):
        return (module.tables if hasattr(module, "main") else module.EXPERIMENT.tables)(reference(name))


def report(name: str, found: dict[str, str], path: Path, beside_reference: bool):
    """Print tables, each number with that of the reference behind it, and where they are."""
    known = {}
    if beside_reference:
        try:
            known = tables(name)
            print(f"Here, and in square brackets in the reference, {shown(folder(reference=True) / f'{name}.json')}:")
        except UserError as error:
            print(f"No reference beside it: {error}")
    for key, table in found.items():
        print(f"\n{beside(table, known[key]) if key in known else table}")
    print(f"\nwritten: {shown(path)}" + f" and {path.stem}.png" * path.with_suffix(".png").exists())
