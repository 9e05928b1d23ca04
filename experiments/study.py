"""What every study needs: a JSON file that finished runs are added to, and that it goes on from; one run a core."""

import concurrent.futures
import contextlib
import json
import multiprocessing
import os
import statistics
from collections.abc import Callable, Iterable
from pathlib import Path

import torch
from tqdm import tqdm

import checkpoint
import mnist
import utils
from recipes import RECIPES, Recipe, record_dir
from training import train
from utils import UserError

HELD_OUT = 5000  # of MNIST's training digits, the last ones


class Study:
    """A study's file: {"command", **facts, "runs": [...], **summary}, written anew after each run.

    A run is a dictionary: the task it was given, and the result. Raises UserError if the file is damaged, or if its
    runs were made with other facts (a recipe, say).
    """

    def __init__(self, path: Path, command: str, summarize: Callable[[list[dict]], dict] = lambda runs: {}, **facts):
        self.path, self.command, self.summarize = path, command, summarize
        self.facts = json.loads(json.dumps(facts))
        self.runs = []
        if path.exists():
            try:
                found = json.loads(path.read_text(encoding="utf-8"))
                self.runs = [dict(run) for run in found["runs"]]
                other = {key: found[key] for key in facts} != self.facts
            except (ValueError, KeyError, TypeError, RecursionError) as error:
                raise UserError(f"{path} is no study's file or damaged ({error}); move it away to start anew") from None
            if self.runs and other:
                raise UserError(f"{path} holds runs with other {', '.join(facts)} than now; move it away to start anew")

    def find(self, task: dict) -> dict | None:
        """The finished run of a task."""
        task = json.loads(json.dumps(task))
        return next((run for run in self.runs if task.items() <= run.items()), None)

    def add(self, run: dict):
        self.runs.append(json.loads(json.dumps(run)))
        utils.save_json(self.path, self.content())

    def content(self) -> dict:
        return {"command": self.command, **self.facts, "runs": self.runs, **self.summarize(self.runs)}

    def finish(self, tasks: Iterable[dict], work: Callable[[dict], dict], jobs: int = 1):
        """Add a run, {**task, **work(task)}, for each task that has none yet: `jobs` at a time, each on one thread.

        With more than one job, work is a function that other processes can import.
        """
        missing = [task for task in tasks if not self.find(task)]
        with tqdm(total=len(missing), unit="run", disable=None) as bar:
            for task, result in (one_by_one if jobs == 1 else side_by_side)(missing, work, jobs):
                self.add({**task, **result})
                bar.update()


def one_by_one(tasks: list[dict], work: Callable[[dict], dict], jobs: int):
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        for task in tasks:
            yield task, work(task)
    finally:
        torch.set_num_threads(threads)


def side_by_side(tasks: list[dict], work: Callable[[dict], dict], jobs: int):
    spawn = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(jobs, spawn, torch.set_num_threads, (1,)) as pool:
        futures = {pool.submit(work, task): task for task in tasks}
        try:
            for future in concurrent.futures.as_completed(futures):
                yield futures[future], future.result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def cores() -> int:
    """The cores that this process may use."""
    with contextlib.suppress(AttributeError):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def train_on_the_rest(dataset: str, data_dir: Path, task: dict) -> dict:
    """Train task["recipe"] from task["seed"] on the training digits but for the last HELD_OUT (200 of the small ones),
    which are the test.

    Held-out accuracies of the weights reported and of the last ones, None if training diverges; the seconds of the
    epochs' training; and with the 1998 recipe the smallest and largest step of the first pass.
    """
    images, labels = mnist.load_dataset(dataset, data_dir, "train")
    count = HELD_OUT if dataset == "mnist" else 200
    rest, held_out = [(images[part], labels[part]) for part in (slice(-count), slice(-count, None))]
    try:
        *_, trained = train(Recipe.from_json(task["recipe"]), dataset, task["seed"], rest, held_out)
    except utils.UserError:
        return {"accuracy": None, "last_accuracy": None}
    result = {
        "accuracy": trained.history[-1]["test_accuracy"],
        "last_accuracy": utils.accuracy(checkpoint.network(trained, "last"), *held_out),
        "seconds": sum(row["seconds"] for row in trained.history),
    }
    return result | {key: row for key, row in trained.history[0].items() if key == "step_range"}


