"""Where the time of a compiled step goes, layer by layer.

Compiles the parts of kernels.py's step of 32 digits one by one, and runs each many times on one thread. A figure is the
median over rounds. Parts that are compiled alone are not quite the whole, so their sum is set beside the step itself.
Nothing else should run on the machine meanwhile.
"""

import statistics
import time

import numpy as np
import torch
from numba import njit

from experiments import results, runner
from experiments.benchmark import cpu
from model import LeNet5
from training import kernels, provenance
from training.kernels import BATCH, LANES, OPTIONS
from training.state import flatten

ROUNDS, REPEATS = 15, 50


@njit(**OPTIONS)
def input_layer(t, g, net, v, images):
    kernels.load(images, v.chosen, net, v.x, LANES)


@njit(**OPTIONS)
def c1(t, g, net, v, images):
    for m in range(6):
        kernels.convolution(v.x, t.c1[m : m + 1], net.c1_from, t.c1_bias[m], net, v.c1[m], 14, LANES)


@njit(**OPTIONS)
def s2(t, g, net, v, images):
    for m in range(6):
        kernels.subsample(v.c1[m], t.s2[m], t.s2_bias[m], net, v.s2_sums[m], v.s2[m], LANES)


@njit(**OPTIONS)
def c3(t, g, net, v, images):
    for m in range(16):
        n, end = net.c3_start[m], net.c3_start[m + 1]
        kernels.convolution(v.s2, t.c3[n:end], net.c3_from[n:end], t.c3_bias[m], net, v.c3[m], 10, LANES)


@njit(**OPTIONS)
def s4(t, g, net, v, images):
    for m in range(16):
        kernels.subsample(v.c3[m], t.s4[m], t.s4_bias[m], net, v.s4_sums[m], v.s4[m], LANES)


@njit(**OPTIONS)
def dense_layers(t, g, net, v, images):
    kernels.dense(v.s4.reshape(400 * LANES), t.c5, t.c5_bias, v.c5, LANES)
    kernels.activate(v.c5, net)
    kernels.dense(v.c5, t.f6, t.f6_bias, v.f6, LANES)
    kernels.activate(v.f6, net)
    kernels.dense(v.f6, t.output.reshape(10, 84), t.output_bias, v.logits, LANES)


@njit(**OPTIONS)
def dense_layers_back(t, g, net, v, images):
    kernels.linear_back(v.logits, t.output.reshape(10, 84), v.d_f6, LANES)
    kernels.dense_gradient(v.logits, v.f6, v.transposed, g.output.reshape(10, 84), g.output_bias, LANES)
    kernels.times_slope(v.d_f6, v.f6, net)
    kernels.dense_gradient(v.d_f6, v.c5, v.transposed, g.f6, g.f6_bias, LANES)
    kernels.dense_back(v.d_f6, t.f6, v.d_c5, LANES)
    kernels.times_slope(v.d_c5, v.c5, net)
    kernels.dense_gradient(v.d_c5, v.s4.reshape(400 * LANES), v.transposed, g.c5, g.c5_bias, LANES)
    kernels.dense_back(v.d_c5, t.c5, v.d_s4.reshape(400 * LANES), LANES)


@njit(**OPTIONS)
def s4_back(t, g, net, v, images):
    for m in range(16):
        dw, db = kernels.subsample_back(v.d_s4[m], v.s4[m], v.s4_sums[m], v.c3[m], t.s4[m], net, v.d_c3[m], LANES)
        g.s4[m] += dw
        g.s4_bias[m] += db


@njit(**OPTIONS)
def c3_gradient(t, g, net, v, images):
    for m in range(16):
        n, end = net.c3_start[m], net.c3_start[m + 1]
        g.c3_bias[m] += kernels.total(v.d_c3[m].reshape(100 * LANES))
        kernels.convolution_gradient(v.d_c3[m], v.s2, net.c3_from[n:end], v.kernel_sums, g.c3[n:end], 10, LANES)


@njit(**OPTIONS)
def c3_back(t, g, net, v, images):
    v.d_s2[:] = 0
    for m in range(16):
        n, end = net.c3_start[m], net.c3_start[m + 1]
        kernels.convolution_back(v.d_c3[m], t.c3[n:end], net.c3_from[n:end], v.d_s2, 10, LANES)


