"""LeNet5's loss and gradient written out by hand: the same function of the same parameters, but faster.

Four ideas do it. All parameters lie in one vector, so that an optimizer's step is one operation. Activations are
matrices, a row a unit and a column a place and pattern, the patterns last: every weighted sum is one matrix product,
and every rearrangement copies whole runs of memory. A convolution is done for the four units of each 2x2 patch at once,
which makes subsampling a sum of rows and copies 36 inputs a patch where the usual way copies 100. And the constants of
the squashing function, x = A tanh(S a), go into the parameters of C1 to S4, which are few: these layers hand on
t = tanh(u), where u = S a is made of c theta in place of theta, and dE/dtheta = c dE/d(c theta).
"""

import math
import platform
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model import BACKGROUND, INK, RBF, LeNet5, Squash, Subsampling, TableConvolution

A, S = Squash.A, Squash.S
C = (S, S, A * S, S, A * S, S, A * S, S)  # c of the kernels or coefficients and of the biases of C1, S2, C3 and S4
CPUINFO = Path("/proc/cpuinfo")
AMD = "AuthenticAMD" in (CPUINFO.read_text() if CPUINFO.exists() else platform.processor())
ONEDNN = torch.backends.cpu.get_cpu_capability() == "AVX512" and hasattr(torch.ops.mkldnn, "_linear_pointwise")
tanh_backward = torch.ops.aten.tanh_backward


def flatten(model: nn.Module) -> nn.Parameter:
    """Lay the model's parameters, and their gradients, one after the other in one vector, which is returned.

    The model goes on as before: its parameters and their .grad are views of the vector and of its .grad.
    """
    flat = nn.Parameter(torch.cat([p.detach().flatten() for p in model.parameters()]))
    flat.grad = torch.zeros_like(flat)
    sizes = [p.numel() for p in model.parameters()]
    for p, data, grad in zip(model.parameters(), flat.data.split(sizes), flat.grad.split(sizes)):
        p.data, p.grad = data.view_as(p), grad.view_as(p)
    return flat


def supports(model: LeNet5) -> bool:
    """Whether Gradient computes this network: squashing and trainable subsampling, either connection, either output."""
    return isinstance(model.squash, Squash) and isinstance(model.s2, Subsampling)


