"""LeNet-5's forward pass, gradient and training step as plain loops, which numba compiles for the CPU.

They do what model.py and an optimizer of torch.optim do, layer by layer in the same order, about eight times as fast:
for 32 digits PyTorch spends most of a step on starting its operations, and these loops start none. `forward` and
`backward`, near the end, read like the chain of layers in model.py; each calls a few short loops above it.

A batch is done in blocks of LANES digits ("patterns", in the paper), and the digit is the last index of every array:
one vector instruction does the same for many digits at once. What each loop computes, and why it is written as it is,
stands in docs/speed.md. Nothing is checked: labels must be 0 to 9, and indices within the images.
"""

from collections import namedtuple
from pathlib import Path

import llvmlite.binding
import numba
import numpy as np

from training import cache

LANES = 32
A, S = 1.7159, 2 / 3  # as in model.py: the squashing function is A tanh(S a)
BACKGROUND, INK = -0.1, 1.175  # as in model.py: the input's grey levels


def use_widest_vectors():
    """On Intel's AVX-512 servers LLVM makes vectors of half the width unless it is told otherwise, before it starts."""
    features = llvmlite.binding.get_host_cpu_features()
    chosen = numba.config.CPU_NAME or numba.config.CPU_FEATURES  # by the user
    if features.get("avx512f") and not chosen:
        numba.config.CPU_NAME = llvmlite.binding.get_host_cpu_name()
        numba.config.CPU_FEATURES = f"{features.flatten()},-prefer-256-bit"


use_widest_vectors()

# NUMBA_DISABLE_JIT leaves the loops to the interpreter, which takes for ever: don't call them then.
ENABLED = not numba.config.DISABLE_JIT
CACHED = True  # whether later processes find the machine code; set below

# Numba's cache notices a change of this file only, so all that is compiled is here. Inner functions are inlined by
# force: otherwise a process that compiles and one that loads the cache run different code, with different rounding.
OPTIONS = {"fastmath": True, "error_model": "numpy", "boundscheck": False, "nogil": True, "no_cfunc_wrapper": True}
INNER = {**OPTIONS, "forceinline": True, "no_cpython_wrapper": True}
inner = numba.njit(**INNER)


def outermost(function):
    """Compile at the first call, or load from numba's cache. Without a folder for the cache, do without one."""
    global CACHED
    try:
        return numba.njit(**OPTIONS, cache=True)(function)
    except RuntimeError:
        CACHED = False
        return numba.njit(**OPTIONS)(function)


# ---- What is handed to the loops: see the functions below that make them ----

Network = namedtuple("Network", "background grey A S relu c1_from c3_from c3_start codes factor j targets")
Optimizer = namedtuple("Optimizer", "rate first second ema period")
Layers = namedtuple("Layers", "c1 c1_bias s2 s2_bias c3 c3_bias s4 s4_bias c5 c5_bias f6 f6_bias output output_bias")

Buffers = namedtuple(
    "Buffers", "chosen x c1 s2_sums s2 c3 s4_sums s4 c5 f6 logits d_f6 d_c5 d_s4 d_c3 d_s2 d_c1 kernel_sums transposed"
)

# Lanes; the rows of a C1 map as the convolution sees them, and how many columns it takes at a time; the same of C3.
BATCH = (LANES, 28, 14, 10, 10)  # plain tuples: numba takes their numbers for constants
# With one lane, rows of C1 are stored as long as the input's (32), and those of S2 and C3 half as long (16), so that to
# the convolution a map is one row. It then computes the columns behind a map's last too, across the ends of rows. None
# that counts reads them, and their dE/da is 0: d_c3's are never written and stay 0, d_s2's and d_c1's follow from them.
SINGLE = (1, 1, 28 * 32, 1, 10 * 16)


def aligned(shape: tuple, dtype) -> np.ndarray:
    """Zeros that start at a multiple of 64 bytes, so that no vector of patterns lies in two cache lines."""
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    memory = np.zeros(size + 64, np.uint8)
    start = -memory.ctypes.data % 64
    return memory[start : start + size].view(dtype).reshape(shape)


