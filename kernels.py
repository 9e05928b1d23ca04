"""LeNet-5's loss, gradient and training step as plain loops, compiled by numba.

The layers are those of section II.B of the paper; dE/dx of a layer's states is written d_x, and becomes dE/da of their
weighted sums a in place, by the factor f'(a). A batch is done in blocks of LANES patterns, and the pattern is the last
index of everything: a row of a map is one run of memory, column after column, each column LANES patterns. Batches of
one pattern have a layout of their own, in which a map is one run of memory, row after row.

layer       equation                                        loops, batch            innermost (vector instructions)
C1, C3      a_m(r, c) = b_m + sum over n, k, l of           map m, row r, kernel n, patterns; five inputs of a row stay
            w_n(k, l) x_n(r + k, c + l); x = f(a)           its row k               in registers while c goes along it
S2, S4      s = sum of a 2x2 patch; x = f(w_m s + b_m)      map, row, column        patterns
C5, F6      a_u = b_u + sum over k of w_uk x_k; x = f(a)    4 inputs, 2 units       patterns; 8 weights in registers
output      y_o = b_o + sum over u of w_ou x_u, or          class, input            patterns
            y_o = -sum over u of (x_u - code_ou)^2
dE/dw       C1, C3: sum over r, c of da_m(r, c) x(...)      map, kernel, r, k, c    patterns; five sums in registers
            C5, F6: sum over patterns of da_u x_k           2 units, 4 patterns     inputs, as the weights lie in memory
dE/dx       C3: sum over n, k, l of w_n(k, l) da_m(...)     map, kernel, r, k       patterns, as forward
            C5, F6: sum over u of w_uk da_u                 4 units, 2 inputs       patterns; 8 weights in registers

With one pattern there is no pattern to be innermost. There it is the place within the map for C1 to S4, and for C5 and
F6 the input. What LLVM makes of the loops is fast if innermost loops have constant lengths, read few arrays, and run
along one-dimensional slices taken before them: otherwise it tests for overlaps, or leaves vector instructions out.

All arrays are written in place. Nothing is checked: labels must be 0 to 9, and indices within the images.
The gradient alone: take a Levenberg-Marquardt step with rates of 0, which leaves the weights as they are.
"""

from collections import namedtuple

import numba
import numpy as np
from numba import types
from numba.extending import overload

LANES = 32
A, S = 1.7159, 2 / 3  # as in model.py: the squashing function is A tanh(S a)
BACKGROUND, INK = -0.1, 1.175  # as in model.py: the input's grey levels

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

Network = namedtuple("Network", "background grey a s relu c1_from c3_from c3_start codes j")
Optimizer = namedtuple("Optimizer", "rate first second average period")
Layers = namedtuple("Layers", "c1 c1_bias s2 s2_bias c3 c3_bias s4 s4_bias c5 c5_bias f6 f6_bias output output_bias")

BATCH = {
    "x": (1, 32, 32 * LANES),
    "c1": (6, 28, 28 * LANES),
    "s2_sums": (6, 14, 14 * LANES),
    "s2": (6, 14, 14 * LANES),
    "c3": (16, 10, 10 * LANES),
    "s4_sums": (16, 5, 5 * LANES),
    "s4": (16, 5, 5 * LANES),
    "c5": (120 * LANES,),
    "f6": (84 * LANES,),
    "scores": (10 * LANES,),
    "d_f6": (84 * LANES,),
    "d_c5": (120 * LANES,),
    "d_s4": (16, 5, 5 * LANES),
    "d_c3": (16, 10, 10 * LANES),
    "d_s2": (6, 14, 14 * LANES),
    "d_c1": (28, 28 * LANES),  # one map at a time
    "places": (5, 5 * LANES),  # a kernel's gradient, each pattern by itself
    "turned": (LANES, 400),  # the input of C5 or F6, a row a pattern
}
# One pattern: C1's rows are 32 long as the input's, S2's and C3's 16. The places past a map's last column are computed
# too, from whatever is there, and their errors are 0. The slack behind x and s2 is read, and never counts.
SINGLE = {
    "x": (32 * 32 + 32,),
    "c1": (6, 28 * 32),
    "s2_sums": (6, 14 * 16),
    "s2": (7, 14 * 16),
    "c3": (16, 10 * 16),
    "s4_sums": (16, 25),
    "s4": (16, 25),
    "c5": (120,),
    "f6": (84,),
    "scores": (10,),
    "d_f6": (84,),
    "d_c5": (120,),
    "d_s4": (16, 25),
    "d_c3": (16, (5 + 14) * 16),  # 5 rows of zeros before each map, 4 behind it
    "d_s2": (6, 14 * 16),
    "d_c1": (28 * 32,),  # one map at a time
}
Batch = namedtuple("Batch", ["chosen", *BATCH])
Single = namedtuple("Single", ["chosen", *SINGLE])


