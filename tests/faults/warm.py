"""Imported where the processes are forked from: what a training run imports and compiles is in memory then."""

from conftest import few

import ClassifyTask_train  # noqa: F401
import faults.conftest  # noqa: F401, each child unpickles what is defined there
from training import loop, steps
from training.recipes import RECIPES

for name, maker in ("default", loop.fastest), ("1998", loop.fastest), ("best", steps.plain):
    next(loop.train(RECIPES[name].override(epochs=1), few(), 0, make_steps=maker))