def buffers(layout: tuple, dtype) -> Buffers:
    """What the loops work in, for numbers of this type: `layout` is BATCH or SINGLE."""
    lanes = layout[0]
    c1, s2, c3 = (28, 14, 10) if layout == BATCH else (32, 16, 16)  # columns
    # SINGLE reads a few numbers behind the last row of x and the last map of S2, and adds 0 behind the last of d_s2:
    # hence a row and a map more.
    shapes = {
        "x": (1, 33, 32),
        "c1": (6, 28, c1),
        "s2_sums": (6, 14, s2),
        "s2": (7, 14, s2),
        "c3": (16, 10, c3),
        "s4_sums": (16, 5, 5),
        "s4": (16, 5, 5),
        "c5": (120,),
        "f6": (84,),
        "logits": (10,),
        "d_f6": (84,),
        "d_c5": (120,),
        "d_s4": (16, 5, 5),
        "d_c3": (16, 10, c3),
        "d_s2": (7, 14, s2),
        "d_c1": (28, c1),  # one map at a time
        "kernel_sums": (5, 5),  # a kernel's gradient, each pattern by itself
        "transposed": (400,),  # the input of C5, F6 or y, a row a pattern
    }
    arrays = {name: aligned((*rest, last * lanes), dtype) for name, (*rest, last) in shapes.items()}
    return Buffers(np.zeros(lanes, np.int64), **arrays)


def network(dtype, connections, codes=None, factor=1.0, j=None, relu=False, targets=None) -> Network:
    """What the loops must know of the network and its loss, besides the weights.

    `connections` (2, kernels): the C3 map that each kernel of C3 feeds, in ascending order, and the S2 map it reads.
    `codes` (10, 84) are those of RBF outputs, `factor` is that of their distances; without codes the outputs are
    linear. `j` is that of eq. 9; None: cross-entropy. `relu`: ReLU in place of the squashing function. `targets`: a
    digit's probabilities of the classes, in place of its label, (N, 10).
    """
    number = np.dtype(dtype).type
    to_map, from_map = np.asarray(connections, np.int64)
    return Network(
        background=number(BACKGROUND),
        grey=number((INK - BACKGROUND) / 255),
        A=number(A),
        S=number(S),
        relu=relu,
        c1_from=np.zeros(1, np.int64),  # every kernel of C1 reads map 0 of x
        c3_from=np.ascontiguousarray(from_map),
        c3_start=np.searchsorted(to_map, np.arange(17)),  # map m's kernels are c3_start[m] to c3_start[m + 1] - 1
        codes=np.zeros((0, 84), dtype) if codes is None else np.array(codes, dtype),
        factor=number(factor),
        j=number(1e30 if j is None else j),
        targets=np.zeros((0, 10), dtype) if targets is None else np.asarray(targets),
    )


def adam(first, second, ema=None, steps_per_epoch: int = 1) -> Optimizer:
    """Adam (betas 0.9 and 0.999, eps 1e-8) with these two moments; `ema` follows the weights, if it is given."""
    none = first[:0]
    return Optimizer(none, first, second, none if ema is None else ema, steps_per_epoch)


def levenberg_marquardt(rate) -> Optimizer:
    """Each weight has its own rate (appendix C): weights -= rate * gradient."""
    return Optimizer(rate, rate[:0], rate[:0], rate[:0], 1)


# ---- Parts of a step ----


@inner
def layers(vector, kernels):
    """The layers' weights and biases, or their gradients, in a flat vector with so many C3 kernels."""
    rest = vector[168 + 25 * kernels :]
    return Layers(
        vector[0:150].reshape(6, 5, 5),
        vector[150:156],
        vector[156:162],
        vector[162:168],
        vector[168 : 168 + 25 * kernels].reshape(kernels, 5, 5),
        rest[0:16],
        rest[16:32],
        rest[32:48],
        rest[48:48048].reshape(120, 400),
        rest[48048:48168],
        rest[48168:58248].reshape(84, 120),
        rest[58248:58332],
        rest[58332:59172],  # 10 rows of 84, or nothing
        rest[59172:59182],
    )


