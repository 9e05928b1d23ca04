"""LeNet5's loss and gradient written out by hand: the same function of the same parameters, but faster.

Three ideas do it. All parameters lie in one vector, so that an optimizer's step is one operation. Activations are
matrices, a row a unit and a column a place and pattern, the patterns last: every layer is one matrix product, and
every rearrangement copies whole runs of memory. And a convolution is done for the four units of each 2x2 patch at
once, which makes subsampling a sum of rows and copies 36 inputs a patch where the usual way copies 100.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model import BACKGROUND, INK, RBF, LeNet5, Squash, Subsampling, TableConvolution

A, S = Squash.A, Squash.S
tanh_backward, sigmoid_backward = torch.ops.aten.tanh_backward, torch.ops.aten.sigmoid_backward


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
    the kernel, shifted by (i, j), and 11 are 0; the last one is the bias. Columns: the 6x6 inputs (p, q) of one patch
    in all input maps, ordered (p // 2, q // 2, map, p % 2, q % 2), and a 1.
    """

    def __init__(self, layer: nn.Conv2d | TableConvolution, in_maps: int, places: int):
        maps, count = len(layer.bias), layer.weight.numel()
        if isinstance(layer, TableConvolution):
            to_map, from_map = layer.connections.cpu()
        else:
            to_map, from_map = torch.cartesian_prod(torch.arange(maps), torch.arange(in_maps)).T
        zero = count + maps  # where [kernels, biases, 0] holds the 0
        index = torch.full((maps, 2, 2, in_maps, 6, 6), zero)
        for i, j in (0, 0), (0, 1), (1, 0), (1, 1):
            index[to_map, i, j, from_map, i : i + 5, j : j + 5] = torch.arange(count).view(-1, 5, 5)
        index = index.view(4 * maps, in_maps, 3, 2, 3, 2).permute(0, 2, 4, 1, 3, 5).flatten(1)
        biases = torch.arange(count, zero).repeat_interleave(4).unsqueeze(1)
        self.index = torch.cat([index, biases], 1).to(layer.bias.device)
        self.uses = self.index.flatten().argsort(stable=True)[: 4 * zero].view(zero, 4)
        # kernels and biases are neighbours in the flat vector
        self.parameters = layer.weight.detach().as_strided((zero,), (1,))
        self.gradient = layer.weight.grad.as_strided((zero,), (1,))
        self.columns = layer.bias.detach().new_ones(36 * in_maps + 1, places)
        self.error = torch.empty_like(self.columns)

    def forward(self, inputs: Tensor) -> Tensor:
        """inputs, a view of the layer's input with the columns' shape, -> weighted sums (M, 4, n)."""
        self.columns[:-1].view(inputs.shape).copy_(inputs)
        self.weights = F.pad(self.parameters, (0, 1)).take(self.index)
        return torch.mm(self.weights, self.columns).unflatten(0, (-1, 4))

    def backward(self, da: Tensor):
        """dE/d(weighted sums) (M, 4, n) -> the parameters' gradient: each one is used in four rows."""
        uses = torch.mm(da.flatten(0, 1), self.columns.T).take(self.uses)
        torch.sum(uses, 1, out=self.gradient)

    def backward_to_input(self, da: Tensor):
        """dE/d(weighted sums) (M, 4, n) -> dE/d(columns) (36C + 1, n), in self.error."""
        torch.mm(self.weights.T, da.flatten(0, 1), out=self.error)


