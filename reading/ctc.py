"""Training the sweep to read numbers: its steps and its test, for the loop in training/loop.py.

The loss is CTC (A. Graves et al., "Connectionist Temporal Classification", ICML 2006): minus the log-probability of the
right digits, summed over all the places where they may stand; it is ctc_losses in reading/sweep.py. The steps draw
their own lines of digits. In an epoch each digit stands in one line, but for a few; about one line of fifteen is empty.
"""

import math

import numpy as np
import torch
from torch import Tensor

from digits.lines import sample_lines, split, training_lines
from digits.mnist import Digits
from model import LeNet5, normalize
from reading.sweep import best_path, ctc_losses, sweep
from training.recipes import Recipe
from training.state import State
from training.steps import Steps, follow, torch_optimizer

LONGEST = 8  # digits of a line
TEST_LINES = 1000
TEST_SEED = [0, 0, 4]  # of the lines of the test


def ctc(state: State, recipe: Recipe) -> Steps:
    """The steps on lines of the training digits, and the test on 1,000 lines of test digits."""
    optimizer = torch_optimizer(state, recipe)

    def run(order: Tensor):
        for chosen in order:
            lines, digits, counts = draw_lines(state, recipe, chosen)
            logits = sweep(state.model, normalize(lines))
            losses = ctc_losses(logits, digits, torch.from_numpy(counts))
            state.gradient.zero_()
            (recipe.loss_factor(len(digits)) * losses.sum()).backward()
            optimizer.step()
            follow(state)
            numbers = split(digits.tolist(), counts)
            correct = sum(reading == number for reading, number in zip(best_path(logits.detach()), numbers))
            state.totals += torch.tensor([losses.sum().item(), correct, len(losses)], device=state.totals.device)

    def evaluate(test_set: Digits, last: bool = False) -> dict[str, float]:
        return test_lines(state.model if last else state.tested, test_set)

    return Steps(run, evaluate, "plain", augments=True)


def draw_lines(state: State, recipe: Recipe, chosen: Tensor) -> tuple[Tensor, Tensor, np.ndarray]:
    """Lines uint8 (N, 32, W) of the digits `chosen` (B,), all of one random length; the digits, and each line's count.

    What is left over of the batch is dropped; the last lines are empty.
    """
    length = min(int(state.generator.integers(1, LONGEST + 1)), len(chosen))
    count = len(chosen) // length
    counts = np.array([length] * count + [0] * math.ceil(count / 16))
    chosen = chosen[: count * length]
    digits, how = state.labels[chosen].cpu(), (recipe.strength, recipe.elastic, state.generator, recipe.evened)
    lines = training_lines(state.images[chosen], digits.numpy(), counts, *how)
    return torch.from_numpy(lines).to(state.images.device), digits, counts


@torch.inference_mode()
def test_lines(model: LeNet5, test_set: Digits) -> dict[str, float]:
    """The mean loss of a line of these digits, and the share of lines that are read correctly."""
    losses, correct, device = [], [], next(model.parameters()).device
    for lines, numbers in sample_lines(test_set, TEST_LINES, np.random.default_rng(TEST_SEED)):
        logits = sweep(model, normalize(lines.to(device)))
        counts = torch.tensor([len(number) for number in numbers])
        losses += ctc_losses(logits, torch.tensor(sum(numbers, [])), counts).tolist()
        correct += [reading == number for reading, number in zip(best_path(logits), numbers)]
    return {"test_loss": sum(losses) / len(losses), "test_accuracy": sum(correct) / len(correct)}