# tanh u = u p(u^2) / q(u^2), a minimax approximation for |u| < 7.9 with the coefficients of the Eigen library.
LIMIT = np.float32(7.90531110763549805)
P0, P1, P2, P3 = map(
    np.float32, (4.89352455891786e-03, 6.37261928875436e-04, 1.48572235717979e-05, 5.12229709037114e-08)
)
P4, P5, P6 = map(np.float32, (-8.60467152213735e-11, 2.00018790482477e-13, -2.76076847742355e-16))
Q0, Q1, Q2, Q3 = map(
    np.float32, (4.89352518554385e-03, 2.26843463243900e-03, 1.18534705686654e-04, 1.19825839466702e-06)
)


@inner
def tanh(u):
    """tanh(u) in single precision, within 1e-6."""
    u = min(max(u, -LIMIT), LIMIT)
    v = u * u
    p = P0 + v * (P1 + v * (P2 + v * (P3 + v * (P4 + v * (P5 + v * P6)))))
    q = Q0 + v * (Q1 + v * (Q2 + v * Q3))
    return u * p / q


@inner
def activation(a, net):
    """x = f(a)."""
    return max(a, type(a)(0)) if net.relu else net.A * tanh(net.S * a)


@inner
def slope(x, net):
    """f'(a), from x = f(a)."""
    return type(x)(x > 0) if net.relu else net.S * (net.A - x * x / net.A)


@inner
def activate(x, net):
    """a -> f(a), in place."""
    for i in range(x.size):
        x[i] = activation(x[i], net)


@inner
def times_slope(d, x, net):
    """dE/dx -> dE/da, in place."""
    for i in range(d.size):
        d[i] *= slope(x[i], net)


@inner
def total(x):
    """The sum of x, in x's precision."""
    s = x.dtype.type(0)
    for i in range(x.size):
        s += x[i]
    return s


@inner
def loss(logits, labels, chosen, count, factor, j, targets, lanes, totals):
    """logits (10 lanes,) of `count` patterns -> dE/dlogits in their place; 0 for the other lanes.

    E is `factor` times eq. 9 (section II.C), log(exp(-j) + sum over o of exp(logits_o)) - score of the label: its
    penalties are -logits. With targets the score is that of all classes, each times its target. Without its factor E is
    added to totals[0], the number of correct answers to totals[1].
    """
    for b in range(count):
        best, top = 0, logits[b]
        for o in range(1, 10):
            if logits[o * lanes + b] > top:
                best, top = o, logits[o * lanes + b]
        label = labels[chosen[b]]
        right = logits[label * lanes + b]
        if len(targets):
            right *= 0
            for o in range(10):
                right += targets[chosen[b], o] * logits[o * lanes + b]
        top = max(top, -j)  # the largest exponent: no exponential overflows
        z = np.exp(-j - top)
        for o in range(10):
            logits[o * lanes + b] = np.exp(logits[o * lanes + b] - top)
            z += logits[o * lanes + b]
        totals[0] += top + np.log(z) - right
        totals[1] += best == label
        for o in range(10):
            logits[o * lanes + b] *= factor / z
        if len(targets):
            for o in range(10):
                logits[o * lanes + b] -= factor * targets[chosen[b], o]
        else:
            logits[label * lanes + b] -= factor
    for b in range(count, lanes):
        for o in range(10):
            logits[o * lanes + b] = 0


@inner
def update(weights, gradient, optimizer, learning_rate, step, done):
    """One optimizer step, the step-th: Levenberg-Marquardt if there are rates, else Adam and the EMA.

    Those from done[0] to done[1] have taken it.
    """
    rate, first, second, ema = optimizer.rate, optimizer.first, optimizer.second, optimizer.ema
    number = weights.dtype.type
    for start, end in ((0, done[0]), (done[1], rate.size)):
        for i in range(start, end):
            weights[i] -= rate[i] * gradient[i]
    step_size, root = number(learning_rate / (1 - 0.9**step)), number(1 / np.sqrt(1 - 0.999**step))
    new1, new2, eps = number(1 - 0.9), number(1 - 0.999), number(1e-8)
    for i in range(first.size):
        g = gradient[i]
        first[i] += new1 * (g - first[i])
        second[i] += new2 * (g * g - second[i])
        weights[i] -= step_size * first[i] / (np.sqrt(second[i]) * root + eps)
    share = number(1 / min(step, optimizer.period))
    for i in range(ema.size):
        ema[i] += share * (weights[i] - ema[i])


