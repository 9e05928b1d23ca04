"""What training changes: weights, gradient, moving average and the optimizer's tensors, each one flat vector."""

import copy
import math

import numpy as np
import torch
from torch import Tensor, nn

from digits.mnist import Digits
from model import LeNet5, normalize, pad
from training.checkpoint import KINDS, Checkpoint, Tensors
from training.optimizer import curvature, step_sizes
from training.provenance import versions
from training.recipes import Recipe

CURVATURE_PATTERNS = 500  # on which the curvature is estimated before each pass (appendix C)


class State:
    """What training changes, on the device of the training set.

    The flat vectors have an element for each parameter, one after the other. The parameters of `model`, their
    gradients and the parameters of `tested` are views of them. Once it is built, everything is written in place and
    nothing is replaced.
    """

    model: LeNet5  # the network that is trained
    tested: LeNet5  # the network that is tested: the moving average where the recipe keeps one, else `model`
    images: Tensor  # what the steps read, uint8 (N, 32, 32)
    labels: Tensor  # int64 (N,)
    targets: Tensor | None  # with teachers, what is learned in place of the labels: probabilities (N, 10)
    weights: Tensor  # of `model`, (P,)
    gradient: Tensor  # (P,)
    ema: Tensor | None  # the exponential moving average of the weights, (P,): the weights of `tested`
    vectors: dict[str, Tensor]  # what the optimizer keeps, (P,) each, by kind: checkpoint.KINDS
    step_count: Tensor  # steps taken so far; an element for each parameter tensor, as Adam counts
    learning_rate: Tensor  # of the next steps, ()
    totals: Tensor  # of this epoch so far: sum of the losses, correct answers, answers, (3,)
    generator: np.random.Generator  # this epoch's random numbers, for steps that draw; the loop sets it
    batch_size: int
    steps_per_epoch: int

    def __init__(self, recipe: Recipe, seed: int, train_set: Digits, initial: LeNet5 | None = None):
        """The state before the first step; `initial` is a network whose weights are the first ones."""
        images, self.labels = train_set
        self.images = pad(images)
        device = images.device
        self.targets = torch.full((len(images), 10), 0.1, device=device) if recipe.teachers else None
        self.batch_size = min(recipe.batch_size, len(images))
        self.steps_per_epoch = math.ceil(len(images) / self.batch_size)
        torch.manual_seed(seed)
        self.model = LeNet5(**recipe.model_arguments)
        if recipe.initialization:
            self.model.reset_parameters(**recipe.initialization)
        if initial:
            take_over(self.model, initial)
        self.model.to(device)
        self.tested = copy.deepcopy(self.model) if recipe.ema else self.model
        self.weights = flatten(self.model)
        self.ema = flatten(self.tested) if recipe.ema else None
        self.gradient = torch.zeros_like(self.weights)
        for p, part in zip(self.model.parameters(), self.views(self.gradient)):
            p.grad = part
        self.vectors = {kind: torch.zeros_like(self.weights) for kind in KINDS[recipe.optimizer]}
        self.step_count = torch.zeros(len(list(self.model.parameters())), device=device)
        self.learning_rate = torch.tensor(recipe.learning_rates[0], device=device)
        self.totals = torch.zeros(3, dtype=torch.float32 if device.type == "mps" else torch.float64, device=device)

    def views(self, vector: Tensor) -> list[Tensor]:
        """The parts of a flat vector that belong to the model's parameters, in their shapes."""
        parameters = list(self.model.parameters())
        parts = vector.split([p.numel() for p in parameters])
        return [part.view(p.shape) for p, part in zip(parameters, parts)]

    def estimate_curvature(self, generator: np.random.Generator, factor: float, f6: float | None = None):
        """Estimate the curvature of a loss with this factor anew, on digits drawn at random, and each weight's rate.

        `f6` is that of optimizer.curvature.
        """
        chosen = torch.from_numpy(generator.permutation(len(self.labels))[:CURVATURE_PATTERNS])
        found = curvature(self.model, normalize(self.images[chosen.to(self.images.device)]), factor, f6)
        h = self.vectors["curvature"].copy_(torch.cat([part.flatten() for part in found]))
        self.vectors["rate"].copy_(step_sizes(self.learning_rate, h))

    def restore(self, checkpoint: Checkpoint):
        """Go back to where a checkpoint of this recipe was taken."""
        self.copy_in(self.weights, checkpoint.last)
        if self.ema is not None:
            self.copy_in(self.ema, checkpoint.tested)
        for kind, vector in self.vectors.items():
            self.copy_in(vector, checkpoint.optimizer[kind])
        self.step_count.fill_(checkpoint.epoch * self.steps_per_epoch)

    def copy_in(self, vector: Tensor, tensors: Tensors):
        for (name, _), part in zip(self.model.named_parameters(), self.views(vector)):
            part.copy_(tensors[name])

    def tensors(self) -> dict[str, dict]:
        """What a checkpoint keeps of the state, with the versions that it was made with."""
        last = self.copy_out(self.weights)
        tested = last if self.ema is None else self.copy_out(self.ema)
        optimizer = {kind: self.copy_out(vector) for kind, vector in self.vectors.items()}
        return {"tested": tested, "last": last, "optimizer": optimizer, "versions": versions(self.images.device)}

    def copy_out(self, vector: Tensor) -> Tensors:
        names = [name for name, _ in self.model.named_parameters()]
        return dict(zip(names, self.views(vector.cpu().clone())))


def flatten(model: nn.Module) -> Tensor:
    """Lay the model's parameters one after the other in one vector, which is returned: they become views of it."""
    parameters = list(model.parameters())
    vector = torch.cat([p.detach().flatten() for p in parameters])
    for p, part in zip(parameters, vector.split([p.numel() for p in parameters])):
        p.data = part.view(p.shape)
    return vector


@torch.no_grad()
def take_over(model: LeNet5, initial: LeNet5):
    """The weights of a network put into one that may have more classes; those start with the weights 0: undecided."""
    for name, parameter in model.named_parameters():
        given = initial.get_parameter(name)
        parameter.zero_()[: len(given)] = given
