"""The steps of a training run on the CPU: the loops of kernels.py, working on the state's memory."""

import contextlib
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

from digits.mnist import Digits
from model import RBF, LeNet5, Squash, Subsampling, pad
from training.recipes import Recipe
from training.state import State
from training.steps import Steps, differentiate, test_row

PLAIN = "going on with model.py itself, about eight times slower"


def compiled(state: State, recipe: Recipe) -> Steps | None:
    """The loops of kernels.py, on one thread; None on other devices and, with a notice, for other networks or if they
    fail.
    """
    if state.weights.device.type != "cpu":
        return None
    if not covered(state, recipe):
        print(f"kernels.py has no loops for this network or loss; {PLAIN}")
        return None
    if not 0 <= int(state.labels.min()) <= int(state.labels.max()) <= 9:  # the loops check nothing
        raise ValueError("labels must be 0 to 9")
    try:
        from training import kernels

        if not kernels.ENABLED:
            raise ImportError("NUMBA_DISABLE_JIT is set")
        with notice_of_compiling(kernels.CACHED):
            steps, gradient = loops(kernels, state, recipe)
            difference = distance(state, recipe, gradient)
    except Exception as error:  # whatever is wrong with numba, its compiler or its cache must not stop a training
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        print(f"no compiled loops here ({reason}); {PLAIN}")
        return None
    if not difference < 1e-3:
        print(f"the gradient of kernels.py is {difference:.1%} off that of model.py, which now takes the steps itself")
        return None
    return steps


def covered(state: State, recipe: Recipe) -> bool:
    """Whether kernels.py computes this network and loss."""
    model, activation = state.model, state.model.squash
    return (
        recipe.model_arguments.get("classes", 10) == 10
        and isinstance(model.s2, Subsampling)
        and (type(activation) is Squash or type(activation) is nn.ReLU and recipe.loss == "cross-entropy")
    )


ALWAYS_WINS = -1e4


def loops(kernels, state: State, recipe: Recipe) -> tuple[Steps, Callable[[Tensor], np.ndarray]]:
    """The compiled steps; and gradient(chosen), that of the batch `chosen`, int64 (B,), as a flat vector."""
    model, c3 = state.model, state.model.c3
    table = c3.connections if hasattr(c3, "connections") else torch.cartesian_prod(torch.arange(16), torch.arange(6)).T
    rbf = {"codes": model.output.codes.numpy(), "factor": model.output.factor} if isinstance(model.output, RBF) else {}
    # Eq. 8 is eq. 9 with a rubbish class that always wins: E = y_D + log(exp(-j) + 0) = y_D - j.
    j = ALWAYS_WINS if recipe.loss == "eq. 8" else recipe.j
    relu = isinstance(model.squash, nn.ReLU)
    network = kernels.network(np.float32, table.numpy(), **rbf, j=j, relu=relu, targets=state.targets)
    buffers = kernels.buffers(kernels.SINGLE if state.batch_size == 1 else kernels.BATCH, np.float32)
    # Views of the state's memory: what the loops write, the state has.
    weights, images, labels = state.weights.numpy(), state.images.numpy(), state.labels.numpy()
    vectors = {kind: vector.numpy() for kind, vector in state.vectors.items()}
    ema = None if state.ema is None else state.ema.numpy()
    if recipe.optimizer == "adam":
        optimizer = kernels.adam(vectors["exp_avg"], vectors["exp_avg_sq"], ema, state.steps_per_epoch)
    else:
        optimizer = kernels.levenberg_marquardt(vectors["rate"])

    def run(order: Tensor):
        if not 0 <= int(order.min()) <= int(order.max()) < len(labels):
            raise IndexError("order names digits that are not there")
        rate, taken, factor = state.learning_rate.item(), int(state.step_count[0]), recipe.loss_factor(order.shape[1])
        digits = images, labels, np.ascontiguousarray(order.numpy())
        totals = state.totals.numpy()
        kernels.steps(
            weights, state.gradient.numpy(), optimizer, rate, taken, *digits, factor, totals, network, buffers
        )
        state.step_count += len(order)
        totals[2] += order.numel()
        if recipe.loss == "eq. 8":
            totals[0] += j * order.numel()

    def logits(model: LeNet5, images: Tensor) -> Tensor:
        vector = torch.cat([p.detach().flatten() for p in model.parameters()])
        return torch.from_numpy(kernels.logits(vector.numpy(), images.numpy(), network, buffers))

    def evaluate(test_set: Digits, last: bool = False) -> dict[str, float]:
        return test_row(recipe, logits(state.model if last else state.tested, pad(test_set[0])), test_set[1])

    def gradient(chosen: Tensor) -> np.ndarray:
        factor = recipe.loss_factor(len(chosen))
        return kernels.gradient(weights, images, labels, chosen.numpy(), factor, network, buffers)

    return Steps(run, evaluate, "compiled", logits=logits), gradient


def distance(state: State, recipe: Recipe, gradient: Callable[[Tensor], np.ndarray]) -> float:
    """How far the loops' gradient of the first batch is from that of automatic differentiation, relative to its norm.

    numba's cache cannot notice a constant that was changed in model.py. Leaves autograd's gradient in the state.
    """
    chosen = torch.arange(state.batch_size)
    found = torch.from_numpy(gradient(chosen))
    differentiate(state, recipe, chosen)
    least = recipe.loss_factor(len(chosen)) * len(chosen)  # the gradient of a trained network is all rounding
    return ((found - state.gradient).norm() / max(state.gradient.norm(), least)).item()


@contextlib.contextmanager
def notice_of_compiling(cached: bool):
    """Say so when numba begins to compile: it has kept no machine code of these loops for this machine."""
    from numba.core import event

    again = "once" if cached else "at each start, since numba finds no folder for its cache (NUMBA_CACHE_DIR names one)"
    lines = [f"compiling the loops of kernels.py, {again}; this takes about half a minute ..."]

    class Notice(event.Listener):
        def on_start(self, compiling):
            if lines:  # each loop is compiled, and one line is enough
                print(lines.pop())

        def on_end(self, compiling):
            pass

    with event.install_listener("numba:compile", Notice()):
        yield