def seeds_path(recipe: Recipe, plain: bool = False) -> Path:
    """The file of a recipe's runs with several seeds on MNIST: Record/seeds.json for the default recipe."""
    names = record_dir(recipe, "mnist").relative_to(utils.RECORD).parts + ("plain",) * plain
    return utils.RECORD.joinpath(*(["study"] if names else []), "-".join(["seeds", *names]) + ".json")


# What the study compares: by the name that figures and tables give it, a recipe and whether it distorts the digits.
COMPARED = {
    "default": ("adam", True),
    "default, digits as they are": ("adam", False),
    "best": ("best", True),
    "1998": ("1998", False),
    "1998, distorted": ("1998", True),
}


def compared(name: str) -> Recipe:
    recipe, distort = COMPARED[name]
    return RECIPES[recipe].override(distort=distort)


def seeds_of(name: str) -> list[dict]:
    """The runs of one of COMPARED that `experiments.seeds` made, in the order of their seeds.

    Raises UserError, with the command to give, if there are none.
    """
    recipe = compared(name)
    path = seeds_path(recipe)
    runs = Study(path, "", recipe=recipe.to_json()).runs
    if not runs:
        flag = "--distort" if recipe.distort else "--no-distort"
        raise UserError(f"{path} is missing; make it with: python -m experiments.seeds --recipe {recipe.name} {flag}")
    return sorted(runs, key=lambda run: run["seed"])


def by_variant(runs: list[dict]) -> dict[str, dict]:
    """Of each variant the seeds, how many of them diverged (their accuracy is None), and mean and deviation of the
    others."""
    found = {}
    for name in dict.fromkeys(run["variant"] for run in runs):
        own = [run for run in runs if run["variant"] == name]
        diverged = sum(run["accuracy"] is None for run in own)
        found[name] = {"seeds": len(own), "diverged": diverged, **mean_and_deviation(own)}
    return found


def table(variants: dict[str, dict]) -> str:
    """What by_variant gives, of held-out digits, in Markdown; errors in %."""
    lines = ["| variant | seeds | held-out error, % | last weights, % |", "|---|---:|---:|---:|"]
    for name, row in variants.items():
        if row["diverged"]:
            errors = [f"{row['diverged']} of {row['seeds']} diverged", ""]
        else:
            errors = [f"{100 - 100 * row[p + 'mean']:.2f} ± {100 * row[p + 'deviation']:.2f}" for p in ("", "last_")]
        lines.append(f"| {name} | {row['seeds']} | {' | '.join(errors)} |")
    return "\n".join(lines)


def arguments(description: str) -> utils.Parser:
    """The options that every study on MNIST has: --data-dir and --jobs."""
    parser = utils.Parser(description=description)
    parser.add_argument("--data-dir", type=Path, default=Path("data"), metavar="DIR", help="default: data")
    parser.add_argument("--jobs", type=utils.positive(int, 1000), default=cores(), metavar="N", help="runs at a time")
    return parser


def mean_and_deviation(runs: list[dict]) -> dict[str, float]:
    """mean and deviation of the runs' accuracy, last_mean and last_deviation of their last_accuracy, and so on.

    The deviation is the sample's, 0 for a single run. Runs whose accuracy is None (the training diverged) are left out.
    """
    found = {}
    for key in dict.fromkeys(key for run in runs for key in run if key.endswith("accuracy")):
        values = [run[key] for run in runs if run.get(key) is not None]
        if values:
            prefix = key.removesuffix("accuracy")
            found[f"{prefix}mean"] = statistics.mean(values)
            found[f"{prefix}deviation"] = statistics.stdev(values) if len(values) > 1 else 0.0
    return found
