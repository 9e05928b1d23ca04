"""LeNet5's loss and gradient written out by hand: the same function of the same parameters, but faster.

Three ideas do it. All parameters lie in one vector, so that an optimizer's step is one operation. Activations are
matrices, a row a unit and a column a place and pattern, the patterns last: every layer is one matrix product, and
every rearrangement copies whole runs of memory. And a convolution is done for the four units of each 2x2 patch at
once, which makes subsampling a sum of rows and copies 36 inputs a patch where the usual way copies 100.

C1 to S4 squash by way of the logistic function, which is cheaper than tanh: x = A tanh(S a) = 2 A (z - 1/2), where
z = logistic(u), u = 2 S a. Near 0, z - 1/2 loses digits; C5 and F6, which have few units, take tanh itself.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model import BACKGROUND, INK, RBF, LeNet5, Squash, Subsampling, TableConvolution

A, S = Squash.A, Squash.S
X, U = 2 * A, 2 * S  # dx/dz and du/da: x = X (z - 1/2), u = U a, so dx/du = X z (1 - z)
ONEDNN = torch.backends.cpu.get_cpu_capability() == "AVX512" and hasattr(torch.ops.mkldnn, "_linear_pointwise")
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
    the kernel, shifted by (i, j), and 11 are 0; the last one is the bias. All are times U, so that the product is u.
    Columns: the 6x6 inputs (p, q) of one patch in all input maps, ordered (p // 2, q // 2, map, p % 2, q % 2), and a 1.
    """

    def __init__(self, layer: nn.Conv2d | TableConvolution, in_maps: int, places: int):
        maps, count = len(layer.bias), layer.weight.numel()
        if isinstance(layer, TableConvolution):
            to_map, from_map = layer.connections.cpu()
        else:
            to_map, from_map = torch.cartesian_prod(torch.arange(maps), torch.arange(in_maps)).T
        zero = count + maps  # where [kernels, biases, 0] has its 0
        index = torch.full((maps, 2, 2, in_maps, 6, 6), zero)
        for i, j in (0, 0), (0, 1), (1, 0), (1, 1):
            index[to_map, i, j, from_map, i : i + 5, j : j + 5] = torch.arange(count).view(-1, 5, 5)
        index = index.view(4 * maps, in_maps, 3, 2, 3, 2).permute(0, 2, 4, 1, 3, 5).flatten(1)
        biases = torch.arange(count, zero).repeat_interleave(4).unsqueeze(1)
        self.index = torch.cat([index, biases], 1).flatten().to(layer.bias.device)
        self.uses = self.index.argsort(stable=True)[: 4 * zero]
        self.parameters = layer.weight.detach().as_strided((zero,), (1,))  # the biases follow in the flat vector
        self.gradient = layer.weight.grad.as_strided((zero,), (1,))
        self.scaled = self.parameters.new_zeros(zero + 1)  # [kernels, biases, 0], times U
        self.columns = self.parameters.new_ones(36 * in_maps + 1, places)

    def forward(self, inputs: Tensor) -> Tensor:
        """inputs, a view of the layer's input with the columns' shape, -> u (M, 4, n)."""
        self.columns[:-1].view(inputs.shape).copy_(inputs)
        torch.mul(self.parameters, U, out=self.scaled[:-1])
        self.weights = self.scaled.index_select(0, self.index).view(-1, len(self.columns))
        return product(self.weights, self.columns).unflatten(0, (-1, 4))

    def backward(self, du: Tensor):
        """dE/du (M, 4, n) -> the parameters' gradient: each one is used in four rows."""
        uses = product(du.flatten(0, 1), self.columns.T).flatten().index_select(0, self.uses)
        torch.sum(uses.view(-1, 4), 1, out=self.gradient).mul_(U)

    def backward_to_input(self, du: Tensor) -> Tensor:
        """dE/du (M, 4, n) -> dE/d(columns) (36C + 1, n)."""
        return product(self.weights.T, du.flatten(0, 1))


class PatchSubsampling:
    """S2 or S4, with M maps: u = U (coefficient X s + bias), where s is the sum of a patch's z, less 2."""

    def __init__(self, layer: Subsampling):
        self.coefficient, self.bias = layer.coefficient.detach().unsqueeze(1), layer.bias.detach().unsqueeze(1)
        self.coefficient_grad, self.bias_grad = layer.coefficient.grad, layer.bias.grad

    def forward(self, z_in: Tensor) -> Tensor:
        """z of the four units of each patch (M, 4, n) -> z of the unit that they feed (M, n)."""
        self.z_in, self.sums = z_in, z_in.sum(1).sub_(2)
        self.z = torch.mul(self.sums, X * U * self.coefficient).add_(U * self.bias).sigmoid_()
        return self.z

    def backward(self, dx: Tensor) -> Tensor:
        """dE/dx (M, n) -> the parameters' gradient; returns dE/du of the patches' units (M, 4, n), in place of z_in."""
        du = sigmoid_backward(dx, self.z)  # dx z (1 - z): dE/du over X
        torch.sum(du, 1, out=self.bias_grad).mul_(X * U)
        torch.sum(du * self.sums, 1, out=self.coefficient_grad).mul_(X * U * X)
        dx_in = du.mul_(X * U * self.coefficient * X).unsqueeze(1)  # times X, for the slope there
        return sigmoid_backward.grad_input(dx_in, self.z_in, grad_input=self.z_in)


