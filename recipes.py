"""What a run decides: the network, its loss, the method and its schedule, in one object that a checkpoint keeps.

RECIPES has the three this project is about. To try another, change one with `dataclasses.replace`.
"""

import dataclasses
import math
from dataclasses import dataclass, field
from pathlib import Path

from torch import Tensor

from model import BOUNDS, map_loss, mse_loss
from utils import RECORD

LOSSES = ("cross-entropy", "eq. 8", "eq. 9", "ctc")
OPTIMIZERS = ("adam", "diagonal-lm")


@dataclass(frozen=True)
class Recipe:
    """One way to train LeNet-5. Raises ValueError on values that contradict each other or make no sense."""

    name: str
    learning_rates: tuple[float, ...]  # one for each epoch
    batch_size: int
    optimizer: str  # "adam", or "diagonal-lm": the method of 1998
    loss: str = "cross-entropy"  # or the paper's "eq. 8" or "eq. 9", both for RBF outputs; "ctc": reader.py
    j: float | None = None  # the constant of eq. 9, its "rubbish" class
    factor: float | None = None  # times the sum of a batch's losses; None: 1 / batch size, which makes it their mean
    average: bool = False  # report the running average of the weights, of time constant one epoch
    distort: bool = False  # distort the training digits at random, anew each epoch
    strength: float = 1.0  # of the distortions: times the ranges of distortions.py
    elastic: float = 0.0  # pixels, of elastic distortions besides
    network: dict = field(default_factory=dict)  # keyword arguments of LeNet5
    start: dict = field(default_factory=dict)  # keyword arguments of LeNet5.reset_parameters

    def __post_init__(self):
        rates, rbf = self.learning_rates, self.network.get("output") == "rbf"
        for what, right in {
            "name": isinstance(self.name, str),
            "learning_rates": 0 < len(rates) <= 5_000 and all(0 < rate < 1e9 for rate in rates),
            "batch_size": isinstance(self.batch_size, int) and 0 < self.batch_size < 1e9,
            "optimizer": self.optimizer in OPTIMIZERS,
            "loss": self.loss in LOSSES and (rbf or not self.loss.startswith("eq.")),
            "j": self.j is None if self.loss != "eq. 9" else self.j is not None and abs(self.j) < 1e9,
            "factor": self.factor is None or 0 < self.factor < 1e9,
            "average": isinstance(self.average, bool),
            "distort": isinstance(self.distort, bool),
            "start": set(self.start) <= {"bound", "coefficient"}
            and self.start.get("bound", "1/sqrt(F)") in BOUNDS
            and 0 < self.start.get("coefficient", 1) < 1e9,
            "strength": 0 <= self.strength <= 10,
            "elastic": 0 <= self.elastic <= 10,
        }.items():
            if not right:
                raise ValueError(f"the recipe's {what} cannot be {getattr(self, what)!r}")

    @property
    def epochs(self) -> int:
        return len(self.learning_rates)

    def losses(self, scores: Tensor, labels: Tensor) -> Tensor:
        """The loss of each pattern, before the factor: scores (N, 10) and labels (N,) -> (N,)."""
        return mse_loss(scores, labels) if self.loss == "eq. 8" else map_loss(scores, labels, self.j)

    def scale_of(self, batch: int) -> float:
        """What multiplies the sum of the losses of a batch of this size."""
        return self.factor or 1 / batch

    def override(
        self,
        epochs: int | None = None,
        batch_size: int | None = None,
        lr: float | None = None,
        distort: bool | None = None,
    ) -> "Recipe":
        """The recipe with what is not None in place of its own.

        lr is the first epoch's learning rate; the others change in proportion. More epochs go on with the last rate.
        """
        rates = self.learning_rates[:epochs]
        rates += rates[-1:] * ((epochs or 0) - len(rates))
        if lr is not None:
            rates = tuple(lr if rate == rates[0] else lr * (rate / rates[0]) for rate in rates)
        distort = self.distort if distort is None else distort
        batch_size = batch_size or self.batch_size
        return dataclasses.replace(self, learning_rates=rates, batch_size=batch_size, distort=distort)

    def to_json(self) -> dict:
        return {**dataclasses.asdict(self), "learning_rates": list(self.learning_rates)}

    @classmethod
    def from_json(cls, content: dict) -> "Recipe":
        """The recipe of a file. Raises ValueError or TypeError if it is none."""
        return cls(**{**content, "learning_rates": tuple(content["learning_rates"])})


def cosine(epochs: int, rate: float) -> tuple[float, ...]:
    """Learning rates that fall along half a cosine from `rate` to nearly 0."""
    return tuple(rate * (1 + math.cos(math.pi * epoch / epochs)) / 2 for epoch in range(epochs))


RECIPES = {
    recipe.name: recipe
    for recipe in (
        Recipe(
            "adam",
            optimizer="adam",
            learning_rates=(0.0005,) * 20,
            batch_size=32,
            average=True,
            distort=True,
            strength=0.7,  # this and the other strengths were chosen on held-out digits: experiments/distortions.py
        ),
        Recipe(
            "best",  # chosen on held-out digits, too
            optimizer="adam",
            learning_rates=cosine(60, 0.001),
            batch_size=32,
            average=True,
            distort=True,
            strength=0.7,
            elastic=0.5,
            network={"activation": "relu"},
        ),
        Recipe(
            "1998",
            optimizer="diagonal-lm",
            # The paper's schedule (section III).
            learning_rates=(0.0005,) * 2 + (0.0002,) * 3 + (0.0001,) * 3 + (0.00005,) * 4 + (0.00001,) * 8,
            batch_size=1,
            network={"output": "rbf"},
            loss="eq. 9",
            j=1.0,
            factor=0.05,  # without it, F6 saturates in the first pass
            strength=0.7,  # for --distort
        ),
    )
}


def record_dir(recipe: Recipe, dataset: str) -> Path:
    """Where a run's files are kept: Record itself for the default recipe on MNIST, else a folder of its own below."""
    names = []
    if recipe.name != "adam":
        names.append(recipe.name)
    if recipe.distort != RECIPES.get(recipe.name, recipe).distort:
        names.append("distorted" if recipe.distort else "undistorted")
    if dataset != "mnist":
        names.append(dataset)
    return RECORD.joinpath(*names)