@njit(**OPTIONS)
def s2_back(t, g, net, v, images):
    for m in range(6):
        dw, db = kernels.subsample_back(v.d_s2[m], v.s2[m], v.s2_sums[m], v.c1[m], t.s2[m], net, v.d_c1, LANES)
        g.s2[m] += dw
        g.s2_bias[m] += db


@njit(**OPTIONS)
def c1_gradient(t, g, net, v, images):
    for m in range(6):
        g.c1_bias[m] += kernels.total(v.d_c1.reshape(784 * LANES))
        kernels.convolution_gradient(v.d_c1, v.x, net.c1_from, v.kernel_sums, g.c1[m : m + 1], 14, LANES)


PARTS = {
    "input": input_layer,
    "C1": c1,
    "S2": s2,
    "C3": c3,
    "S4": s4,
    "C5, F6, output": dense_layers,
    "C5, F6, output: gradient, and dE/dx": dense_layers_back,
    "S4: gradient, and dE/dx": s4_back,
    "C3: gradient": c3_gradient,
    "C3: dE/dx": c3_back,
    "S2: gradient, and dE/dx": s2_back,
    "C1: gradient": c1_gradient,
}


@njit(**OPTIONS)
def adam(weights, gradient, optimizer):
    kernels.update(weights, gradient, optimizer, 0.0005, 100, (0, 0))


@njit
def prepare(vector, kernel_count):
    return kernels.layers(vector, kernel_count)


def main(name: str, words: list[str]):
    args = runner.parser(name).parse_args(words)
    torch.manual_seed(0)
    model = LeNet5()
    weights = flatten(model).numpy()
    gradient, first, second, ema = (np.zeros_like(weights) for _ in range(4))
    net = kernels.network(np.float32, model.c3.connections.numpy())
    buffers, optimizer = kernels.buffers(BATCH, np.float32), kernels.adam(first, second, ema, 1875)
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (LANES, 32, 32), np.uint8)
    labels, order, totals = random.integers(0, 10, LANES), np.arange(LANES)[None], np.zeros(3)
    buffers.chosen[:] = order[0]
    arrays = (prepare(weights, len(net.c3_from)), prepare(gradient, len(net.c3_from)), net, buffers, images)

    def step():
        rest = (images, labels, order, 1 / LANES, totals, net, buffers)
        kernels.steps(weights, gradient, optimizer, 0.0005, 100, *rest)

    calls = {part: (lambda function=function: function(*arrays)) for part, function in PARTS.items()}
    calls["Adam and moving average (EMA)"] = lambda: adam(weights, gradient, optimizer)
    calls["the step"] = step
    content = {"command": f"python -m experiments {name}", "microseconds": measure(calls)}
    content |= {"machine": cpu(), "versions": provenance.versions()}
    path = runner.folder(args.reference) / f"{name}.json"
    provenance.save_json(path, content)
    runner.report(name, tables(content), path, beside_reference=not args.reference)


def measure(calls: dict) -> dict[str, float]:
    """Microseconds of each, the median of interleaved rounds."""
    rounds = {name: [] for name in calls}
    for number in range(ROUNDS + 1):  # the first one compiles
        for name, call in calls.items():
            start = time.perf_counter()
            for _ in range(REPEATS if number else 1):
                call()
            rounds[name].append((time.perf_counter() - start) / REPEATS)
    return {name: 1e6 * statistics.median(seconds[1:]) for name, seconds in rounds.items()}


def tables(content: dict) -> dict[str, str]:
    """What docs/speed.md shows, in Markdown."""
    found = dict(content["microseconds"])
    step = found.pop("the step")
    rows = [[name, f"{time:.0f}", f"{100 * time / step:.0f}"] for name, time in found.items()]
    total = sum(found.values())
    rows.append(["sum of the parts", f"{total:.0f}", f"{100 * total / step:.0f}"])
    rows.append(["**the step**", f"**{step:.0f}**", "**100**"])
    return {"parts": results.markdown(["part of a step", "microseconds", "share, %"], rows)}
