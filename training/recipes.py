"""What a run decides: the network, its loss, the method and its schedule, in one object that a checkpoint keeps.

RECIPES has the six this project is about. To try another, change one with `dataclasses.replace`.
"""

import dataclasses
import math
from dataclasses import dataclass, field
from pathlib import Path

from torch import Tensor

import utils
from model import BOUNDS, eq8_loss, eq9_loss

LOSSES = ("cross-entropy", "eq. 8", "eq. 9", "ctc")
OPTIMIZERS = ("adam", "diagonal-lm")
YOUNGER = ("evened", "teachers")  # fields that older files lack: left out where they are 0


@dataclass(frozen=True)
class Recipe:
    """One way to train LeNet-5. Raises ValueError on values that contradict each other or make no sense."""

    name: str
    learning_rates: tuple[float, ...]  # one for each epoch
    batch_size: int
    optimizer: str  # "adam", or "diagonal-lm": the method of 1998
    warmup: float = 0.0  # if not 0, the rate rises from 0 for this share of all steps, then falls to 0: learning_rate()
    loss: str = "cross-entropy"  # or the paper's "eq. 8" or "eq. 9", both for RBF outputs; "ctc": lines of digits
    j: float | None = None  # the constant of eq. 9, its "rubbish" class
    factor: float | None = None  # times the sum of a batch's losses; None: 1 / digits of the batch
    constant_order: bool = False  # draw the random order of the digits once, not anew each epoch
    f6_curvature: float | None = None  # with diagonal-lm and RBF outputs, d2E/dx2 at F6; None: that of eq. 8
    ema: bool = False  # test the exponential moving average of the weights, of time constant one epoch
    augment: bool = False  # augment the training digits at random, anew each epoch
    strength: float = 1.0  # of the augmentation: times the ranges of digits/augmentation.py
    elastic: float = 0.0  # pixels, of elastic distortions besides
    evened: float = 0.0  # with "ctc", the share of the lines that are as those of photos: digits/writing.py
    teachers: int = 0  # train so many networks first, and learn from their mean probabilities: distillation
    model_arguments: dict = field(default_factory=dict)  # keyword arguments of LeNet5
    initialization: dict = field(default_factory=dict)  # keyword arguments of LeNet5.reset_parameters

    def __post_init__(self):
        rates, rbf = self.learning_rates, self.model_arguments.get("output") == "rbf"
        for what, right in {
            "name": isinstance(self.name, str),
            "learning_rates": 0 < len(rates) <= 5_000 and all(0 < rate < 1e9 for rate in rates),
            "warmup": 0 <= self.warmup < 1 and (self.optimizer == "adam" or not self.warmup),
            "batch_size": isinstance(self.batch_size, int) and 0 < self.batch_size < 1e9,
            "optimizer": self.optimizer in OPTIMIZERS,
            "loss": self.loss in LOSSES and (rbf or not self.loss.startswith("eq.")),
            "model_arguments": self.loss != "ctc" or self.model_arguments.get("classes") == 11,
            "j": self.j is None if self.loss != "eq. 9" else self.j is not None and abs(self.j) < 1e9,
            "factor": self.factor is None or 0 < self.factor < 1e9,
            "constant_order": isinstance(self.constant_order, bool),
            "f6_curvature": self.f6_curvature is None or rbf and 0 < self.f6_curvature < 1e9,
            "ema": isinstance(self.ema, bool) and (self.ema or self.loss != "ctc"),
            "augment": isinstance(self.augment, bool) and (self.augment or self.loss != "ctc"),
            "initialization": set(self.initialization) <= {"bound", "coefficient", "zero_biases"}
            and isinstance(self.initialization.get("zero_biases", False), bool)
            and self.initialization.get("bound", "1/sqrt(F)") in BOUNDS
            and 0 < self.initialization.get("coefficient", 1) < 1e9,
            "strength": 0 <= self.strength <= 10,
            "elastic": 0 <= self.elastic <= 10,
            "teachers": isinstance(self.teachers, int)
            and 0 <= self.teachers <= (100 if self.loss == "cross-entropy" and not rbf else 0),
            "evened": 0 <= self.evened <= (1 if self.loss == "ctc" else 0),
        }.items():
            if not right:
                raise ValueError(f"the recipe's {what} cannot be {getattr(self, what)!r}")

    @property
    def epochs(self) -> int:
        return len(self.learning_rates)

    @property
    def reads_numbers(self) -> bool:
        """Whether it trains on lines of digits, by reading/ctc.py, rather than on single ones."""
        return self.loss == "ctc"

    @property
    def of_teachers(self) -> "Recipe":
        """By which its teachers are trained: the same without teachers."""
        return dataclasses.replace(self, teachers=0)

    def learning_rate(self, epoch: int, share: float) -> float:
        """The rate in an epoch, 1 to epochs, when this share (0 to 1) of all steps has been taken.

        With a warmup of w it is the epoch's rate times share / w up to w, and times (1 - share) / (1 - w) from there.
        """
        rate, w = self.learning_rates[epoch - 1], self.warmup
        return rate * min(share / w, (1 - share) / (1 - w)) if w else rate

    def losses(self, logits: Tensor, labels: Tensor) -> Tensor:
        """The loss of each digit, before the factor: logits (N, 10) and labels (N,) -> (N,).

        Raises ValueError for "ctc", whose loss is that of whole lines: reading/ctc.py.
        """
        if self.reads_numbers:
            raise ValueError("the recipe trains on lines of digits: hand reading.ctc.ctc to the loop as make_steps")
        return eq8_loss(logits, labels) if self.loss == "eq. 8" else eq9_loss(logits, labels, self.j)

    def loss_factor(self, batch: int) -> float:
        """What multiplies the sum of the losses of a batch of this size."""
        return self.factor or 1 / batch

    def override(
        self,
        epochs: int | None = None,
        batch_size: int | None = None,
        lr: float | None = None,
        augment: bool | None = None,
    ) -> "Recipe":
        """The recipe with what is not None in place of its own.

        lr is the first epoch's learning rate; the others change in proportion. Fewer epochs leave out the last rates;
        more go on with the last one.
        """
        rates = self.learning_rates[:epochs]
        rates += rates[-1:] * ((epochs or 0) - len(rates))
        if lr is not None:
            rates = tuple(lr if rate == rates[0] else lr * (rate / rates[0]) for rate in rates)  # lr itself, unrounded
        augment = self.augment if augment is None else augment
        batch_size = batch_size or self.batch_size
        return dataclasses.replace(self, learning_rates=rates, batch_size=batch_size, augment=augment)

    def to_json(self) -> dict:
        """What from_json takes. YOUNGER fields that are 0 are left out, as in files that are older than them."""
        content = {**dataclasses.asdict(self), "learning_rates": list(self.learning_rates)}
        return {name: value for name, value in content.items() if value or name not in YOUNGER}

    @classmethod
    def from_json(cls, content: dict) -> "Recipe":
        """The recipe of a file, which may lack YOUNGER fields. Raises ValueError or TypeError if it is none."""
        return cls(**{**content, "learning_rates": tuple(content["learning_rates"])})


