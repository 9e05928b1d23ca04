"""What experiments share that choose by validation: training without the validation set."""

import dataclasses

import utils
from digits.mnist import Data
from experiments.runner import Context
from training import checkpoint, loop
from training.recipes import RECIPES, Recipe
from utils import UserError


def train_and_validate(context: Context, task: dict, data: Data | None = None) -> dict:
    """Train task["recipe"] from task["seed"] on all but the validation set: its accuracies, None if training diverges.

    Also the seconds of the epochs' training, and with the 1998 recipe the smallest and largest step of the first pass.
    """
    data = data or context.validation()
    try:
        *_, trained = loop.train(Recipe.from_json(task["recipe"]), data, task["seed"])
    except UserError:
        return {"accuracy": None, "last_accuracy": None}
    result = {
        "accuracy": trained.history[-1]["test_accuracy"],
        "last_accuracy": utils.accuracy(checkpoint.network(trained, last=True), *data.test),
        "seconds": sum(row["seconds"] for row in trained.history),
    }
    return result | {key: row for key, row in trained.history[0].items() if key == "step_range"}


def without_augmentation(name: str) -> Recipe:
    """A recipe without augmentation."""
    return dataclasses.replace(RECIPES[name], augment=False, strength=1.0)
