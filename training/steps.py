"""The ways to take the same optimizer steps. `plain` is the textbook step; read it first.

`plain` is model.py, automatic differentiation and torch.optim. `cuda_graph` is `plain`, many steps at a time.
training/compiled.py has the loops of kernels.py, for the CPU, and reading/ctc.py the steps on lines of digits.
"""

import collections
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from digits.mnist import Digits
from model import LeNet5, normalize, pad
from training.optimizer import DiagonalLM
from training.recipes import Recipe
from training.state import State
from utils import class_logits


class Steps(NamedTuple):
    """What takes the steps of a training run: made for a State and a recipe.

    Neither function replaces a tensor of the state, or knows epochs, files or progress bars.
    """

    # Take a step for each row of order, int64 (steps, batch size), on the digits of these numbers. Reads the state's
    # images, labels and learning rate; writes weights, moving average, optimizer tensors and totals, all in place.
    run: Callable[[Tensor], None]
    # What a test adds to the row of history: test_loss and test_accuracy of images (N, 28, 28) and labels (N,).
    # evaluate(test_set, last=True) is the same by the last weights where the moving average is tested.
    evaluate: Callable[..., dict[str, float]]
    path: str  # which way it is: "plain", "cuda_graph" or "compiled"
    augments: bool = False  # whether `run` augments what it reads itself
    # The logits (N, 10) of a network of the recipe for images uint8 (N, 32, 32).
    logits: Callable[[LeNet5, Tensor], Tensor] = class_logits


def plain(state: State, recipe: Recipe) -> Steps:
    """model.py, automatic differentiation, and an optimizer of torch.optim's kind."""
    optimizer = torch_optimizer(state, recipe)

    def run(order: Tensor):
        for chosen in order:
            losses, correct = differentiate(state, recipe, chosen)
            optimizer.step()
            if recipe.ema:
                follow(state)
            state.totals[0] += losses
            state.totals[1] += correct
            state.totals[2] += len(chosen)

    def evaluate(test_set: Digits, last: bool = False) -> dict[str, float]:
        images, labels = test_set
        return test_row(recipe, class_logits(state.model if last else state.tested, pad(images)), labels)

    return Steps(run, evaluate, "plain")


def differentiate(state: State, recipe: Recipe, chosen: Tensor) -> tuple[Tensor, Tensor]:
    """Fill state.gradient with that of the batch `chosen` (B,); the sum of its losses, and how many are correct."""
    images, labels = normalize(state.images[chosen]), state.labels[chosen]  # (B, 1, 32, 32), (B,)
    logits = state.model(images)  # (B, 10)
    if state.targets is None:
        losses = recipe.losses(logits, labels)  # (B,)
    else:
        losses = cross_entropy(logits, state.targets[chosen], reduction="none")
    state.gradient.zero_()
    (recipe.loss_factor(len(chosen)) * losses.sum()).backward()
    return losses.detach().sum(), (logits.argmax(1) == labels).sum()


def follow(state: State):
    """Move the average towards the weights: the mean of all steps in the first epoch, exponential from then on."""
    share = state.step_count[0].clamp(max=state.steps_per_epoch).reciprocal()
    state.ema.lerp_(state.weights, share)


def test_row(recipe: Recipe, logits: Tensor, labels: Tensor) -> dict[str, float]:
    """What a row of history says of the test set: logits (N, 10) and labels (N,)."""
    correct = int((logits.argmax(1) == labels).sum())
    return {"test_loss": recipe.losses(logits, labels).mean().item(), "test_accuracy": correct / len(labels)}


def torch_optimizer(state: State, recipe: Recipe) -> torch.optim.Optimizer:
    """The recipe's optimizer, working on the state's vectors. Making one imports much of PyTorch: a second."""
    lr, device = recipe.learning_rates[0], state.weights.device.type
    if recipe.optimizer == "diagonal-lm":  # all weights are one parameter to it
        state.weights.grad = state.gradient
        optimizer = DiagonalLM([state.weights], lr)
        optimizer.state[state.weights] = {"step": state.step_count[0], **state.vectors}
    else:
        fused = device in ("cpu", "cuda", "mps")
        optimizer = torch.optim.Adam(state.model.parameters(), lr, fused=fused, capturable=device == "cuda")
        views = {kind: state.views(vector) for kind, vector in state.vectors.items()}
        for i, parameter in enumerate(state.model.parameters()):
            entries = {kind: parts[i] for kind, parts in views.items()}
            optimizer.state[parameter] = {"step": state.step_count[i], **entries}
    optimizer.param_groups[0]["lr"] = state.learning_rate
    return optimizer


# ---------------------------------------------------------------------------------------------- CUDA

STEPS_PER_GRAPH = 25
AHEAD = 4  # graphs started before the first of them has ended


def cuda_graph(state: State, recipe: Recipe) -> Steps:
    """`plain`, 25 steps of it captured as one CUDA graph, which is then replayed; `plain` itself if that fails.

    Starting a step's hundred and more small kernels one by one takes longer than running them.
    """
    one_by_one = plain(state, recipe)
    static = torch.zeros(STEPS_PER_GRAPH, state.batch_size, dtype=torch.int64, device=state.labels.device)
    graph = capture(lambda: one_by_one.run(static), changed_by(state))
    if graph is None:
        return one_by_one
    started = collections.deque()

    def run(order: Tensor):
        for part in order.split(STEPS_PER_GRAPH):
            if part.shape != static.shape:
                one_by_one.run(part)
                continue
            static.copy_(part)
            graph.replay()
            started.append(torch.cuda.current_stream(static.device).record_event())
            if len(started) > AHEAD:  # so that the progress bar shows the steps that are done
                started.popleft().synchronize()

    return Steps(run, one_by_one.evaluate, "cuda_graph")


def changed_by(state: State) -> list[Tensor]:
    """The tensors that a step writes."""
    ema = [] if state.ema is None else [state.ema]
    return [state.weights, state.gradient, *ema, state.step_count, *state.vectors.values(), state.totals]


def capture(work: Callable[[], None], changed: list[Tensor]) -> torch.cuda.CUDAGraph | None:
    """`work` as a CUDA graph, or None, with a notice, if it cannot be captured. What the warm-up changes is undone."""
    before = [tensor.clone() for tensor in changed]
    stream_before = torch.cuda.current_stream(changed[0].device)
    graph = torch.cuda.CUDAGraph()
    try:
        # A fresh side stream for each capture: the graph's end frees the cuBLAS workspace of its stream.
        stream = torch.cuda.Stream(changed[0].device)
        stream.wait_stream(stream_before)
        with torch.cuda.stream(stream):
            work()
        stream_before.wait_stream(stream)
        with torch.cuda.graph(graph, stream=stream):
            work()
    except RuntimeError as error:
        torch.cuda.set_stream(stream_before)  # a failing end of the capture leaves the side stream in place
        while error.__context__:  # the first error; those after it only say that the capture has failed
            error = error.__context__
        print(f"no CUDA graph here ({str(error).splitlines()[0]}); going on step by step, slower")
        return None
    finally:
        for tensor, value in zip(changed, before):
            tensor.copy_(value)
    return graph
