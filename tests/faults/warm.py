"""Imported where the processes are forked from: what a training imports and compiles is in memory then."""

from conftest import digits

import training
from recipes import RECIPES

for recipe in RECIPES.values():
    next(training.train(recipe.override(epochs=1), "digits", 0, digits("train"), digits("test")))
