"""The training of LeNet-5: the loop, and the state it changes."""

import copy
import functools
import math
import time
from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor, nn

import steps
from checkpoint import KINDS, LARGEST_WEIGHT, Checkpoint, Tensors
from distortions import Pictures
from model import LeNet5, pad, scale
from optimizer import DiagonalLM, curvature
from recipes import Recipe
from utils import UserError, class_scores, versions

SHUFFLE, DISTORTION, CURVATURE = range(3)  # what random numbers are drawn for
CURVATURE_PATTERNS = 500  # on which the curvature is estimated before each pass (appendix C)
DIVERGED = 1.5  # times the untrained network's loss: squashing keeps even a diverging loss finite
CHUNK = 100  # steps between two looks at the progress bar

Set = tuple[Tensor, Tensor]  # images uint8 (N, 28, 28) and labels int64 (N,), on the device


def train(
    recipe: Recipe,
    dataset: str,
    seed: int,
    train_set: Set,
    test_set: Set,
    checkpoint: Checkpoint | None = None,
    plain: bool = False,
    progress: Callable[[int, int, Tensor], None] | None = None,
) -> Iterator[Checkpoint]:
    """Train, and yield a checkpoint after each epoch; from `checkpoint` on, bit for bit as if it had never stopped.

    `plain` lets model.py itself take the steps. `progress` is called after every few steps with the epoch, the number
    of digits seen in it, and the totals of State. PyTorch takes one thread from here on: the bits are the same on any
    number of cores, and other load does little harm. Raises UserError if an epoch leaves weights that are far too
    large, or has a loss above DIVERGED times that of the initial weights.
    """
    state = State(recipe, seed, train_set)
    torch.set_num_threads(1)
    test_images, test_labels = pad(test_set[0]), test_set[1]
    untrained_loss = mean_loss(recipe, class_scores(state.model, state.images[:500]), state.labels[:500])
    history = []
    if checkpoint:
        state.restore(checkpoint)
        history = list(checkpoint.history)
    path, run, scores = steps.plain(state, recipe) if plain else steps.fastest(state, recipe)

    for epoch in range(len(history) + 1, recipe.epochs + 1):
        start = time.perf_counter()
        state.learning_rate.fill_(recipe.learning_rates[epoch - 1])
        state.totals.zero_()
        if state.pictures:
            state.images.copy_(state.pictures.of(epoch))
        if recipe.optimizer == "diagonal-lm":
            state.estimate_curvature(random(seed, epoch, CURVATURE), recipe.scale_of(state.batch_size))
        digits = 0
        for order in shuffled(state, random(seed, epoch, SHUFFLE)):
            run(order)
            digits += order.numel()
            if progress:
                progress(epoch, digits, state.totals)
        train_loss, train_accuracy = (state.totals / digits).tolist()
        seconds = time.perf_counter() - start

        if not (train_loss < DIVERGED * untrained_loss and state.weights.abs().max() < LARGEST_WEIGHT):
            raise UserError(
                f"the training diverged in epoch {epoch}: its loss is {train_loss:.4g}, that of the untrained network "
                f"{untrained_loss:.4g}; take a smaller --lr than {recipe.learning_rates[0]:g}; what was saved is kept"
            )
        row = {"epoch": epoch, "train_loss": train_loss, "train_accuracy": train_accuracy}
        row |= test_row(recipe, scores(test_images), test_labels)
        row |= {"seconds": seconds, "path": path}
        if recipe.optimizer == "diagonal-lm":
            row["step_range"] = list(state.optimizer.effective_steps())
        history.append(row)
        yield Checkpoint(recipe, dataset, seed, list(history), **state.tensors())