def aligned(shape: tuple, dtype) -> np.ndarray:
    """Zeros that start at a multiple of 64 bytes: no vector then lies in two cache lines."""
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    memory = np.zeros(size + 64, np.uint8)
    start = -memory.ctypes.data % 64
    return memory[start : start + size].view(dtype).reshape(shape)


def batch_buffers(dtype) -> Batch:
    """What batch_steps and batch_scores work in, for numbers of this type."""
    return Batch(np.zeros(LANES, np.int64), **{name: aligned(shape, dtype) for name, shape in BATCH.items()})


def single_buffers(dtype) -> Single:
    """What single_steps works in, for numbers of this type."""
    return Single(np.zeros(1, np.int64), **{name: aligned(shape, dtype) for name, shape in SINGLE.items()})


def network(dtype, connections, codes=None, j=None, relu=False) -> Network:
    """What the loops must know of the network and its loss, besides the weights.

    `connections` (2, kernels): the C3 map that each kernel of C3 feeds, in ascending order, and the S2 map it reads.
    `codes` (10, 84) are those of RBF outputs; without them the outputs are linear. `j` is that of eq. 9; None:
    cross-entropy. `relu`: ReLU in place of the squashing function.
    """
    number = np.dtype(dtype).type
    to_map, from_map = np.asarray(connections, np.int64)
    return Network(
        background=number(BACKGROUND),
        grey=number((INK - BACKGROUND) / 255),
        a=number(A),
        s=number(S),
        relu=relu,
        c1_from=np.zeros(1, np.int64),
        c3_from=np.ascontiguousarray(from_map),
        c3_start=np.searchsorted(to_map, np.arange(17)),  # map m's kernels are c3_start[m] to c3_start[m + 1] - 1
        codes=np.zeros((0, 84), dtype) if codes is None else np.array(codes, dtype),
        j=number(1e30 if j is None else j),
    )


def adam(first, second, average=None, steps_per_epoch: int = 1) -> Optimizer:
    """Adam (betas 0.9 and 0.999, eps 1e-8) with these two moments; `average` follows the weights, if it is given."""
    nothing = first[:0]
    return Optimizer(nothing, first, second, nothing if average is None else average, steps_per_epoch)


def levenberg_marquardt(rate) -> Optimizer:
    """Each weight has its own rate (appendix C): weights -= rate * gradient."""
    return Optimizer(rate, rate[:0], rate[:0], rate[:0], 1)


# ---- What both layouts share ----


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


def tanh(u):
    """tanh(u), for compiled code: exact in double precision, within 1e-6 in single, where it must be fast."""


# tanh u = u p(u^2) / q(u^2), a minimax approximation for |u| < 7.9 with the coefficients of the Eigen library.
LIMIT = np.float32(7.90531110763549805)
P0, P1, P2, P3 = map(
    np.float32, (4.89352455891786e-03, 6.37261928875436e-04, 1.48572235717979e-05, 5.12229709037114e-08)
)
P4, P5, P6 = map(np.float32, (-8.60467152213735e-11, 2.00018790482477e-13, -2.76076847742355e-16))
Q0, Q1, Q2, Q3 = map(
    np.float32, (4.89352518554385e-03, 2.26843463243900e-03, 1.18534705686654e-04, 1.19825839466702e-06)
)


@overload(tanh, jit_options=INNER)
def tanh_of_type(u):
    def exact(u):
        return np.tanh(u)

    def rational(u):
        u = min(max(u, -LIMIT), LIMIT)
        v = u * u
        p = P0 + v * (P1 + v * (P2 + v * (P3 + v * (P4 + v * (P5 + v * P6)))))
        q = Q0 + v * (Q1 + v * (Q2 + v * Q3))
        return u * p / q

    return exact if u == types.float64 else rational


