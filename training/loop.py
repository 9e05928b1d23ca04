"""The training of LeNet-5: the loop."""

import contextlib
import functools
import time
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from digits.augmentation import AugmentedImages
from digits.mnist import Data
from model import LeNet5
from training.checkpoint import LARGEST_WEIGHT, Checkpoint
from training.compiled import compiled
from training.recipes import Recipe
from training.state import State
from training.steps import Steps, cuda_graph, plain
from utils import UserError

SHUFFLE, AUGMENTATION, CURVATURE, STEPS = range(4)  # what random numbers are drawn for
DIVERGED = 1.5  # times the initial weights' loss: squashing keeps even a diverging loss finite
CHUNK = 100  # steps taken at once: between two looks at the progress bar, and at a learning rate that changes


def fastest(state: State, recipe: Recipe) -> Steps:
    """The fastest steps on the state's device that compute the recipe's network and loss."""
    if state.weights.device.type == "cuda":
        return cuda_graph(state, recipe)
    return compiled(state, recipe) or plain(state, recipe)


def train(
    recipe: Recipe,
    data: Data,
    seed: int,
    found: Checkpoint | None = None,
    make_steps: Callable[[State, Recipe], Steps] = fastest,
    initial: LeNet5 | None = None,
    progress: Callable[[int, int, Tensor], None] | None = None,
    committee: Sequence[LeNet5] = (),
) -> Iterator[Checkpoint]:
    """Train, and yield a checkpoint after each epoch; from `found` on, bit for bit as if it had never stopped.

    `make_steps` makes what takes the steps: `fastest`, steps.plain, or that of reading/ctc.py. `initial` is a network
    whose weights are the first ones. `progress` is called after every few steps with the epoch, the number of digits
    seen in it, and the totals of State. `committee` are the teachers of a recipe that has some. While it runs, PyTorch
    has one thread and torch's generator its seed.

    Raises UserError if an epoch leaves weights that are far too large, or has a loss above DIVERGED times that of the
    initial weights; ValueError unless the committee has as many networks as the recipe has teachers.
    """
    if len(committee) != recipe.teachers:
        raise ValueError(f"the recipe has {recipe.teachers} teachers: hand their networks, of `teachers`, as committee")
    state = State(recipe, seed, data.train, initial)
    steps = make_steps(state, recipe)
    augmented = None if steps.augments else augmented_images(data.train[0], recipe, seed)
    history = []
    with one_thread():
        initial_loss = steps.evaluate((data.train[0][:500], data.train[1][:500]))["test_loss"]
        if found:
            state.restore(found)
            history = list(found.history)

        for epoch in range(len(history) + 1, recipe.epochs + 1):
            start = time.perf_counter()
            state.learning_rate.fill_(recipe.learning_rate(epoch, 0.5))
            state.totals.zero_()
            state.generator = generator(seed, epoch, STEPS)
            if augmented:
                augmented.put(epoch, state.images)
            if committee:
                probabilities = [steps.logits(teacher, state.images).softmax(1) for teacher in committee]
                state.targets.copy_(sum(probabilities) / len(committee))
            if recipe.optimizer == "diagonal-lm":
                factor = recipe.loss_factor(state.batch_size)
                state.estimate_curvature(generator(seed, epoch, CURVATURE), factor, recipe.f6_curvature)
            digits = 0
            for order in shuffled(state, generator(seed, 1 if recipe.constant_order else epoch, SHUFFLE)):
                seen = epoch - 1 + (digits + order.numel() / 2) / len(state.labels)  # epochs, amid the chunk
                state.learning_rate.fill_(recipe.learning_rate(epoch, seen / recipe.epochs))
                steps.run(order)
                digits += order.numel()
                if progress:
                    progress(epoch, digits, state.totals)
            train_loss, train_accuracy = (state.totals[:2] / state.totals[2]).tolist()
            seconds = time.perf_counter() - start
            require_convergence(recipe, epoch, train_loss, initial_loss, state.weights)

            row = {"epoch": epoch, "train_loss": train_loss, "train_accuracy": train_accuracy}
            row |= {**steps.evaluate(data.test), "seconds": seconds, "path": steps.path}
            if recipe.ema and epoch == recipe.epochs:
                row["last_accuracy"] = steps.evaluate(data.test, last=True)["test_accuracy"]
            if recipe.optimizer == "diagonal-lm":
                row["step_range"] = [bound.item() for bound in state.vectors["rate"].aminmax()]
            history.append(row)
            yield Checkpoint(recipe, data.name, seed, list(history), **state.tensors())


def teachers(recipe: Recipe, data: Data, seed: int, make_steps: Callable[[State, Recipe], Steps] = fastest):
    """Train a recipe's teachers, from the seeds after its own, and yield the last checkpoint of each."""
    for own in range(seed + 1, seed + 1 + recipe.teachers):
        *_, trained = train(recipe.of_teachers, data, own, make_steps=make_steps)
        yield trained


@contextlib.contextmanager
def one_thread():
    """PyTorch on one thread: the bits are the same on any number of cores, and other load does little harm."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def augmented_images(images: Tensor, recipe: Recipe, seed: int) -> AugmentedImages | None:
    """What gives each epoch's augmented images, if the recipe asks for any: from images uint8 (N, 28, 28)."""
    if not recipe.augment:
        return None
    draws = functools.partial(generator, seed, purpose=AUGMENTATION)
    return AugmentedImages(images, recipe.strength, recipe.elastic, draws, recipe.epochs)


def generator(seed: int, epoch: int, purpose: int) -> np.random.Generator:
    """An epoch's random numbers for one purpose; drawn on the CPU, so that a seed means the same on every device."""
    return np.random.default_rng([seed, epoch, purpose])


def shuffled(state: State, draws: np.random.Generator) -> Iterator[Tensor]:
    """The digits' numbers in random order, in chunks of at most CHUNK steps: int64 (steps, batch size).

    Where the batch size does not divide the digits, the last chunk is one smaller batch.
    """
    order = torch.from_numpy(draws.permutation(len(state.labels))).to(state.labels.device)
    whole = len(order) - len(order) % state.batch_size
    yield from order[:whole].view(-1, state.batch_size).split(CHUNK)
    if whole < len(order):
        yield order[whole:].unsqueeze(0)


def require_convergence(recipe: Recipe, epoch: int, loss: float, initial_loss: float, weights: Tensor):
    """Raise UserError if the epoch's loss or its weights say that the training run diverges."""
    if not (loss < DIVERGED * initial_loss and weights.abs().max() < LARGEST_WEIGHT):
        kept = "; what was saved is kept" if epoch > 1 else ""
        raise UserError(
            f"the training diverged in epoch {epoch}: its loss is {loss:.4g}, that of the initial weights "
            f"{initial_loss:.4g}; take a smaller --lr than {recipe.learning_rates[0]:g}{kept}"
        )