def cosine(epochs: int, rate: float) -> tuple[float, ...]:
    """Cosine learning-rate decay: half a cosine from `rate` to nearly 0."""
    return tuple(rate * (1 + math.cos(math.pi * epoch / epochs)) / 2 for epoch in range(epochs))


BEST = Recipe(  # chosen by validation, as default
    "best",
    optimizer="adam",
    learning_rates=cosine(60, 0.001),
    batch_size=32,
    ema=True,
    augment=True,
    strength=0.7,
    elastic=0.5,
    model_arguments={"activation": "relu"},
)

RECIPES = {
    recipe.name: recipe
    for recipe in (
        Recipe(
            "default",
            optimizer="adam",
            learning_rates=(0.0005,) * 20,
            batch_size=32,
            ema=True,
            augment=True,
            strength=0.7,  # by validation, as that of best: experiments/augmentation.py; 1998 has the same
        ),
        BEST,
        dataclasses.replace(BEST, name="distilled", teachers=5),  # taught by five of its kind
        Recipe(
            "fast",  # seconds; chosen by validation: experiments/choices.py
            optimizer="adam",
            learning_rates=(0.004,) * 2,
            warmup=0.2,
            batch_size=32,
            augment=True,
            strength=0.5,
            model_arguments={"activation": "relu"},
        ),
        Recipe(
            "1998",
            optimizer="diagonal-lm",
            # The paper's schedule (section III).
            learning_rates=(0.0005,) * 2 + (0.0002,) * 3 + (0.0001,) * 3 + (0.00005,) * 4 + (0.00001,) * 8,
            batch_size=1,
            constant_order=True,
            model_arguments={"output": "rbf"},
            loss="eq. 9",
            # What the paper leaves open: chosen by validation, its curve of training errors, and its step sizes. The
            # initial weights are not as published, either. All that was tried: experiments/left_open.py
            j=0.0,
            factor=0.1,
            f6_curvature=0.7,
            strength=0.7,  # for --augment; that of default
        ),
        Recipe(
            "numbers",  # reading/: the network swept over lines of digits
            optimizer="adam",
            learning_rates=cosine(48, 0.004),  # the rate by validation: experiments/writing_choice.py
            batch_size=128,  # digits, in lines that all have the same length
            loss="ctc",
            ema=True,
            augment=True,
            strength=0.7,
            elastic=0.5,
            evened=0.5,
            model_arguments={"activation": "relu", "classes": 11},  # ReLU by validation: experiments/numbers_choice.py
        ),
    )
}


def record_dir(recipe: Recipe, dataset: str, reference: bool = False) -> Path:
    """Where a run's files are kept: Record itself for the default recipe on MNIST, else a folder of its own below it.

    `reference` names the folder, below Record/reference, of what the project ships of the same run.
    """
    names = [recipe.name]
    if recipe.augment != RECIPES.get(recipe.name, recipe).augment:
        names.append("augment" if recipe.augment else "no-augment")
    if dataset != "mnist":
        names.append(dataset)
    root = utils.RECORD / utils.REFERENCE if reference else utils.RECORD
    return root if names == ["default"] else root / "-".join(names)
