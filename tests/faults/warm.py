"""Imported where the processes are forked from: what a training imports and compiles is in memory then."""

from conftest import digits

import training
from recipes import RECIPES

for name in "adam", "1998":
    next(training.train(RECIPES[name].override(epochs=1), "digits", 0, digits("train"), digits("test")))
