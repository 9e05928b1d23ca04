"""The recipes between 1998 and best, each with one idea more, for `ladder` and `ladder_seconds`.

The steps stand in an order in which each is a training that makes sense. Outputs and loss come first, since only RBF
outputs have eq. 9. Batches come before Adam: the old method sums the losses of a batch, and so moves the weights as far
in a pass as single digits do. The steps of Adam hardly depend on the size of the gradient; to take 32 times as many of
them would need another rate, which is a second change.

With linear outputs the old method needs another factor of the loss: it divides the mu in a weight's step. So it has a
factor of its own in each of the two steps before Adam, chosen by validation.

Backwards, three ideas cannot be taken away alone. RBF outputs: their codes have -1, which ReLU never gives. The method
of 1998: other rates belong to it. Single digits: with Adam they need another rate.
"""

import dataclasses

from torch import nn

from model import LeNet5
from training.recipes import RECIPES, Recipe, cosine

DEFAULT, BEST = RECIPES["default"], RECIPES["best"]
FIRST, LINEAR, BATCHES = "1998", "linear, cross-entropy", "batches of 32"
FACTORS = (0.1, 0.2, 0.5, 1.0)  # of the loss: what is tried for LINEAR and for BATCHES

CHANGES = {  # the steps
    LINEAR: {"model_arguments": {}, "loss": "cross-entropy", "j": None, "f6_curvature": None},
    "order drawn anew": {"constant_order": False},
    BATCHES: {"batch_size": DEFAULT.batch_size},
    "Adam": {"optimizer": "adam", "learning_rates": DEFAULT.learning_rates, "factor": None},
    "EMA of the weights": {"ema": True},
    "affine augmentation": {"augment": True, "strength": DEFAULT.strength},
    "ReLU": {"model_arguments": BEST.model_arguments},
    "cosine decay": {"learning_rates": cosine(DEFAULT.epochs, BEST.learning_rates[0])},
    "60 epochs": {"learning_rates": BEST.learning_rates},
    "elastic distortions": {"elastic": BEST.elastic},
}
IS_DEFAULT, BEFORE_BEST, IS_BEST = "affine augmentation", "60 epochs", "elastic distortions"

BACKWARDS = {  # what best is without an idea; without elastic distortions it is BEFORE_BEST
    "EMA of the weights": {"ema": False},
    "affine augmentation": {"strength": 0.0},  # elastic distortions stay
    "ReLU": {"model_arguments": {}},
    "cosine decay": {"learning_rates": DEFAULT.learning_rates[:1] * BEST.epochs},
    "60 epochs": {"learning_rates": cosine(DEFAULT.epochs, BEST.learning_rates[0])},
}

SIDE = {  # what other repositories choose: arguments of Variant
    "C3 fully connected": {"connection": "full"},
    "average pooling": {"subsampling": "average"},
    "max pooling": {"max_pooling": True},
    "tanh": {"activation": "tanh"},
    "sigmoid": {"activation": "sigmoid"},
    "28x28, not padded": {"padded": False},
    "batch norm": {"batch_norm": True},
}


class Variant(LeNet5):
    """LeNet5 with what the side steps have besides: pooling without parameters, 28x28 inputs, batch normalization."""

    def __init__(self, max_pooling=False, padded=True, batch_norm=False, **arguments):
        super().__init__(**arguments)
        self.padded, self.plain = padded, padded and not (max_pooling or batch_norm)  # plain: it is a LeNet5
        if max_pooling:
            self.s2 = self.s4 = nn.MaxPool2d(2)
        if not padded:
            self.c5 = nn.Conv2d(16, 120, 4)  # S4's maps are 4x4; drawn within 1/sqrt(F), as the others
        sizes = {"c1": 6, "c3": 16, "c5": 120} if batch_norm else {}
        self.norms = nn.ModuleDict({name: nn.BatchNorm2d(maps, momentum=None) for name, maps in sizes.items()})

    def layers(self) -> dict[str, list[nn.Module]]:
        chain = super().layers()
        for name, norm in self.norms.items():
            chain[name].insert(1, norm)  # between the weighted sum and the squashing function
        if not self.padded:
            chain["c1"].insert(0, nn.ZeroPad2d(-2))
        return chain


def ladder(factors: dict[str, float]) -> dict[str, Recipe]:
    """The recipes of the steps, by name; `factors` are those of LINEAR and BATCHES."""
    recipe = dataclasses.replace(RECIPES["1998"], name="ladder")
    found = {FIRST: recipe}
    for name, change in CHANGES.items():
        factor = {"factor": factors[name]} if name in factors else {}
        found[name] = recipe = dataclasses.replace(recipe, **change, **factor)
    return found


def backwards() -> dict[str, Recipe]:
    return {name: dataclasses.replace(BEST, **change) for name, change in BACKWARDS.items()}


def side() -> dict[str, Recipe]:
    return {name: dataclasses.replace(DEFAULT, model_arguments=arguments) for name, arguments in SIDE.items()}
