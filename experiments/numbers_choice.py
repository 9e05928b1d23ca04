"""The activation of the network that reads numbers, chosen by validation on lines of 5,000 of MNIST's training digits.

First the digits, then lines of them are trained on, without those that make the validation lines. The lines know
nothing of real handwriting (experiments/writing_choice.py chooses that), and the rates are the first of 32 epochs'.
"""

import dataclasses

import numpy as np

from digits.lines import sample_lines
from experiments import numbers, results
from experiments.runner import Context, Experiment
from reading.ctc import ctc
from training import checkpoint, loop
from training.recipes import RECIPES, Recipe, cosine

EPOCHS = 8


def tasks(context: Context, runs: list[dict]) -> list[dict]:
    recipe = dataclasses.replace(RECIPES["numbers"], learning_rates=cosine(32, 0.001)[:EPOCHS], evened=0.0)
    arguments = {activation: {"activation": activation, "classes": 11} for activation in context.variants}
    return context.tasks({name: dataclasses.replace(recipe, model_arguments=own) for name, own in arguments.items()})


def measure(context: Context, task: dict) -> dict:
    """The share of the validation lines that are read correctly, and of their digits that are wrong."""
    data, recipe = context.validation(), Recipe.from_json(task["recipe"])
    digits = dataclasses.replace(RECIPES["best"], model_arguments={"activation": task["variant"]})
    *_, first = loop.train(context.shorten(digits), data, task["seed"])
    *_, latest = loop.train(recipe, data, task["seed"], None, ctc, checkpoint.network(first))
    lines = sample_lines(data.test, 100 if context.tiny else 2000, np.random.default_rng(5))
    found = numbers.errors(numbers.read_all(checkpoint.network(latest), lines))
    return {"accuracy": 1 - found["lines"], "digits": found["digits"]}


def tables(content: dict) -> dict[str, str]:
    rows = [[name, row["seeds"], results.error(row)] for name, row in content["variants"].items()]
    return {"results": results.markdown(["activation", "seeds", "validation lines wrong, %"], rows)}


EXPERIMENT = Experiment(
    tables=tables,
    summarize=lambda context, runs: {"variants": results.by_variant(runs)},
    tasks=tasks,
    measure=measure,
    seeds=(0,),
    variants=("relu", "squash"),
    seconds=600,
)