class PatchConvolution:
    """A 5x5 convolution with C input and M output maps as one product: (4M, 36C + 1) weights @ (36C + 1, n) columns.

    Weights: row (m, i, j) makes unit (i, j) of the 2x2 patches of map m; of its 6x6 weights for an input map, 25 are
    the kernel, shifted by (i, j), and 11 are 0; the last one is the bias. All come from `c_theta`: c theta of C1 to S4,
    of which this layer's are the elements from `first` on, and a 0. dE/d(c theta) of the layer goes into `gradient`.
    Columns: the 6x6 inputs (p, q) of one patch in all input maps, and a 1. `inputs` is the layer's input, so viewed:
    (p // 2, q // 2, map, p % 2, q % 2, place and pattern).
    """

    def __init__(self, layer: nn.Module, c_theta: Tensor, first: int, gradient: Tensor, inputs: Tensor):
        table = isinstance(layer, TableConvolution)
        maps, in_maps = (layer.shape if table else layer.weight.shape)[:2]
        to_map, from_map = layer.connections.cpu() if table else torch.ones(maps, in_maps).nonzero().T
        kernels, biases = torch.arange(first, first + len(gradient)).split([25 * len(to_map), maps])
        index = torch.full((maps, 2, 2, in_maps, 6, 6), len(c_theta) - 1)
        for i, j in (0, 0), (0, 1), (1, 0), (1, 1):
            index[to_map, i, j, from_map, i : i + 5, j : j + 5] = kernels.view(-1, 5, 5)
        index = index.view(4 * maps, in_maps, 3, 2, 3, 2).permute(0, 2, 4, 1, 3, 5).flatten(1)
        index = torch.cat([index, biases.repeat_interleave(4).unsqueeze(1)], 1)
        uses = index.T.flatten().argsort(stable=True)[: 4 * len(gradient)].view(-1, 4)  # of each parameter
        self.index, self.uses = (places.flatten().to(c_theta.device) for places in (index, uses.T))
        self.c_theta, self.gradient, self.inputs = c_theta, gradient, inputs
        self.weights = c_theta.new_empty(index.shape)
        self.columns = c_theta.new_ones(36 * in_maps + 1, inputs.numel() // (36 * in_maps))
        self.patches = self.columns[:-1].view(inputs.shape)

    def forward(self) -> Tensor:
        """-> t (4M, n)."""
        self.patches.copy_(self.inputs)
        torch.index_select(self.c_theta, 0, self.index, out=self.weights.view(-1))
        return tanh_(product(self.weights, self.columns))

    def backward(self, du: Tensor):
        """dE/du (4M, n) -> the gradient: each parameter is used in four rows."""
        uses = product(self.columns, du.T).view(-1).index_select(0, self.uses)
        torch.sum(uses.view(4, -1), 0, out=self.gradient)


class PatchSubsampling:
    """S2 or S4, with M maps: t = tanh(coefficient s + bias), both times c; s is the sum of a patch's four t."""

    def __init__(self, c_theta: Tensor, gradient: Tensor, places: int):
        self.coefficient, self.bias = c_theta.view(2, -1, 1)
        self.coefficient_grad, self.bias_grad = gradient.view(2, -1)
        self.t = c_theta.new_empty(len(self.bias), places)

    def forward(self, t_in: Tensor):
        """t of the four units of each patch (4M, n) -> self.t (M, n)."""
        self.t_in = t_in.view(-1, 4, t_in.shape[1])
        self.sums = self.t_in.sum(1)
        tanh_(torch.mul(self.sums, self.coefficient, out=self.t).add_(self.bias))

    def backward(self, dt: Tensor) -> Tensor:
        """dE/dt (M, n) -> the gradient; returns dE/du of the patches' units (4M, n), in place of t_in."""
        du = tanh_backward(dt, self.t)  # dt (1 - t^2)
        torch.sum(du, 1, out=self.bias_grad)
        torch.sum(du * self.sums, 1, out=self.coefficient_grad)
        dt_in = du.mul_(self.coefficient).unsqueeze(1)
        return tanh_backward.grad_input(dt_in, self.t_in, grad_input=self.t_in).flatten(0, 1)


class Dense:
    """A layer that sees all of its input at once: a = W x + b, where a column is a pattern."""

    def __init__(self, layer: nn.Conv2d | nn.Linear):
        self.weight, self.bias = layer.weight.detach().flatten(1), layer.bias.detach().unsqueeze(1)
        self.weight_grad, self.bias_grad = layer.weight.grad.flatten(1), layer.bias.grad

    def forward(self, x: Tensor) -> Tensor:
        """x (inputs, B) -> a (units, B)."""
        self.x = x
        return torch.addmm(self.bias, self.weight, x)

    def backward(self, da: Tensor) -> Tensor:
        """dE/da (units, B) -> the parameters' gradient; returns dE/dx (inputs, B)."""
        torch.mm(da, self.x.T, out=self.weight_grad)
        torch.sum(da, 1, out=self.bias_grad)
        return torch.mm(self.weight.T, da)


class Gradient:
    """Loss (model.map_loss: eq. 9, or cross-entropy) and gradient of B patterns, for a flattened model.

    Call it with images uint8 (B, 32, 32) and labels (B,); it returns the patterns' losses (B,) and class scores (B, 10)
    and writes the gradient of `factor` times the sum of the losses into the model's .grad.
    """

    def __init__(self, model: LeNet5, batch_size: int, factor: float, j: float | None):
        new, B = model.c1.weight.detach().new_zeros, batch_size
        parameters = [p for layer in (model.c1, model.s2, model.c3, model.s4) for p in layer.parameters()]
        self.c = torch.cat([new(p.numel()).fill_(c) for p, c in zip(parameters, C)])
        n = self.c.shape  # C1 to S4 have the first elements of the flat vector
        self.theta, self.grad = (t.as_strided(n, (1,)) for t in (model.c1.weight.detach(), model.c1.weight.grad))
        c_theta, self.c_grad = new(len(self.c) + 1), new(n)
        self.c_theta, starts = c_theta[:-1], [p.storage_offset() for p in parameters[2::2]]
        (_, s2, _, s4), (d1, d2, d3, d4) = self.c_theta.tensor_split(starts), self.c_grad.tensor_split(starts)
        # S2's 14x14 units lie as (row % 2, column % 2, row // 2, column // 2): a patch's inputs are neighbours.
        self.s2, self.s4 = PatchSubsampling(s2, d2, 14 * 14 * B), PatchSubsampling(s4, d4, 5 * 5 * B)
        self.x, self.dt2 = new(32 * 32, B), new(6, 14 * 14 * B)
        x = self.x.view(32, 32, B).unfold(0, 6, 2).unfold(1, 6, 2).view(7, 2, 7, 2, B, 3, 2, 3, 2)
        t2, dt2 = (t.view(24, 7, 7, B).unfold(1, 5, 1).unfold(2, 5, 1) for t in (self.s2.t, self.dt2))
        self.c1 = PatchConvolution(model.c1, c_theta, 0, d1, x.permute(5, 7, 6, 8, 1, 3, 0, 2, 4))
        self.c3 = PatchConvolution(model.c3, c_theta, starts[1], d3, t2.permute(1, 2, 0, 4, 5, 3))
        self.dt2_patches = [patch for row in dt2.permute(1, 2, 0, 4, 5, 3) for patch in row]
        self.c5, self.f6 = Dense(model.c5), Dense(model.f6)
        self.output = model.output if isinstance(model.output, RBF) else Dense(model.output)
        self.factor, self.one_hot = factor, torch.eye(11, dtype=self.x.dtype, device=self.x.device)
        self.rubbish = new(1, B).fill_(-math.inf if j is None else -j)  # the score of eq. 9's eleventh class

    @torch.inference_mode()
    def __call__(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        torch.mul(self.c, self.theta, out=self.c_theta)
        self.x.copy_(images.flatten(1).T).mul_((INK - BACKGROUND) / 255).add_(BACKGROUND)
        self.s2.forward(self.c1.forward())  # t: (24, 196 B), (6, 196 B)
        self.s4.forward(self.c3.forward())  # t: (64, 25 B), (16, 25 B)
        t5 = self.c5.forward(A * self.s4.t.view(400, -1)).mul_(S).tanh_()  # (120, B)
        t6 = self.f6.forward(A * t5).mul_(S).tanh_()  # (84, B)
        x6 = A * t6
        if isinstance(self.output, RBF):
            differences = x6 - self.output.codes.unsqueeze(2)  # (10, 84, B)
            scores = differences.square().sum(1).neg_()
        else:
            scores = self.output.forward(x6)
        log_p = torch.log_softmax(torch.cat([scores, self.rubbish]), 0)  # (11, B)
        losses = F.nll_loss(log_p.T, labels, reduction="none")
        ds = (log_p.exp_() - self.one_hot.index_select(1, labels))[:10] * self.factor
        if isinstance(self.output, RBF):
            dx6 = (ds.unsqueeze(1) * differences).sum(0).mul_(-2)
        else:
            dx6 = self.output.backward(ds)
        dx5 = self.f6.backward(tanh_backward(dx6, t6).mul_(A * S))
        dx4 = self.c5.backward(tanh_backward(dx5, t5).mul_(A * S))
        du3 = self.s4.backward(dx4.mul_(A).view(16, -1))
        self.c3.backward(du3)
        errors = product(self.c3.weights.T, du3)  # dE/d(columns of C3)
        self.dt2.zero_()
        for patch, error in zip(self.dt2_patches, errors[:-1].view(9, 24, 5, 5, -1)):
            patch += error
        self.c1.backward(self.s2.backward(self.dt2))
        torch.mul(self.c, self.c_grad, out=self.grad)
        return losses, scores.T


def product(a: Tensor, b: Tensor) -> Tensor:
    """a @ b, of C1 or C3. On AMD with AVX-512 large ones go to oneDNN: MKL, behind torch.mm, is slow there."""
    if AMD and ONEDNN and a.device.type == "cpu" and a.dtype == torch.float32 and a.numel() * b.shape[1] > 1_000_000:
        return torch.ops.mkldnn._linear_pointwise(a, b.T, None, "none", [], "")  # F.linear(a, b.T)
    return torch.mm(a, b)


def tanh_(u: Tensor) -> Tensor:
    """tanh(u), of C1 to S4, in place of u. On AMD by way of the logistic function: MKL's tanh is slow there, too."""
    return u.mul_(2).sigmoid_().mul_(2).sub_(1) if AMD and u.device.type == "cpu" else u.tanh_()
