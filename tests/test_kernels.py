"""The compiled loops: the function of model.py and its gradient; the steps of the optimizers; the bits."""

import os
import subprocess
import sys

import numba
import numpy as np
import pytest
import torch

import kernels
from model import RBF, LeNet5, TableConvolution, map_loss, pad, scale

NETWORKS = {  # by name: the arguments of LeNet5, and j of eq. 9
    "linear": ({}, None),
    "RBF": ({"output": "rbf"}, 1.0),
    "ReLU": ({"activation": "relu"}, None),
    "full C3": ({"connection": "full"}, None),
}


def digits(count, seed=0):
    """Random pictures, uint8 (count, 32, 32), with grey ink on the background, and labels."""
    random = np.random.default_rng(seed)
    ink = random.integers(0, 256, (count, 28, 28)) * (random.random((count, 28, 28)) < 0.3)
    return pad(torch.from_numpy(ink.astype(np.uint8))), torch.from_numpy(random.integers(0, 10, count))


def flat(tensors):
    return torch.cat([tensor.detach().flatten() for tensor in tensors]).numpy()


class Loops:
    """The loops for a model of model.py, with copies of its parameters in one vector."""

    def __init__(self, model, j, dtype):
        c3 = model.c3
        every = np.argwhere(np.ones((16, 6))).T
        connections = c3.connections.numpy() if isinstance(c3, TableConvolution) else every
        codes = model.output.codes.numpy() if isinstance(model.output, RBF) else None
        relu = isinstance(model.squash, torch.nn.ReLU)
        self.network = kernels.network(dtype, connections, codes, j, relu)
        self.weights = flat(model.parameters()).astype(dtype)
        self.gradient = np.zeros_like(self.weights)
        self.totals = np.zeros(2)
        self.batches, self.one = (kernels.buffers(layout, dtype) for layout in (kernels.BATCH, kernels.SINGLE))

    def take(self, optimizer, order, images, labels, factor, taken=0, learning_rate=0.0005):
        steps = kernels.single_steps if order.shape[1] == 1 else kernels.batch_steps
        buffers = self.one if order.shape[1] == 1 else self.batches
        arrays = (images.numpy(), labels.numpy(), order, factor, self.totals, self.network, buffers)
        steps(self.weights, self.gradient, optimizer, learning_rate, taken, *arrays)

    def differentiate(self, images, labels, factor):
        """The gradient of one batch of all images, by a step of rate 0."""
        still = kernels.levenberg_marquardt(np.zeros_like(self.weights))
        self.take(still, np.arange(len(labels))[None], images, labels, factor)
        return self.gradient


def network(name, dtype=torch.float32):
    torch.manual_seed(1)
    arguments, j = NETWORKS[name]
    return LeNet5(**arguments).to(dtype), j


def differentiate(model, j, images, labels, factor):
    """By automatic differentiation: gradient, sum of the losses, correct answers."""
    model.zero_grad()
    scores = model(scale(images, next(model.parameters()).dtype))
    losses = map_loss(scores, labels, j).sum()
    (factor * losses).backward()
    return flat(p.grad for p in model.parameters()), losses.item(), int((scores.argmax(1) == labels).sum())


def distance(one, other):
    return np.linalg.norm(one - other) / np.linalg.norm(other)


@pytest.mark.parametrize("count", [1, 5, 33, 70])
@pytest.mark.parametrize("name", NETWORKS)
def test_in_double_precision_the_gradient_is_that_of_automatic_differentiation(name, count):
    model, j = network(name, torch.float64)
    images, labels = digits(count)
    loops = Loops(model, j, np.float64)
    found = loops.differentiate(images, labels, 0.05)
    expected, losses, right = differentiate(model, j, images, labels, 0.05)
    assert distance(found, expected) < 1e-10
    assert loops.totals.tolist() == pytest.approx([losses, right], rel=1e-10)


@pytest.mark.parametrize("count", [1, 32])
@pytest.mark.parametrize("name", ["linear", "RBF"])
def test_in_single_precision_the_gradient_is_no_farther_off_than_the_plain_one(name, count):
    far = []
    for seed in range(4):
        images, labels = digits(count, seed)
        exact, *_ = differentiate(*network(name, torch.float64), images, labels, 0.05)
        plain, *_ = differentiate(*network(name), images, labels, 0.05)
        found = Loops(*network(name), np.float32).differentiate(images, labels, 0.05)
        far.append([distance(found.astype(float), exact), distance(plain.astype(float), exact)])
    loops, plain = np.mean(far, 0)
    assert loops < 2 * plain