@inner
def activation(a, net):
    """x = f(a)."""
    return max(a, type(a)(0)) if net.relu else net.a * tanh(net.s * a)


@inner
def slope(x, net):
    """f'(a), from x = f(a)."""
    return type(x)(x > 0) if net.relu else net.s * (net.a - x * x / net.a)


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
    s = x.dtype.type(0)
    for i in range(x.size):
        s += x[i]
    return s


@inner
def loss(scores, labels, chosen, count, factor, j, lanes, totals):
    """scores (10 lanes,) of `count` patterns -> dE/dscores in their place; 0 for the other lanes.

    E is `factor` times eq. 9 (section II.C), log(exp(-j) + sum over o of exp(scores_o)) - score of the label: its
    penalties are -scores. Without its factor E is added to totals[0], the number of correct answers to totals[1].
    """
    for b in range(count):
        best, top = 0, scores[b]
        for o in range(1, 10):
            if scores[o * lanes + b] > top:
                best, top = o, scores[o * lanes + b]
        label = labels[chosen[b]]
        right = scores[label * lanes + b]
        top = max(top, -j)  # the largest exponent: no exponential overflows
        z = np.exp(-j - top)
        for o in range(10):
            scores[o * lanes + b] = np.exp(scores[o * lanes + b] - top)
            z += scores[o * lanes + b]
        totals[0] += top + np.log(z) - right
        totals[1] += best == label
        for o in range(10):
            scores[o * lanes + b] *= factor / z
        scores[label * lanes + b] -= factor
    for b in range(count, lanes):
        for o in range(10):
            scores[o * lanes + b] = 0


@inner
def update(weights, gradient, optimizer, learning_rate, step):
    """One optimizer step, the step-th: Levenberg-Marquardt if there are rates, else Adam and the running average."""
    rate, first, second, average = optimizer.rate, optimizer.first, optimizer.second, optimizer.average
    number = weights.dtype.type
    for i in range(rate.size):
        weights[i] -= rate[i] * gradient[i]
    size, root = number(learning_rate / (1 - 0.9**step)), number(1 / np.sqrt(1 - 0.999**step))
    new1, new2, eps = number(1 - 0.9), number(1 - 0.999), number(1e-8)
    for i in range(first.size):
        g = gradient[i]
        first[i] += new1 * (g - first[i])
        second[i] += new2 * (g * g - second[i])
        weights[i] -= size * first[i] / (np.sqrt(second[i]) * root + eps)
    share = number(1 / min(step, optimizer.period))
    for i in range(average.size):
        average[i] += share * (weights[i] - average[i])


# ---- Batches: blocks of LANES patterns, the pattern innermost ----


@inner
def load(images, chosen, net, x):
    """The input layer: grey levels 0 to 255 as the network sees them."""
    for r in range(32):
        row = x[0, r]
        for b in range(LANES):
            pixels = images[chosen[b], r]
            for c in range(32):
                row[c * LANES + b] = net.background + net.grey * type(net.grey)(pixels[c])


@inner
def slide(w, x, y, columns):
    """A kernel's row (5,) along a row of x, added to a row of y: the window of five inputs stays in registers."""
    w0, w1, w2, w3, w4 = w[0], w[1], w[2], w[3], w[4]
    for b in range(LANES):
        x0, x1, x2, x3 = x[b], x[LANES + b], x[2 * LANES + b], x[3 * LANES + b]
        for c in range(columns):
            x4 = x[(c + 4) * LANES + b]
            y[c * LANES + b] += w0 * x0 + w1 * x1 + w2 * x2 + w3 * x3 + w4 * x4
            x0, x1, x2, x3 = x1, x2, x3, x4


@inner
def slide_back(w, da, dx, columns):
    """The same row's share of dE/dx: the place c of x was used at c - 4 to c of y, as far as there are any."""
    w0, w1, w2, w3, w4 = w[0], w[1], w[2], w[3], w[4]
    zero = type(w0)(0)
    for b in range(LANES):
        d0 = d1 = d2 = d3 = zero
        for c in range(columns + 4):
            d4 = da[c * LANES + b] if c < columns else zero
            dx[c * LANES + b] += w4 * d0 + w3 * d1 + w2 * d2 + w1 * d3 + w0 * d4
            d0, d1, d2, d3 = d1, d2, d3, d4