class Dense:
    """A layer that sees all of its input at once: a = W x + b, where a column is a pattern."""

    def __init__(self, layer: nn.Conv2d | nn.Linear):
        self.weight, self.bias = layer.weight.detach().flatten(1), layer.bias.detach().unsqueeze(1)
        self.weight_grad, self.bias_grad = layer.weight.grad.flatten(1), layer.bias.grad

    def forward(self, x: Tensor) -> Tensor:
        """x (inputs, B) -> weighted sums (units, B)."""
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
        new, B = model.c1.weight.detach().new_empty, batch_size
        self.factor = factor
        self.c1 = PatchConvolution(model.c1, 1, 14 * 14 * B)
        self.c3 = PatchConvolution(model.c3, 6, 5 * 5 * B)
        self.s2, self.s4 = PatchSubsampling(model.s2), PatchSubsampling(model.s4)
        self.c5, self.f6 = Dense(model.c5), Dense(model.f6)
        self.output = model.output if isinstance(model.output, RBF) else Dense(model.output)
        # S2's 14x14 units lie as (row % 2, column % 2, row // 2, column // 2): a patch's inputs are neighbours.
        self.x, self.x2, self.dx2 = new(32 * 32, B), new(6, 14 * 14 * B), new(6, 2, 2, 7, 7, B)
        r, c = 32 * B, B
        self.x_patches = self.x.as_strided(
            (3, 3, 2, 2, 2, 2, 7, 7, B), (2 * r, 2 * c, r, c, 2 * r, 2 * c, 4 * r, 4 * c, 1)
        )
        r, c = 7 * B, B
        self.x2_patches = self.x2.as_strided((3, 3, 24, 5, 5, B), (r, c, 49 * B, r, c, 1))
        self.inputs_at = [self.dx2[..., p : p + 5, q : q + 5, :] for p in range(3) for q in range(3)]
        self.scores = new(11, B).fill_(-math.inf if j is None else -j)  # last row: eq. 9's rubbish class
        self.one_hot = torch.eye(11, dtype=self.x.dtype, device=self.x.device)

    @torch.inference_mode()
    def __call__(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        self.x.copy_(images.flatten(1).T).mul_((INK - BACKGROUND) / 255).add_(BACKGROUND)
        z1 = self.c1.forward(self.x_patches).sigmoid_()  # (6, 4, 196 B)
        z2 = self.s2.forward(z1)  # (6, 196 B)
        torch.sub(z2, 1 / 2, out=self.x2).mul_(X)
        z3 = self.c3.forward(self.x2_patches).sigmoid_()  # (16, 4, 25 B)
        z4 = self.s4.forward(z3)  # (16, 25 B)
        x4 = (z4 - 1 / 2).mul_(X).view(400, -1)
        t5 = self.c5.forward(x4).mul_(S).tanh_()  # (120, B)
        x5 = A * t5
        t6 = self.f6.forward(x5).mul_(S).tanh_()  # (84, B)
        x6 = A * t6
        scores = self.scores[:10]
        if isinstance(self.output, RBF):
            differences = x6 - self.output.codes.unsqueeze(2)  # (10, 84, B)
            torch.sum(differences.square(), 1, out=scores).neg_()
        else:
            scores.copy_(self.output.forward(x6))

        log_p = torch.log_softmax(self.scores, 0)  # (11, B)
        losses = F.nll_loss(log_p.T, labels, reduction="none")
        ds = (log_p.exp_() - self.one_hot.index_select(1, labels))[:10] * self.factor

        if isinstance(self.output, RBF):
            dx6 = (ds.unsqueeze(1) * differences).sum(0).mul_(-2)
        else:
            dx6 = self.output.backward(ds)
        dx5 = self.f6.backward(tanh_backward(dx6, t6).mul_(A * S))
        dx4 = self.c5.backward(tanh_backward(dx5, t5).mul_(A * S))
        du3 = self.s4.backward(dx4.view(16, -1))
        self.c3.backward(du3)
        errors = self.c3.backward_to_input(du3)[:-1].view(9, *self.inputs_at[0].shape)
        self.dx2.zero_()
        for inputs, error in zip(self.inputs_at, errors):
            inputs += error
        self.c1.backward(self.s2.backward(self.dx2.view(6, -1)))
        return losses, scores.T


def product(a: Tensor, b: Tensor) -> Tensor:
    """a @ b, of C1 or C3. Large ones go to oneDNN: MKL, behind torch.mm, took twice as long on an AMD CPU."""
    if ONEDNN and a.device.type == "cpu" and a.dtype == torch.float32 and a.numel() * b.shape[1] > 1_000_000:
        return torch.ops.mkldnn._linear_pointwise(a, b.T, None, "none", [], "")  # F.linear(a, b.T)
    return torch.mm(a, b)
