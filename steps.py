"""The ways to take the same optimizer steps. Each is made for a training.State and a recipe, and has two functions:

run(order)      takes a step for each row of order, int64 (steps, batch size), on the digits of these numbers. It reads
                the state's images, labels and learning rate, and writes weights, running average, the optimizer's
                vectors and steps, and totals, all in place.
scores(images)  gives the class scores (N, 10) of images uint8 (N, 32, 32) by the weights that are reported.

plain is the textbook step; read it first. recorded is plain as a CUDA graph. compiled is kernels.py, on the CPU.
"""

import collections
import contextlib
import threading
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from model import RBF, Squash, Subsampling, scale
from recipes import Recipe
from utils import class_scores


class Steps(NamedTuple):
    path: str  # "plain", "recorded" or "compiled"
    run: Callable[[Tensor], None]
    scores: Callable[[Tensor], Tensor]


def fastest(state, recipe: Recipe) -> Steps:
    """The fastest way on the state's device that computes the recipe's network and loss."""
    if state.weights.device.type == "cuda":
        return recorded(state, recipe)
    return compiled(state, recipe) or plain(state, recipe)


def plain(state, recipe: Recipe) -> Steps:
    """model.py, automatic differentiation, and an optimizer of torch.optim's kind."""

    def run(order: Tensor):
        for chosen in order:
            losses, right = differentiate(state, recipe, chosen)
            state.optimizer.step()
            if recipe.average:  # of all steps in the first epoch, exponential from then on
                share = state.steps[0].clamp(max=state.steps_an_epoch).reciprocal()
                state.average.lerp_(state.weights, share)
            state.totals[0] += losses
            state.totals[1] += right

    def scores(images: Tensor) -> Tensor:
        return class_scores(state.reported, images)

    return Steps("plain", run, scores)


def differentiate(state, recipe: Recipe, chosen: Tensor) -> tuple[Tensor, Tensor]:
    """Fill state.gradient with that of the batch `chosen` (B,); the sum of its losses, and how many are right."""
    images, labels = scale(state.images[chosen]), state.labels[chosen]  # (B, 1, 32, 32), (B,)
    scores = state.model(images)  # (B, 10)
    losses = recipe.losses(scores, labels)  # (B,)
    state.gradient.zero_()
    (recipe.scale_of(len(chosen)) * losses.sum()).backward()
    return losses.detach().sum(), (scores.argmax(1) == labels).sum()


# ---------------------------------------------------------------------------------------------- recorded

RECORDED = 25  # steps in one graph
AHEAD = 4  # graphs started before the first of them has ended


def recorded(state, recipe: Recipe) -> Steps:
    """`plain`, 25 steps of it recorded as one CUDA graph, which is then replayed; `plain` itself if that fails.

    Starting a step's hundred and more small kernels one by one takes longer than running them.
    """
    _, run_plain, scores = plain(state, recipe)
    static = torch.zeros(RECORDED, state.batch_size, dtype=torch.int64, device=state.labels.device)  # the graph's order
    graph = record(lambda: run_plain(static), changed_by(state))
    if graph is None:
        return Steps("plain", run_plain, scores)
    started = collections.deque()

    def run(order: Tensor):
        for part in order.split(RECORDED):
            if part.shape != static.shape:
                run_plain(part)
                continue
            static.copy_(part)
            graph.replay()
            started.append(torch.cuda.Event())
            started[-1].record()
            if len(started) > AHEAD:  # so that the progress bar shows the steps that are done
                started.popleft().synchronize()

    return Steps("recorded", run, scores)


def changed_by(state) -> list[Tensor]:
    """The tensors that a step writes."""
    average = [] if state.average is None else [state.average]
    return [state.weights, state.gradient, *average, state.steps, *state.vectors.values(), state.totals]


def record(work: Callable[[], None], changed: list[Tensor]) -> torch.cuda.CUDAGraph | None:
    """`work` as a CUDA graph, or None, with a notice, if it cannot be recorded. What the warm-up changes is undone."""
    before = [tensor.clone() for tensor in changed]
    stream_before = torch.cuda.current_stream(changed[0].device)
    graph = torch.cuda.CUDAGraph()
    try:
        # A fresh side stream for each recording: the graph's end frees the cuBLAS workspace of its stream.
        stream = torch.cuda.Stream(changed[0].device)
        stream.wait_stream(stream_before)
        with torch.cuda.stream(stream):
            work()
        stream_before.wait_stream(stream)
        with torch.cuda.graph(graph, stream=stream):
            work()
    except RuntimeError as error:
        torch.cuda.set_stream(stream_before)  # a failing end of the capture leaves the side stream in place
        print(f"no CUDA graph here ({str(error).splitlines()[0]}); going on step by step, slower")
        return None
    finally:
        for tensor, value in zip(changed, before):
            tensor.copy_(value)
    return graph


# ---------------------------------------------------------------------------------------------- compiled