@inner
def slide_gradient(da, x, places, columns):
    """The same row's gradient, pattern by pattern: places (5 LANES,) += sum over columns of dE/da times input."""
    for b in range(LANES):
        g0, g1, g2 = places[b], places[LANES + b], places[2 * LANES + b]
        g3, g4 = places[3 * LANES + b], places[4 * LANES + b]
        for c in range(columns):
            i = c * LANES + b
            d = da[i]
            g0 += d * x[i]
            g1 += d * x[i + LANES]
            g2 += d * x[i + 2 * LANES]
            g3 += d * x[i + 3 * LANES]
            g4 += d * x[i + 4 * LANES]
        places[b], places[LANES + b], places[2 * LANES + b] = g0, g1, g2
        places[3 * LANES + b], places[4 * LANES + b] = g3, g4


@inner
def convolution(x, w, sources, bias, net, y, columns):
    """One map y of C1 or C3: w (kernels, 5, 5), each for the map x[sources[n]]; so many columns at a time."""
    for r in range(y.shape[0]):
        row = y[r]
        row[:] = bias
        for n in range(len(sources)):
            for k in range(5):
                for i in range(0, row.size, columns * LANES):
                    slide(w[n, k], x[sources[n], r + k, i:], row[i:], columns)
        activate(row, net)


@inner
def convolution_back(da, w, sources, dx, columns):
    """The same map's share of dE/dx."""
    for n in range(len(sources)):
        for r in range(da.shape[0]):
            for k in range(5):
                slide_back(w[n, k], da[r], dx[sources[n], r + k], columns)


@inner
def convolution_gradient(da, x, sources, places, dw, columns):
    """The same map's kernels' gradient."""
    for n in range(len(sources)):
        places[:] = 0
        for r in range(da.shape[0]):
            row = da[r]
            for k in range(5):
                for i in range(0, row.size, columns * LANES):
                    slide_gradient(row[i:], x[sources[n], r + k, i:], places[k], columns)
        for k in range(5):
            for l in range(5):  # noqa: E741
                dw[n, k, l] += total(places[k, l * LANES : (l + 1) * LANES])