class State:
    """What training changes, on the device of the training set.

    weights, gradient, average and the `vectors` of the optimizer are flat vectors, with an element for each parameter
    one after the other. The parameters of `model`, their gradients, the parameters of `reported` and the optimizer's
    state are views of them. Once it is built, everything is written in place and nothing is replaced.
    """

    def __init__(self, recipe: Recipe, seed: int, train_set: Set):
        images, self.labels = train_set
        self.images = pad(images)  # uint8 (N, 32, 32)
        device = images.device
        self.pictures = None  # where the digits are distorted, what gives each epoch's
        if recipe.distort:
            draws = functools.partial(random, seed, purpose=DISTORTION)
            self.pictures = Pictures(self.images.clone(), recipe.strength, recipe.elastic, draws, recipe.epochs)
        self.batch_size = min(recipe.batch_size, len(images))
        self.steps_an_epoch = math.ceil(len(images) / self.batch_size)
        torch.manual_seed(seed)
        self.model = LeNet5(**recipe.network)
        if recipe.start:
            self.model.reset_parameters(**recipe.start)
        self.model.to(device)
        self.reported = copy.deepcopy(self.model) if recipe.average else self.model  # the network that is tested
        self.weights = flatten(self.model)
        self.average = flatten(self.reported) if recipe.average else None
        self.gradient = torch.zeros_like(self.weights)
        for p, part in zip(self.model.parameters(), views(self.gradient, self.model)):
            p.grad = part
        self.learning_rate = torch.tensor(recipe.learning_rates[0], device=device)
        self.optimizer = make_optimizer(recipe, self.model)
        self.optimizer.param_groups[0]["lr"] = self.learning_rate
        parameters = list(self.model.parameters())
        self.steps = torch.zeros(len(parameters), device=device)  # taken so far; an element a parameter, as Adam counts
        self.vectors = {kind: torch.zeros_like(self.weights) for kind in KINDS[recipe.optimizer]}
        for i, p in enumerate(parameters):
            entries = {kind: views(vector, self.model)[i] for kind, vector in self.vectors.items()}
            self.optimizer.state[p] = {"step": self.steps[i], **entries}
        # The sum of the losses and the number of correct answers in an epoch so far.
        self.totals = torch.zeros(2, dtype=torch.float32 if device.type == "mps" else torch.float64, device=device)

    def estimate_curvature(self, generator: np.random.Generator, factor: float):
        """Estimate the curvature of a loss with this factor anew, on digits drawn at random."""
        chosen = torch.from_numpy(generator.permutation(len(self.labels))[:CURVATURE_PATTERNS])
        images = scale(self.images[chosen.to(self.images.device)])
        self.optimizer.set_curvature(curvature(self.model, images, factor))

    def restore(self, checkpoint: Checkpoint):
        """Go back to where a checkpoint of this recipe was taken."""
        self.copy_in(self.weights, checkpoint.last)
        if self.average is not None:
            self.copy_in(self.average, checkpoint.reported)
        for kind, vector in self.vectors.items():
            self.copy_in(vector, checkpoint.optimizer[kind])
        self.steps.fill_(checkpoint.epoch * self.steps_an_epoch)

    def copy_in(self, vector: Tensor, tensors: Tensors):
        for (name, _), part in zip(self.model.named_parameters(), views(vector, self.model)):
            part.copy_(tensors[name])

    def tensors(self) -> dict[str, dict]:
        """What a checkpoint keeps of the state, with the versions that it was made with."""
        last = self.copy_out(self.weights)
        reported = last if self.average is None else self.copy_out(self.average)
        optimizer = {kind: self.copy_out(vector) for kind, vector in self.vectors.items()}
        made_with = versions(self.images.device)
        return {"reported": reported, "last": last, "optimizer": optimizer, "versions": made_with}

    def copy_out(self, vector: Tensor) -> Tensors:
        parts = views(vector.cpu().clone(), self.model)
        return {name: part for (name, _), part in zip(self.model.named_parameters(), parts)}


def flatten(model: nn.Module) -> Tensor:
    """Lay the model's parameters one after the other in one vector, which is returned: they become views of it."""
    vector = torch.cat([p.detach().flatten() for p in model.parameters()])
    for p, part in zip(model.parameters(), views(vector, model)):
        p.data = part
    return vector


def views(vector: Tensor, model: nn.Module) -> list[Tensor]:
    """The parts of a flat vector that belong to the model's parameters, in their shapes."""
    parameters = list(model.parameters())
    parts = vector.split([p.numel() for p in parameters])
    return [part.view(p.shape) for p, part in zip(parameters, parts)]


def make_optimizer(recipe: Recipe, model: LeNet5) -> torch.optim.Optimizer:
    lr = recipe.learning_rates[0]
    if recipe.optimizer == "diagonal-lm":
        return DiagonalLM(model.parameters(), lr)
    kind = next(model.parameters()).device.type
    return torch.optim.Adam(model.parameters(), lr, fused=kind in ("cpu", "cuda"), capturable=kind == "cuda")


def random(seed: int, epoch: int, purpose: int) -> np.random.Generator:
    """An epoch's random numbers for one purpose; drawn on the CPU, so that a seed means the same on every device."""
    return np.random.default_rng([seed, epoch, purpose])


def shuffled(state: State, generator: np.random.Generator) -> Iterator[Tensor]:
    """The digits' numbers in random order, in chunks of at most CHUNK steps: int64 (steps, batch size).

    Where the batch size does not divide the digits, the last chunk is one smaller batch.
    """
    order = torch.from_numpy(generator.permutation(len(state.labels))).to(state.labels.device)
    whole = len(order) - len(order) % state.batch_size
    yield from order[:whole].view(-1, state.batch_size).split(CHUNK)
    if whole < len(order):
        yield order[whole:].unsqueeze(0)


def mean_loss(recipe: Recipe, scores: Tensor, labels: Tensor) -> float:
    return recipe.losses(scores, labels).mean().item()


def test_row(recipe: Recipe, scores: Tensor, labels: Tensor) -> dict[str, float]:
    """What a row of history says of the test set."""
    right = int((scores.argmax(1) == labels).sum())
    return {"test_loss": mean_loss(recipe, scores, labels), "test_accuracy": right / len(labels)}