def compiled(state, recipe: Recipe) -> Steps | None:
    """The loops of kernels.py, on one thread; None where they do not cover the network, or, with a notice, fail."""
    if not covered(state, recipe):
        return None
    if not 0 <= int(state.labels.min()) <= int(state.labels.max()) <= 9:  # the loops check nothing
        raise ValueError("labels must be 0 to 9")
    try:
        import kernels

        if not kernels.ENABLED:
            raise ImportError("NUMBA_DISABLE_JIT is set")
        with notice_of_compiling(kernels.CACHED):
            steps, take = loops(kernels, state, recipe)
            steps.scores(state.images[:1])
            difference = distance(state, recipe, take)
    except Exception as error:  # whatever is wrong with numba, its compiler or its cache must not stop a training
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        print(f"no compiled loops here ({reason}); going on with model.py itself, about ten times slower")
        return None
    if not difference < 1e-3:
        print(f"the gradient of kernels.py is {difference:.1%} off that of model.py, which now takes the steps itself")
        return None
    return steps


def covered(state, recipe: Recipe) -> bool:
    """Whether kernels.py computes this network and loss."""
    model, activation = state.model, state.model.squash
    return (
        state.weights.device.type == "cpu"
        and isinstance(model.s2, Subsampling)
        and (type(activation) is Squash or type(activation) is nn.ReLU and recipe.loss == "cross-entropy")
    )


ALWAYS_WINS = -1e4


def loops(kernels, state, recipe: Recipe) -> tuple[Steps, Callable]:
    """The compiled steps; and take(optimizer, order, totals), which takes them for another optimizer of kernels.py."""
    model, c3 = state.model, state.model.c3
    table = c3.connections if hasattr(c3, "connections") else torch.cartesian_prod(torch.arange(16), torch.arange(6)).T
    codes = model.output.codes.numpy() if isinstance(model.output, RBF) else None
    # Eq. 8 is eq. 9 with a rubbish class that always wins: E = y_D + log(exp(-j) + 0) = y_D - j.
    j = ALWAYS_WINS if recipe.loss == "eq. 8" else recipe.j
    network = kernels.network(np.float32, table.numpy(), codes, j, relu=isinstance(model.squash, nn.ReLU))
    # Views of the state's memory: what the loops write, the state has.
    weights, gradient = state.weights.numpy(), state.gradient.numpy()
    images, labels = state.images.numpy(), state.labels.numpy()
    vectors = {kind: vector.numpy() for kind, vector in state.vectors.items()}
    average = None if state.average is None else state.average.numpy()
    if recipe.optimizer == "adam":
        own = kernels.adam(vectors["exp_avg"], vectors["exp_avg_sq"], average, state.steps_an_epoch)
    else:
        own = kernels.levenberg_marquardt(vectors["rate"])
    batches = kernels.buffers(kernels.BATCH, np.float32)
    if state.batch_size == 1:
        take_steps, buffers = kernels.single_steps, kernels.buffers(kernels.SINGLE, np.float32)
    else:
        take_steps, buffers = kernels.batch_steps, batches

    def take(optimizer, order: Tensor, totals: np.ndarray):
        if not 0 <= int(order.min()) <= int(order.max()) < len(labels):
            raise IndexError("order names digits that are not there")
        rate, taken, factor = state.learning_rate.item(), int(state.steps[0]), recipe.scale_of(order.shape[1])
        order = np.ascontiguousarray(order.numpy())
        take_steps(weights, gradient, optimizer, rate, taken, images, labels, order, factor, totals, network, buffers)

    def run(order: Tensor):
        take(own, order, state.totals.numpy())
        state.steps += len(order)
        if recipe.loss == "eq. 8":
            state.totals[0] += j * order.numel()

    def scores(images: Tensor) -> Tensor:
        result = np.empty((len(images), 10), np.float32)
        kernels.batch_scores(weights if average is None else average, images.numpy(), result, network, batches)
        return torch.from_numpy(result)

    return Steps("compiled", run, scores), take


def distance(state, recipe: Recipe, take: Callable) -> float:
    """How far the loops' gradient of the first batch is from that of automatic differentiation, relative to its norm.

    numba's cache cannot notice a constant that was changed in model.py.
    """
    import kernels

    order = torch.arange(state.batch_size).unsqueeze(0)
    take(kernels.levenberg_marquardt(np.zeros(len(state.weights), np.float32)), order, np.zeros(2))  # moves nothing
    found = state.gradient.clone()
    differentiate(state, recipe, order[0])
    least = recipe.scale_of(state.batch_size) * state.batch_size  # the gradient of a trained network is all rounding
    return ((found - state.gradient).norm() / max(state.gradient.norm(), least)).item()


@contextlib.contextmanager
def notice_of_compiling(cached: bool):
    """Say so if what is done takes longer than loading machine code from numba's cache does."""
    again = "once" if cached else "at each start, since numba finds no folder for its cache (NUMBA_CACHE_DIR names one)"
    timer = threading.Timer(
        1.5, print, [f"compiling the loops of kernels.py, {again}; this takes about half a minute ..."]
    )
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