@inner
def subsample(x, coefficient, bias, net, sums, y):
    """One map y of S2 or S4, and the sums of its 2x2 patches."""
    for r in range(y.shape[0]):
        upper, lower, s, row = x[2 * r], x[2 * r + 1], sums[r], y[r]
        for c in range(row.size // LANES):
            for b in range(LANES):
                i = 2 * c * LANES + b
                s[c * LANES + b] = upper[i] + upper[i + LANES] + lower[i] + lower[i + LANES]
        for i in range(row.size):
            row[i] = activation(coefficient * s[i] + bias, net)


@inner
def subsample_back(dy, y, sums, x, coefficient, net, da):
    """The same map's dE/dy -> dE/da of the map x below; returns dE/dcoefficient and dE/dbias."""
    d_coefficient = d_bias = type(coefficient)(0)
    for r in range(y.shape[0]):
        d, row, s = dy[r], y[r], sums[r]
        for i in range(d.size):
            d[i] *= slope(row[i], net)
            d_bias += d[i]
            d_coefficient += d[i] * s[i]
            d[i] *= coefficient
        for q in range(2):
            below, out = x[2 * r + q], da[2 * r + q]
            for c in range(d.size // LANES):
                for b in range(LANES):
                    i = 2 * c * LANES + b
                    out[i] = d[c * LANES + b] * slope(below[i], net)
                    out[i + LANES] = d[c * LANES + b] * slope(below[i + LANES], net)
    return d_coefficient, d_bias


@inner
def tile(v0, v1, v2, v3, w0, w1, w2, w3, x, y):
    """Two rows of y += 2x4 weights times four rows of x."""
    for b in range(LANES):
        x0, x1, x2, x3 = x[b], x[LANES + b], x[2 * LANES + b], x[3 * LANES + b]
        y[b] += v0 * x0 + v1 * x1 + v2 * x2 + v3 * x3
        y[LANES + b] += w0 * x0 + w1 * x1 + w2 * x2 + w3 * x3


@inner
def dense(x, w, bias, y):
    """The weighted sums of C5, F6 or linear outputs: x (inputs LANES,), w (units, inputs) -> y (units LANES,)."""
    units, inputs = w.shape
    for u in range(units):
        y[u * LANES : (u + 1) * LANES] = bias[u]
    for k in range(0, inputs, 4):
        rows = x[k * LANES : (k + 4) * LANES]
        for u in range(0, units, 2):
            v, w_ = w[u, k : k + 4], w[u + 1, k : k + 4]
            tile(v[0], v[1], v[2], v[3], w_[0], w_[1], w_[2], w_[3], rows, y[u * LANES : (u + 2) * LANES])


@inner
def dense_back(da, w, dx):
    """dE/da (units LANES,) -> dE/dx (inputs LANES,)."""
    units, inputs = w.shape
    dx[:] = 0
    for u in range(0, units, 4):
        rows = da[u * LANES : (u + 4) * LANES]
        w0, w1, w2, w3 = w[u], w[u + 1], w[u + 2], w[u + 3]
        for k in range(0, inputs, 2):
            two = dx[k * LANES : (k + 2) * LANES]
            tile(w0[k], w1[k], w2[k], w3[k], w0[k + 1], w1[k + 1], w2[k + 1], w3[k + 1], rows, two)


@inner
def dense_gradient(da, x, turned, dw, dbias):
    """dE/da (units LANES,) and x (inputs LANES,) -> dw (units, inputs) and dbias, added."""
    units, inputs = dw.shape
    for b in range(LANES):
        row = turned[b]
        for k in range(inputs):
            row[k] = x[k * LANES + b]
    for u in range(0, units, 2):
        d, e = da[u * LANES : (u + 1) * LANES], da[(u + 1) * LANES : (u + 2) * LANES]
        dbias[u] += total(d)
        dbias[u + 1] += total(e)
        g, h = dw[u], dw[u + 1]
        for b in range(0, LANES, 4):
            x0, x1, x2, x3 = turned[b], turned[b + 1], turned[b + 2], turned[b + 3]
            d0, d1, d2, d3 = d[b], d[b + 1], d[b + 2], d[b + 3]
            e0, e1, e2, e3 = e[b], e[b + 1], e[b + 2], e[b + 3]
            for k in range(inputs):
                g[k] += d0 * x0[k] + d1 * x1[k] + d2 * x2[k] + d3 * x3[k]
                h[k] += e0 * x0[k] + e1 * x1[k] + e2 * x2[k] + e3 * x3[k]


@inner
def rbf(x, codes, scores):
    """The scores of RBF outputs: x (84 LANES,), codes (10, 84) -> scores (10 LANES,)."""
    scores[:] = 0
    for o in range(10):
        y = scores[o * LANES : (o + 1) * LANES]
        for u in range(84):
            row, code = x[u * LANES : (u + 1) * LANES], codes[o, u]
            for b in range(y.size):
                y[b] -= (row[b] - code) ** 2


@inner
def rbf_back(ds, codes, x, dx):
    """dE/dscores (10 LANES,) -> dE/dx (84 LANES,)."""
    dx[:] = 0
    for o in range(10):
        d = ds[o * LANES : (o + 1) * LANES]
        for u in range(84):
            row, out, code = x[u * LANES : (u + 1) * LANES], dx[u * LANES : (u + 1) * LANES], codes[o, u]
            for b in range(d.size):
                out[b] += 2 * d[b] * (code - row[b])


@inner
def linear_back(ds, w, dx):
    """The same with linear outputs: w (10, 84)."""
    dx[:] = 0
    for o in range(10):
        d = ds[o * LANES : (o + 1) * LANES]
        for u in range(84):
            out, weight = dx[u * LANES : (u + 1) * LANES], w[o, u]
            for b in range(d.size):
                out[b] += weight * d[b]


@numba.njit(**INNER, inline="always")  # not compiled on its own as well, which would take two seconds more
def forward(t, images, net, v):
    """A block's images -> its scores. Map by map, so that S2 and S4 find theirs in the processor's cache."""
    load(images, v.chosen, net, v.x)
    for m in range(6):
        convolution(v.x, t.c1[m : m + 1], net.c1_from, t.c1_bias[m], net, v.c1[m], 14)
        subsample(v.c1[m], t.s2[m], t.s2_bias[m], net, v.s2_sums[m], v.s2[m])
    for m in range(16):
        n, end = net.c3_start[m], net.c3_start[m + 1]
        convolution(v.s2, t.c3[n:end], net.c3_from[n:end], t.c3_bias[m], net, v.c3[m], 10)
        subsample(v.c3[m], t.s4[m], t.s4_bias[m], net, v.s4_sums[m], v.s4[m])
    dense(v.s4.reshape(400 * LANES), t.c5, t.c5_bias, v.c5)
    activate(v.c5, net)
    dense(v.c5, t.f6, t.f6_bias, v.f6)
    activate(v.f6, net)
    if len(net.codes):
        rbf(v.f6, net.codes, v.scores)
    else:
        dense(v.f6, t.output.reshape(10, 84), t.output_bias, v.scores)


@outermost
def batch_steps(weights, gradient, optimizer, learning_rate, taken, images, labels, order, factor, totals, net, v):
    """Take len(order) optimizer steps; `taken` were taken before."""
    t, g = layers(weights, len(net.c3_from)), layers(gradient, len(net.c3_from))
    scale = weights.dtype.type(factor)
    steps, size = order.shape
    for step in range(steps):
        gradient[:] = 0
        for start in range(0, size, LANES):
            for b in range(LANES):  # lanes without a pattern repeat the last one; their dE/dscores are 0
                v.chosen[b] = order[step, min(start + b, size - 1)]
            forward(t, images, net, v)
            loss(v.scores, labels, v.chosen, min(size - start, LANES), scale, net.j, LANES, totals)
            if len(net.codes):
                rbf_back(v.scores, net.codes, v.f6, v.d_f6)
            else:
                linear_back(v.scores, t.output.reshape(10, 84), v.d_f6)
                dense_gradient(v.scores, v.f6, v.turned, g.output.reshape(10, 84), g.output_bias)
            times_slope(v.d_f6, v.f6, net)
            dense_gradient(v.d_f6, v.c5, v.turned, g.f6, g.f6_bias)
            dense_back(v.d_f6, t.f6, v.d_c5)
            times_slope(v.d_c5, v.c5, net)
            dense_gradient(v.d_c5, v.s4.reshape(400 * LANES), v.turned, g.c5, g.c5_bias)
            dense_back(v.d_c5, t.c5, v.d_s4.reshape(400 * LANES))
            v.d_s2[:] = 0
            for m in range(16):
                d, n, end = v.d_c3[m], net.c3_start[m], net.c3_start[m + 1]
                dw, db = subsample_back(v.d_s4[m], v.s4[m], v.s4_sums[m], v.c3[m], t.s4[m], net, d)
                g.s4[m] += dw
                g.s4_bias[m] += db
                g.c3_bias[m] += total(d.reshape(100 * LANES))
                convolution_gradient(d, v.s2, net.c3_from[n:end], v.places, g.c3[n:end], 10)
                convolution_back(d, t.c3[n:end], net.c3_from[n:end], v.d_s2, 10)
            for m in range(6):
                dw, db = subsample_back(v.d_s2[m], v.s2[m], v.s2_sums[m], v.c1[m], t.s2[m], net, v.d_c1)
                g.s2[m] += dw
                g.s2_bias[m] += db
                g.c1_bias[m] += total(v.d_c1.reshape(784 * LANES))
                convolution_gradient(v.d_c1, v.x, net.c1_from, v.places, g.c1[m : m + 1], 14)
        update(weights, gradient, optimizer, learning_rate, taken + step + 1)


@outermost
def batch_scores(weights, images, scores, net, v):
    """Class scores (N, 10) of images uint8 (N, 32, 32)."""
    t = layers(weights, len(net.c3_from))
    for start in range(0, len(images), LANES):
        for b in range(LANES):
            v.chosen[b] = min(start + b, len(images) - 1)
        forward(t, images, net, v)
        for b in range(min(LANES, len(images) - start)):
            for o in range(10):
                scores[start + b, o] = v.scores[o * LANES + b]


# ---- One pattern a step: the place within a map innermost. Gradients are set, not added ----


@inner
def load_single(image, net, x):
    """The input layer, row after row."""
    for r in range(32):
        row, pixels = x[32 * r : 32 * r + 32], image[r]
        for c in range(32):
            row[c] = net.background + net.grey * type(net.grey)(pixels[c])


@inner
def run(w, x, y, width):
    """A kernel (5, 5) along a map of x, added to a map of y; rows of both are `width` long."""
    for k in range(5):
        row, w0, w1, w2, w3, w4 = x[k * width :], w[k, 0], w[k, 1], w[k, 2], w[k, 3], w[k, 4]
        for i in range(y.size):
            y[i] += w0 * row[i] + w1 * row[i + 1] + w2 * row[i + 2] + w3 * row[i + 3] + w4 * row[i + 4]


@inner
def run_back(w, da, dx, width):
    """The same kernel's share of dE/dx; 5 rows of zeros precede the map in da."""
    for k in range(5):
        row, w0, w1, w2, w3, w4 = da[(5 - k) * width - 4 :], w[k, 0], w[k, 1], w[k, 2], w[k, 3], w[k, 4]
        for i in range(dx.size):
            dx[i] += w4 * row[i] + w3 * row[i + 1] + w2 * row[i + 2] + w1 * row[i + 3] + w0 * row[i + 4]


@inner
def run_gradient(da, x, dw, width):
    """The same kernel's gradient: dw (5, 5)."""
    for k in range(5):
        row = x[k * width :]
        g0 = g1 = g2 = g3 = g4 = x.dtype.type(0)
        for i in range(da.size):
            d = da[i]
            g0 += d * row[i]
            g1 += d * row[i + 1]
            g2 += d * row[i + 2]
            g3 += d * row[i + 3]
            g4 += d * row[i + 4]
        dw[k, 0], dw[k, 1], dw[k, 2], dw[k, 3], dw[k, 4] = g0, g1, g2, g3, g4


@inner
def subsample_single(x, coefficient, bias, net, width, columns, sums, y):
    """One map y of S2 or S4, in rows of `columns`, and the sums of its 2x2 patches; the rows of x are `width` long."""
    for r in range(y.size // columns):
        upper, lower, s = x[2 * r * width :], x[(2 * r + 1) * width :], sums[r * columns :]
        for c in range(columns):
            s[c] = upper[2 * c] + upper[2 * c + 1] + lower[2 * c] + lower[2 * c + 1]
    for i in range(y.size):
        y[i] = activation(coefficient * sums[i] + bias, net)


@inner
def subsample_single_back(dy, y, sums, x, coefficient, net, width, columns, da):
    """The same map's dE/dy -> dE/da of the map x below; returns dE/dcoefficient and dE/dbias."""
    d_coefficient = d_bias = type(coefficient)(0)
    for i in range(y.size):
        dy[i] *= slope(y[i], net)
        d_bias += dy[i]
        d_coefficient += dy[i] * sums[i]
        dy[i] *= coefficient
    for r in range(2 * (y.size // columns)):
        d, below, out = dy[r // 2 * columns :], x[r * width :], da[r * width :]
        for c in range(columns):
            out[2 * c] = d[c] * slope(below[2 * c], net)
            out[2 * c + 1] = d[c] * slope(below[2 * c + 1], net)
    return d_coefficient, d_bias


@inner
def dense_single(x, w, bias, y):
    """The weighted sums of C5, F6 or linear outputs: x (inputs,), w (units, inputs) -> y (units,)."""
    for u in range(0, len(w), 2):
        w0, w1, a0, a1 = w[u], w[u + 1], bias[u], bias[u + 1]
        for k in range(x.size):
            a0 += w0[k] * x[k]
            a1 += w1[k] * x[k]
        y[u], y[u + 1] = a0, a1


@inner
def dense_single_back(da, w, dx):
    """dE/da (units,) -> dE/dx (inputs,)."""
    dx[:] = 0
    for u in range(0, len(w), 2):
        w0, w1, d0, d1 = w[u], w[u + 1], da[u], da[u + 1]
        for k in range(dx.size):
            dx[k] += d0 * w0[k] + d1 * w1[k]


@inner
def dense_single_gradient(da, x, dw, dbias):
    """dE/da (units,) and x (inputs,) -> dw (units, inputs) and dbias."""
    for u in range(da.size):
        d, row = da[u], dw[u]
        dbias[u] = d
        for k in range(x.size):
            row[k] = d * x[k]


@inner
def rbf_single(x, codes, scores):
    """The scores of RBF outputs: x (84,) -> scores (10,)."""
    for o in range(10):
        code, penalty = codes[o], x.dtype.type(0)
        for u in range(84):
            penalty += (x[u] - code[u]) ** 2
        scores[o] = -penalty


@inner
def rbf_single_back(ds, codes, x, dx):
    """dE/dscores (10,) -> dE/dx (84,)."""
    dx[:] = 0
    for o in range(10):
        code, d = codes[o], 2 * ds[o]
        for u in range(84):
            dx[u] += d * (code[u] - x[u])


@outermost
def single_steps(weights, gradient, optimizer, learning_rate, taken, images, labels, order, factor, totals, net, v):
    """As batch_steps, for batches of one pattern: order (steps, 1)."""
    t, g = layers(weights, len(net.c3_from)), layers(gradient, len(net.c3_from))
    scale = weights.dtype.type(factor)
    s2, s4, d_s4 = v.s2.reshape(7 * 224), v.s4.reshape(400), v.d_s4.reshape(400)
    for step in range(len(order)):
        v.chosen[0] = order[step, 0]
        load_single(images[v.chosen[0]], net, v.x)
        for m in range(6):
            v.c1[m] = t.c1_bias[m]
            run(t.c1[m], v.x, v.c1[m], 32)
            activate(v.c1[m], net)
            subsample_single(v.c1[m], t.s2[m], t.s2_bias[m], net, 32, 16, v.s2_sums[m], v.s2[m])
        for m in range(16):
            v.c3[m] = t.c3_bias[m]
            for n in range(net.c3_start[m], net.c3_start[m + 1]):
                run(t.c3[n], s2[224 * net.c3_from[n] :], v.c3[m], 16)
            activate(v.c3[m], net)
            subsample_single(v.c3[m], t.s4[m], t.s4_bias[m], net, 16, 5, v.s4_sums[m], v.s4[m])
        dense_single(s4, t.c5, t.c5_bias, v.c5)
        activate(v.c5, net)
        dense_single(v.c5, t.f6, t.f6_bias, v.f6)
        activate(v.f6, net)
        if len(net.codes):
            rbf_single(v.f6, net.codes, v.scores)
            loss(v.scores, labels, v.chosen, 1, scale, net.j, 1, totals)
            rbf_single_back(v.scores, net.codes, v.f6, v.d_f6)
        else:
            w = t.output.reshape(10, 84)
            dense_single(v.f6, w, t.output_bias, v.scores)
            loss(v.scores, labels, v.chosen, 1, scale, net.j, 1, totals)
            dense_single_back(v.scores, w, v.d_f6)
            dense_single_gradient(v.scores, v.f6, g.output.reshape(10, 84), g.output_bias)
        times_slope(v.d_f6, v.f6, net)
        dense_single_gradient(v.d_f6, v.c5, g.f6, g.f6_bias)
        dense_single_back(v.d_f6, t.f6, v.d_c5)
        times_slope(v.d_c5, v.c5, net)
        dense_single_gradient(v.d_c5, s4, g.c5, g.c5_bias)
        dense_single_back(v.d_c5, t.c5, d_s4)
        v.d_s2[:] = 0
        for m in range(16):
            d = v.d_c3[m, 80:240]
            g.s4[m], g.s4_bias[m] = subsample_single_back(
                v.d_s4[m], v.s4[m], v.s4_sums[m], v.c3[m], t.s4[m], net, 16, 5, d
            )
            g.c3_bias[m] = total(d)
            for n in range(net.c3_start[m], net.c3_start[m + 1]):
                run_gradient(d, s2[224 * net.c3_from[n] :], g.c3[n], 16)
                run_back(t.c3[n], v.d_c3[m], v.d_s2[net.c3_from[n]], 16)
        for m in range(6):
            g.s2[m], g.s2_bias[m] = subsample_single_back(
                v.d_s2[m], v.s2[m], v.s2_sums[m], v.c1[m], t.s2[m], net, 32, 16, v.d_c1
            )
            g.c1_bias[m] = total(v.d_c1)
            run_gradient(v.d_c1, v.x, g.c1[m], 32)
        update(weights, gradient, optimizer, learning_rate, taken + step + 1)