# ---- The layers. A map is (rows, columns of `lanes` patterns) ----


@inner
def load(images, chosen, net, x, lanes):
    """The input layer: grey levels 0 to 255 as the network sees them."""
    for r in range(32):
        row = x[0, r]
        for b in range(lanes):
            pixels = images[chosen[b], r]
            for c in range(32):
                row[c * lanes + b] = net.background + net.grey * type(net.grey)(pixels[c])


@inner
def slide(w, x, y, columns, lanes):
    """A kernel's row (5,) along x ((columns + 4) lanes,), added to y: the window of five inputs stays in registers."""
    w0, w1, w2, w3, w4 = w[0], w[1], w[2], w[3], w[4]
    if lanes == 1:  # the columns are the vector: no window goes along them
        for c in range(columns):
            y[c] += w0 * x[c] + w1 * x[c + 1] + w2 * x[c + 2] + w3 * x[c + 3] + w4 * x[c + 4]
        return
    for b in range(lanes):
        x0, x1, x2, x3 = x[b], x[lanes + b], x[2 * lanes + b], x[3 * lanes + b]
        for c in range(columns):
            x4 = x[(c + 4) * lanes + b]
            y[c * lanes + b] += w0 * x0 + w1 * x1 + w2 * x2 + w3 * x3 + w4 * x4
            x0, x1, x2, x3 = x1, x2, x3, x4


@inner
def slide_back(w, da, dx, columns, lanes):
    """The same row's share of dE/dx, added: x's column c was used at y's c - 4 to c, as far as there are any."""
    w0, w1, w2, w3, w4 = w[0], w[1], w[2], w[3], w[4]
    zero = type(w0)(0)
    for b in range(lanes):
        d0 = d1 = d2 = d3 = zero
        for c in range(columns):
            d4 = da[c * lanes + b]
            dx[c * lanes + b] += w4 * d0 + w3 * d1 + w2 * d2 + w1 * d3 + w0 * d4
            d0, d1, d2, d3 = d1, d2, d3, d4
        for c in range(columns, columns + 4):
            dx[c * lanes + b] += w4 * d0 + w3 * d1 + w2 * d2 + w1 * d3
            d0, d1, d2, d3 = d1, d2, d3, zero


@inner
def slide_gradient(da, x, sums, columns, lanes):
    """The same row's gradient, pattern by pattern: sums (5 lanes,) += sum over columns of dE/da times input."""
    for b in range(lanes):
        g0, g1, g2, g3, g4 = sums[b], sums[lanes + b], sums[2 * lanes + b], sums[3 * lanes + b], sums[4 * lanes + b]
        for c in range(columns):
            i = c * lanes + b
            d = da[i]
            g0 += d * x[i]
            g1 += d * x[i + lanes]
            g2 += d * x[i + 2 * lanes]
            g3 += d * x[i + 3 * lanes]
            g4 += d * x[i + 4 * lanes]
        sums[b], sums[lanes + b], sums[2 * lanes + b], sums[3 * lanes + b], sums[4 * lanes + b] = g0, g1, g2, g3, g4


@inner
def convolution(x, w, sources, bias, net, y, columns, lanes):
    """One map y of C1 or C3: w (kernels, 5, 5), each for the map x[sources[n]]; so many columns at a time.

    With one lane this goes on past the end of the row of x that is sliced here, through the rows that follow in memory.
    """
    for r in range(y.shape[0]):
        row = y[r]
        row[:] = bias
        for n in range(len(sources)):
            for k in range(5):
                for i in range(0, row.size, columns * lanes):
                    slide(w[n, k], x[sources[n], r + k, i:], row[i:], columns, lanes)
        activate(row, net)


@inner
def convolution_back(da, w, sources, dx, columns, lanes):
    """The same map's share of dE/dx, added; `columns` is the length of da's rows."""
    for n in range(len(sources)):
        for r in range(da.shape[0]):
            for k in range(5):
                slide_back(w[n, k], da[r], dx[sources[n], r + k], columns, lanes)