def test_tanh_is_within_a_millionth_over_all_of_single_precision():
    @numba.njit
    def all_of(x):
        return np.array([kernels.tanh(u) for u in x])

    bits = np.linspace(0, np.float32(np.finfo(np.float32).max).view(np.uint32), 400_001).astype(np.uint32)
    positive = np.concatenate([bits.view(np.float32), np.linspace(0, 20, 200_001, dtype=np.float32)])
    for u in positive, -positive:
        assert np.abs(all_of(u) - np.tanh(u.astype(float))).max() < 1e-6


@pytest.mark.parametrize(("size", "name"), [(32, "linear"), (1, "linear")])
def test_300_steps_of_adam_are_those_of_pytorch(size, name):
    model, j = network(name)
    images, labels = digits(320)
    loops = Loops(model, j, np.float32)
    first, second, average = (np.zeros_like(loops.weights) for _ in range(3))
    average[:] = loops.weights
    order = np.random.default_rng(0).integers(0, 320, (300, size))
    optimizer = kernels.adam(first, second, average, steps_per_epoch=100)
    loops.take(optimizer, order[:130], images, labels, 1 / size)
    loops.take(optimizer, order[130:], images, labels, 1 / size, taken=130)

    adam = torch.optim.Adam(model.parameters(), lr=0.0005)
    expected = flat(model.parameters())
    for step, chosen in enumerate(order, 1):
        differentiate(model, j, images[chosen], labels[chosen], 1 / size)
        adam.step()
        expected += (flat(model.parameters()) - expected) / min(step, 100)
    assert distance(loops.weights, flat(model.parameters())) < 1e-3
    assert distance(average, expected) < 1e-3


@pytest.mark.parametrize("size", [1, 40])
def test_steps_of_levenberg_marquardt_are_rates_times_gradients(size):
    model, j = network("RBF")
    images, labels = digits(80)
    loops = Loops(model, j, np.float32)
    rate = np.random.default_rng(1).uniform(0, 0.02, len(loops.weights)).astype(np.float32)
    order = np.random.default_rng(2).integers(0, 80, (20, size))
    loops.take(kernels.levenberg_marquardt(rate), order, images, labels, 0.05 / size)
    parts = torch.from_numpy(rate).split([p.numel() for p in model.parameters()])
    for chosen in order:
        differentiate(model, j, images[chosen], labels[chosen], 0.05 / size)
        with torch.no_grad():
            for p, part in zip(model.parameters(), parts):
                p -= part.view_as(p) * p.grad
    assert distance(loops.weights, flat(model.parameters())) < 1e-4


@pytest.mark.parametrize("name", NETWORKS)
def test_scores_are_those_of_the_network(name):
    model, j = network(name)
    loops = Loops(model, j, np.float32)
    for count in (1, 32, 45):
        images, _ = digits(count)
        found = np.full((count, 10), np.nan, np.float32)
        kernels.batch_scores(loops.weights, images.numpy(), found, loops.network, loops.batches)
        np.testing.assert_allclose(found, model(scale(images)).detach().numpy(), rtol=1e-5, atol=1e-4)


def test_weights_that_overflow_end_and_show():
    model, j = network("linear")
    images, labels = digits(64)
    loops = Loops(model, j, np.float32)
    order = np.arange(64).reshape(2, 32)
    loops.take(kernels.levenberg_marquardt(np.full_like(loops.weights, 1e38)), order, images, labels, 1e3)
    assert not np.isfinite(loops.weights).all()


CHILD = """
import sys, hashlib
sys.path[:0] = [ROOT, ROOT + "/tests"]
from test_kernels import Loops, digits, kernels, network
import numpy as np
loops = Loops(*network("RBF"), np.float32)
order = np.random.default_rng(0).integers(0, 80, (50, 1))
loops.take(kernels.levenberg_marquardt(np.full_like(loops.weights, 0.01)), order, *digits(80), 0.05)
print(sum(kernels.single_steps.stats.cache_hits.values()), hashlib.sha256(loops.weights.tobytes()).hexdigest())
"""


def test_a_process_that_compiles_and_one_that_loads_the_cache_give_the_same_bits(tmp_path):
    code = CHILD.replace("ROOT", repr(os.path.dirname(kernels.__file__)))
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path)}
    runs = [subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
            for _ in range(2)]  # fmt: skip
    (hits, compiled), (hits_later, loaded) = (run.stdout.split() for run in runs)
    assert (hits, hits_later) == ("0", "1")
    assert compiled == loaded