class Gradient:
    """Loss (model.map_loss: eq. 9, or cross-entropy) and gradient of B patterns, for a flattened model.

    Call it with images uint8 (B, 32, 32) and labels (B,); it returns the patterns' losses (B,) and class scores (B, 10)
    and writes the gradient of `factor` times the sum of the losses into the model's .grad.

    Squashing is done as x = A tanh(S a) = A (2 z - 1), with z the logistic function of 2 S a.
    """

    def __init__(self, model: LeNet5, batch_size: int, factor: float, j: float | None):
        new = model.c1.weight.detach().new_empty
        B = batch_size
        self.model, self.factor = model, factor
        self.c1 = PatchConvolution(model.c1, 1, 14 * 14 * B)
        self.c3 = PatchConvolution(model.c3, 6, 5 * 5 * B)
        # S2's 14x14 units lie as (row % 2, column % 2, row // 2, column // 2): a patch's inputs are neighbours.
        self.x = new(32 * 32, B)
        r, c = 32 * B, B
        self.x_patches = self.x.as_strided(
            (3, 3, 2, 2, 2, 2, 7, 7, B), (2 * r, 2 * c, r, c, 2 * r, 2 * c, 4 * r, 4 * c, 1)
        )
        self.x2, self.dx2 = new(6, 2, 2, 7, 7, B), new(6, 2, 2, 7, 7, B)
        r, c = 7 * B, B
        self.x2_patches = self.x2.as_strided((3, 3, 24, 5, 5, B), (r, c, 49 * B, r, c, 1))
        overlaps = self.c3.error[:-1].view(3, 3, 6, 2, 2, 5, 5, B)
        self.overlaps = [(self.dx2[..., p : p + 5, q : q + 5, :], overlaps[p, q]) for p in range(3) for q in range(3)]
        self.scores = new(11, B).fill_(-math.inf if j is None else -j)  # last row: eq. 9's rubbish class
        self.one_hot = torch.eye(11, dtype=self.x.dtype, device=self.x.device)

    @torch.no_grad()
    def __call__(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        m = self.model
        self.x.copy_(images.flatten(1).T).mul_((INK - BACKGROUND) / 255).add_(BACKGROUND)
        z1 = logistic_(self.c1.forward(self.x_patches))  # (6, 4, 196 B)
        sum1, z2 = subsample(m.s2, z1)  # (6, 196 B)
        torch.sub(z2, 1 / 2, out=self.x2.view(6, -1)).mul_(2 * A)
        z3 = logistic_(self.c3.forward(self.x2_patches))  # (16, 4, 25 B)
        sum3, z4 = subsample(m.s4, z3)  # (16, 25 B)
        x4 = (z4 - 1 / 2).mul_(2 * A).view(400, -1)
        t5 = torch.tanh(dense(m.c5, x4).mul_(S))  # (120, B)
        x5 = A * t5
        t6 = torch.tanh(dense(m.f6, x5).mul_(S))  # (84, B)
        x6 = A * t6
        scores = self.scores[:10]
        if isinstance(m.output, RBF):
            differences = x6 - m.output.codes.unsqueeze(2)  # (10, 84, B)
            torch.sum(differences.square(), 1, out=scores).neg_()
        else:
            scores.copy_(dense(m.output, x6))

        log_p = torch.log_softmax(self.scores, 0)  # (11, B)
        losses = -log_p.gather(0, labels.unsqueeze(0)).squeeze(0)
        ds = (log_p.exp_() - self.one_hot.index_select(1, labels))[:10] * self.factor

        if isinstance(m.output, RBF):
            dx6 = (ds.unsqueeze(1) * differences).sum(0).mul_(-2)
        else:
            dx6 = dense_backward(m.output, ds, x6)
        dx5 = dense_backward(m.f6, tanh_backward(dx6, t6).mul_(A * S), x5)
        dx4 = dense_backward(m.c5, tanh_backward(dx5, t5).mul_(A * S), x4)
        da3 = subsample_backward(m.s4, dx4.view(16, -1), z4, sum3, z3)
        self.c3.backward(da3)
        self.c3.backward_to_input(da3)
        self.dx2.zero_()
        for inputs, errors in self.overlaps:
            inputs += errors
        self.c1.backward(subsample_backward(m.s2, self.dx2.view(6, -1), z2, sum1, z1))
        return losses, scores.T


def logistic_(a: Tensor) -> Tensor:
    """z = 1 / (1 + exp(-2 S a)), in place: tanh by way of it costs a fifth of torch.tanh."""
    return a.mul_(2 * S).sigmoid_()


def subsample(layer: Subsampling, z: Tensor) -> tuple[Tensor, Tensor]:
    """The four rows z of each patch (M, 4, n) -> the sum of their x, and the unit's own z, both (M, n)."""
    sums = z.sum(1).sub_(2).mul_(2 * A)
    a = torch.addcmul(layer.bias.unsqueeze(1), layer.coefficient.unsqueeze(1), sums)
    return sums, logistic_(a)


def subsample_backward(layer: Subsampling, dx: Tensor, z: Tensor, sums: Tensor, z_in: Tensor) -> Tensor:
    """dE/dx of the units (M, n) -> dE/da of the four below each (M, 4, n), where dx/da = 4 A S z (1 - z)."""
    da = sigmoid_backward(dx, z).mul_(4 * A * S)
    torch.sum(da, 1, out=layer.bias.grad)
    torch.sum(da * sums, 1, out=layer.coefficient.grad)
    dx_in = da.mul_(layer.coefficient.unsqueeze(1) * (4 * A * S))
    return sigmoid_backward(dx_in.unsqueeze(1), z_in)


def dense(layer: nn.Conv2d | nn.Linear, x: Tensor) -> Tensor:
    """A layer that sees all of its input at once: x (inputs, B) -> weighted sums (units, B)."""
    return torch.addmm(layer.bias.unsqueeze(1), layer.weight.flatten(1), x)


def dense_backward(layer: nn.Conv2d | nn.Linear, da: Tensor, x: Tensor) -> Tensor:
    """dE/da (units, B) -> dE/dx (inputs, B)."""
    torch.mm(da, x.T, out=layer.weight.grad.flatten(1))
    torch.sum(da, 1, out=layer.bias.grad)
    return torch.mm(layer.weight.flatten(1).T, da)