@inner
def convolution_gradient(da, x, sources, sums, dw, columns, lanes):
    """The same map's kernels' gradient."""
    for n in range(len(sources)):
        sums[:] = 0
        for r in range(da.shape[0]):
            row = da[r]
            for k in range(5):
                for i in range(0, row.size, columns * lanes):
                    slide_gradient(row[i:], x[sources[n], r + k, i:], sums[k], columns, lanes)
        for k in range(5):
            for l in range(5):  # noqa: E741
                dw[n, k, l] += total(sums[k, l * lanes : (l + 1) * lanes])


@inner
def subsample(x, coefficient, bias, net, sums, y, lanes):
    """One map y of S2 or S4, and the sums of its 2x2 patches."""
    for r in range(y.shape[0]):
        upper, lower, s = x[2 * r], x[2 * r + 1], sums[r]
        for c in range(s.size // lanes):
            for b in range(lanes):
                i = 2 * c * lanes + b
                s[c * lanes + b] = upper[i] + upper[i + lanes] + lower[i] + lower[i + lanes]
    states, s = y.reshape(-1), sums.reshape(-1)
    for i in range(states.size):
        states[i] = activation(coefficient * s[i] + bias, net)


@inner
def subsample_back(dy, y, sums, x, coefficient, net, da, lanes):
    """The same map's dE/dy -> dE/da of the map x below; returns dE/dcoefficient and dE/dbias. dy becomes dE/dsums."""
    d_coefficient = d_bias = type(coefficient)(0)
    for r in range(y.shape[0]):
        d, row, s = dy[r], y[r], sums[r]
        for i in range(d.size):
            d[i] *= slope(row[i], net)
            d_bias += d[i]
            d_coefficient += d[i] * s[i]
            d[i] *= coefficient
    for r in range(da.shape[0]):
        d, below, out = dy[r // 2], x[r], da[r]
        for c in range(d.size // lanes):
            for b in range(lanes):
                i = 2 * c * lanes + b
                out[i] = d[c * lanes + b] * slope(below[i], net)
                out[i + lanes] = d[c * lanes + b] * slope(below[i + lanes], net)
    return d_coefficient, d_bias


@inner
def tile(v0, v1, v2, v3, w0, w1, w2, w3, x, y, lanes):
    """Two rows of y += 2x4 weights times four rows of x."""
    for b in range(lanes):
        x0, x1, x2, x3 = x[b], x[lanes + b], x[2 * lanes + b], x[3 * lanes + b]
        y[b] += v0 * x0 + v1 * x1 + v2 * x2 + v3 * x3
        y[lanes + b] += w0 * x0 + w1 * x1 + w2 * x2 + w3 * x3


@inner
def dense(x, w, bias, y, lanes):
    """The weighted sums of C5, F6 or linear outputs: x (inputs lanes,), w (units, inputs) -> y (units lanes,)."""
    units, inputs = w.shape
    if lanes == 1:
        for u in range(0, units, 2):
            w0, w1, a0, a1 = w[u], w[u + 1], bias[u], bias[u + 1]
            for k in range(inputs):
                a0 += w0[k] * x[k]
                a1 += w1[k] * x[k]
            y[u], y[u + 1] = a0, a1
        return
    for u in range(units):
        y[u * lanes : (u + 1) * lanes] = bias[u]
    for k in range(0, inputs, 4):
        rows = x[k * lanes : (k + 4) * lanes]
        for u in range(0, units, 2):
            w0, w1, two = w[u, k : k + 4], w[u + 1, k : k + 4], y[u * lanes : (u + 2) * lanes]
            tile(w0[0], w0[1], w0[2], w0[3], w1[0], w1[1], w1[2], w1[3], rows, two, lanes)


@inner
def dense_back(da, w, dx, lanes):
    """dE/da (units lanes,) -> dE/dx (inputs lanes,)."""
    units, inputs = w.shape
    dx[:] = 0
    if lanes == 1:
        for u in range(0, units, 2):
            w0, w1, d0, d1 = w[u], w[u + 1], da[u], da[u + 1]
            for k in range(inputs):
                dx[k] += d0 * w0[k] + d1 * w1[k]
        return
    for u in range(0, units, 4):
        rows = da[u * lanes : (u + 4) * lanes]
        w0, w1, w2, w3 = w[u], w[u + 1], w[u + 2], w[u + 3]
        for k in range(0, inputs, 2):
            two = dx[k * lanes : (k + 2) * lanes]
            tile(w0[k], w1[k], w2[k], w3[k], w0[k + 1], w1[k + 1], w2[k + 1], w3[k + 1], rows, two, lanes)


@inner
def dense_gradient(da, x, transposed, dw, dbias, lanes):
    """dE/da (units lanes,) and x (inputs lanes,) -> dw (units, inputs) and dbias: added.

    With one lane they are set: a step is one pattern then, and there is nothing to add to.
    """
    units, inputs = dw.shape
    if lanes == 1:
        for u in range(units):
            d, g = da[u], dw[u]
            dbias[u] = d
            for k in range(inputs):
                g[k] = d * x[k]
        return
    rows = transposed.reshape(lanes, 400)
    for b in range(lanes):
        row = rows[b]
        for k in range(inputs):
            row[k] = x[k * lanes + b]
    for u in range(0, units, 2):
        d, e = da[u * lanes : (u + 1) * lanes], da[(u + 1) * lanes : (u + 2) * lanes]
        dbias[u] += total(d)
        dbias[u + 1] += total(e)
        g, h = dw[u], dw[u + 1]
        for b in range(0, lanes, 4):
            x0, x1, x2, x3 = rows[b], rows[b + 1], rows[b + 2], rows[b + 3]
            d0, d1, d2, d3 = d[b], d[b + 1], d[b + 2], d[b + 3]
            e0, e1, e2, e3 = e[b], e[b + 1], e[b + 2], e[b + 3]
            for k in range(inputs):
                g[k] += d0 * x0[k] + d1 * x1[k] + d2 * x2[k] + d3 * x3[k]
                h[k] += e0 * x0[k] + e1 * x1[k] + e2 * x2[k] + e3 * x3[k]


@inner
def dense_step(da, x, w, bias, rate, bias_rate):
    """With one lane the step itself, each weight at its own rate, in place of dense_gradient and update.

    These are nearly all weights there are: a gradient would be written, read again, and take the cache from them.
    """
    units, inputs = w.shape
    for u in range(units):
        d, weights, rates = da[u], w[u], rate[u]
        bias[u] -= bias_rate[u] * d
        for k in range(inputs):
            weights[k] -= rates[k] * (d * x[k])


@inner
def rbf(x, codes, factor, scores, lanes):
    """The scores of RBF outputs: x (84 lanes,), codes (10, 84), factor of the distances -> scores (10 lanes,)."""
    scores[:] = 0
    for o in range(10):
        y = scores[o * lanes : (o + 1) * lanes]
        for u in range(84):
            row, code = x[u * lanes : (u + 1) * lanes], codes[o, u]
            for b in range(lanes):
                y[b] -= (row[b] - code) ** 2
    for i in range(scores.size):
        scores[i] *= factor


@inner
def rbf_back(ds, codes, factor, x, dx, lanes):
    """dE/dscores (10 lanes,) -> dE/dx (84 lanes,)."""
    dx[:] = 0
    for o in range(10):
        d = ds[o * lanes : (o + 1) * lanes]
        for u in range(84):
            row, out, code = x[u * lanes : (u + 1) * lanes], dx[u * lanes : (u + 1) * lanes], codes[o, u]
            for b in range(lanes):
                out[b] += 2 * factor * d[b] * (code - row[b])


@inner
def linear_back(ds, w, dx, lanes):
    """The same with linear outputs: w (10, 84). dense_back takes four units at a time, and there are ten."""
    dx[:] = 0
    for o in range(10):
        d = ds[o * lanes : (o + 1) * lanes]
        for u in range(84):
            out, weight = dx[u * lanes : (u + 1) * lanes], w[o, u]
            for b in range(lanes):
                out[b] += weight * d[b]


# ---- The network. What is inlined "always" is not compiled alone as well, which would take seconds more ----

whole = numba.njit(**INNER, inline="always")


@whole
def forward(t, images, net, v, layout):
    """A block's images -> its logits, with the weights t, in the buffers v.

    Map by map, so that S2 and S4 find theirs in the processor's cache.
    """
    lanes, c1_rows, c1_columns, c3_rows, c3_columns = layout
    c1, c3 = v.c1.reshape(6, c1_rows, -1), v.c3.reshape(16, c3_rows, -1)
    load(images, v.chosen, net, v.x, lanes)
    for m in range(6):
        convolution(v.x, t.c1[m : m + 1], net.c1_from, t.c1_bias[m], net, c1[m], c1_columns, lanes)
        subsample(v.c1[m], t.s2[m], t.s2_bias[m], net, v.s2_sums[m], v.s2[m], lanes)
    for m in range(16):
        n, end = net.c3_start[m], net.c3_start[m + 1]
        convolution(v.s2, t.c3[n:end], net.c3_from[n:end], t.c3_bias[m], net, c3[m], c3_columns, lanes)
        subsample(v.c3[m], t.s4[m], t.s4_bias[m], net, v.s4_sums[m], v.s4[m], lanes)
    dense(v.s4.reshape(-1), t.c5, t.c5_bias, v.c5, lanes)
    activate(v.c5, net)
    dense(v.c5, t.f6, t.f6_bias, v.f6, lanes)
    activate(v.f6, net)
    if len(net.codes):
        rbf(v.f6, net.codes, net.factor, v.logits, lanes)
    else:
        dense(v.f6, t.output.reshape(10, 84), t.output_bias, v.logits, lanes)


@whole
def backward(t, g, rates, stepping, net, v, layout):
    """dE/dlogits of the block -> its share of the gradient g, which starts at 0.

    `stepping`: C5 and F6 take their step at once, with these rates.
    """
    lanes, c1_rows, c1_columns, c3_rows, c3_columns = layout
    d_c3, d_c1 = v.d_c3.reshape(16, c3_rows, -1), v.d_c1.reshape(c1_rows, -1)
    if len(net.codes):
        rbf_back(v.logits, net.codes, net.factor, v.f6, v.d_f6, lanes)
    else:
        linear_back(v.logits, t.output.reshape(10, 84), v.d_f6, lanes)
        dense_gradient(v.logits, v.f6, v.transposed, g.output.reshape(10, 84), g.output_bias, lanes)
    times_slope(v.d_f6, v.f6, net)
    dense_back(v.d_f6, t.f6, v.d_c5, lanes)
    if stepping:
        dense_step(v.d_f6, v.c5, t.f6, t.f6_bias, rates.f6, rates.f6_bias)
    else:
        dense_gradient(v.d_f6, v.c5, v.transposed, g.f6, g.f6_bias, lanes)
    times_slope(v.d_c5, v.c5, net)
    dense_back(v.d_c5, t.c5, v.d_s4.reshape(-1), lanes)
    if stepping:
        dense_step(v.d_c5, v.s4.reshape(-1), t.c5, t.c5_bias, rates.c5, rates.c5_bias)
    else:
        dense_gradient(v.d_c5, v.s4.reshape(-1), v.transposed, g.c5, g.c5_bias, lanes)
    v.d_s2[:] = 0
    for m in range(16):
        dw, db = subsample_back(v.d_s4[m], v.s4[m], v.s4_sums[m], v.c3[m], t.s4[m], net, v.d_c3[m], lanes)
        g.s4[m] += dw
        g.s4_bias[m] += db
        g.c3_bias[m] += total(v.d_c3[m].reshape(-1))
        n, end = net.c3_start[m], net.c3_start[m + 1]
        convolution_gradient(d_c3[m], v.s2, net.c3_from[n:end], v.kernel_sums, g.c3[n:end], c3_columns, lanes)
        convolution_back(d_c3[m], t.c3[n:end], net.c3_from[n:end], v.d_s2, c3_columns, lanes)
    for m in range(6):
        dw, db = subsample_back(v.d_s2[m], v.s2[m], v.s2_sums[m], v.c1[m], t.s2[m], net, v.d_c1, lanes)
        g.s2[m] += dw
        g.s2_bias[m] += db
        g.c1_bias[m] += total(v.d_c1.reshape(-1))
        convolution_gradient(d_c1, v.x, net.c1_from, v.kernel_sums, g.c1[m : m + 1], c1_columns, lanes)


@whole
def take(weights, gradient, optimizer, rate, taken, images, labels, order, factor, totals, logits, net, v, layout):
    """Take len(order) optimizer steps; `taken` were taken before. With logits (N, 10), these alone are computed."""
    kernels = len(net.c3_from)
    t, g = layers(weights, kernels), layers(gradient, kernels)
    lanes, scale = layout[0], weights.dtype.type(factor)
    steps, size = order.shape
    stepping = lanes == 1 and len(optimizer.rate) > 0
    rates = layers(optimizer.rate if stepping else weights, kernels)  # not used unless `stepping`
    c5 = 216 + 25 * kernels  # where C5 begins; F6 ends 58,284 later
    done = (c5, c5 + 58284) if stepping else (0, 0)
    for step in range(steps):
        gradient[: c5 if lanes == 1 else gradient.size] = 0  # the rest is set, not added to
        for start in range(0, size, lanes):
            for b in range(lanes):  # lanes without a digit repeat the last one; their dE/dlogits are 0
                v.chosen[b] = order[step, min(start + b, size - 1)]
            forward(t, images, net, v, layout)
            count = min(size - start, lanes)
            if len(logits):
                for b in range(count):
                    for o in range(10):
                        logits[start + b, o] = v.logits[o * lanes + b]
            else:
                loss(v.logits, labels, v.chosen, count, scale, net.j, net.targets, lanes, totals)
                backward(t, g, rates, stepping, net, v, layout)
        update(weights, gradient, optimizer, rate, taken + step + 1, done)


@outermost
def take_batches(weights, gradient, optimizer, rate, taken, images, labels, order, factor, totals, logits, net, v):
    take(weights, gradient, optimizer, rate, taken, images, labels, order, factor, totals, logits, net, v, BATCH)


@outermost
def take_singles(weights, gradient, optimizer, rate, taken, images, labels, order, factor, totals, logits, net, v):
    take(weights, gradient, optimizer, rate, taken, images, labels, order, factor, totals, logits, net, v, SINGLE)


# ---- What others call ----


def steps(weights, gradient, optimizer, rate, taken, images, labels, order, factor, totals, net, v):
    """Take an optimizer step for each row of order, int64 (steps, batch size), in place.

    `taken` steps were taken before; the gradient is that of `factor` times the sum of a batch's losses. Losses and
    correct answers are added to totals (2 or more,). Raises ValueError if v is buffers(SINGLE) and a batch is larger.
    """
    logits = np.empty((0, 10), weights.dtype)
    call(weights, gradient, optimizer, rate, taken, images, labels, order, factor, totals, logits, net, v)


def gradient(weights, images, labels, chosen, factor, net, v):
    """The gradient (P,) of `factor` times the sum of the losses of the digits `chosen`, int64 (B,)."""
    found = np.zeros_like(weights)
    order, logits = chosen.reshape(1, -1), np.empty((0, 10), weights.dtype)
    call(weights, found, nothing(weights), 0.0, 0, images, labels, order, factor, np.zeros(2), logits, net, v)
    return found


def logits(weights, images, net, v):
    """Logits (N, 10) of images uint8 (N, 32, 32)."""
    found = np.empty((len(images), 10), weights.dtype)
    order = np.arange(len(images)).reshape(1, -1)
    unused, no_labels = np.zeros_like(weights), np.zeros(0, np.int64)
    call(weights, unused, nothing(weights), 0.0, 0, images, no_labels, order, 0.0, np.zeros(2), found, net, v)
    return found


def call(weights, *rest):
    order, *_, logits, _, v = rest[-6:]
    take = take_singles if len(v.chosen) == 1 else take_batches
    if take is take_singles and order.shape[1] != 1 and not len(logits):
        raise ValueError(f"buffers(SINGLE) are for one digit a step, but order is {order.shape}")
    folder, known = Path(take.stats.cache_path) if CACHED else None, len(take.signatures)
    if folder and not known:
        cache.remove_unsealed(folder)
    take(weights, *rest)
    if folder and len(take.signatures) > known:
        cache.seal(folder)


def nothing(weights) -> Optimizer:
    """An optimizer that leaves the weights as they are."""
    return Optimizer(weights[:0], weights[:0], weights[:0], weights[:0], 1)
