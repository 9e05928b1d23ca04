"""Stochastic diagonal Levenberg-Marquardt, the training method of the 1998 paper (section III and appendix C).

Every parameter w_k has a step of its own, eta / (mu + h_kk). Its curvature h_kk is the diagonal of the Gauss-Newton
approximation, propagated back layer by layer. Where unit i has the weighted sum a_i = sum_j u_ij x_j and the state
x_i = f(a_i), and E is the loss of one pattern:

    d2E/da_i^2  = f'(a_i)^2 d2E/dx_i^2        without the term in f'', so that no curvature is negative
    d2E/dx_j^2  = sum_i u_ij^2 d2E/da_i^2
    d2E/du_ij^2 = x_j^2 d2E/da_i^2
    h_kk        = sum of d2E/du_ij^2 over the connections (i, j) that share w_k, averaged over patterns

No cross terms between connections: h_kk is neither the squared gradient nor the exact diagonal of J^T J.
In the code h_x, h_a and h_w are d2E/dx^2, d2E/da^2 and d2E/dw^2, each with the shape of what it belongs to.
"""

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from model import RBF, LeNet5, Places, Squash, Subsampling, TableConvolution

MU = 0.02  # keeps the steps of weights with little curvature from growing without bound (section III)


def step_sizes(lr: float | Tensor, h: Tensor, mu: float = MU) -> Tensor:
    """The step of each parameter, lr / (mu + h), from its curvature h: the paper's epsilon (appendix C). Any shape."""
    return lr / (mu + h)


class DiagonalLM(torch.optim.Optimizer):
    """w <- w - lr / (mu + h) * gradient, elementwise, with h the parameter's curvature (appendix C).

    The state of a parameter is its `curvature` h and its `rate` lr / (mu + h), both of its shape, and `step`, the count
    of steps taken. Rates are 0 until `set_curvature` is called; a new lr takes effect there, too. (In a training run
    State.estimate_curvature writes them, for all ways to take a step.) All are written in place, so that a captured
    CUDA graph follows. Raises ValueError unless lr, a number or tensor, and mu are positive.
    """

    def __init__(self, params, lr: float | Tensor, mu: float = MU):
        if not lr > 0:
            raise ValueError(f"lr is {lr}, but must be positive")
        if not mu > 0:
            raise ValueError(f"mu is {mu}, but must be positive")
        super().__init__(params, {"lr": lr, "mu": mu})
        for group in self.param_groups:
            for p in group["params"]:
                zeros = {kind: torch.zeros_like(p, requires_grad=False) for kind in ("curvature", "rate")}
                self.state[p] = {"step": torch.zeros((), device=p.device), **zeros}

    @torch.no_grad()
    def set_curvature(self, curvatures: Sequence[Tensor]):
        """Take over a new curvature: one tensor a parameter, in the order and with the shapes of the parameters.

        Raises ValueError, and changes nothing, if their number or a shape differs.
        """
        pairs = [(group, p) for group in self.param_groups for p in group["params"]]
        shapes, expected = [tuple(h.shape) for h in curvatures], [tuple(p.shape) for _, p in pairs]
        if shapes != expected:
            raise ValueError(f"curvatures have shapes {shapes}, but the parameters have {expected}")
        for (group, p), h in zip(pairs, curvatures):
            state = self.state[p]
            state["curvature"].copy_(h)
            state["rate"].copy_(step_sizes(group["lr"], h, group["mu"]))

    @torch.no_grad()
    def step(self):
        """One step down the gradients."""
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is not None:
                    self.state[p]["step"] += 1
                    p.addcmul_(p.grad, self.state[p]["rate"], value=-1)


def curvature(model: LeNet5, images: Tensor, factor: float = 1.0, f6: float | None = None) -> list[Tensor]:
    """h_kk of every parameter, in the order of model.parameters(), averaged over images (N, 1, 32, 32).

    `factor` is the factor that the loss carries. Neither the model nor its gradients change, and no label is needed:
    - RBF output: E = sum_j (x_j - w_j)^2 (eq. 8) has d2E/dx^2 = 2 for each of F6's 84 states, whichever the class,
      times the factors of loss and distance. Eq. 9 starts there, too: through its logarithm the curvature of an
      untrained network would be almost 0. `f6` is what it is instead, if given.
    - Linear output: the Gauss-Newton term of the cross-entropy on the ten logits, the diagonal p (1 - p), p = softmax.
    """
    layers = [module for modules in model.layers().values() for module in modules]
    if isinstance(model.output, RBF):
        value = 2 * factor * model.output.factor if f6 is None else f6
        return propagate_back(layers[:-1], images, lambda states: torch.full_like(states, value))

    def start(logits):
        p = logits.softmax(-1)
        return factor * p * (1 - p)

    return propagate_back(layers, images, start)


@torch.no_grad()
def propagate_back(layers: Sequence[nn.Module], images: Tensor, start: Callable[[Tensor], Tensor]) -> list[Tensor]:
    """h_kk of the parameters of a chain of layers, first to last, averaged over the images (N, ...).

    `start` gives d2E/dx^2 of the chain's output, (N, ...) -> (N, ...). Raises KeyError on a layer without a rule below.
    """
    inputs = [images]
    for layer in layers:
        inputs.append(layer(inputs[-1]))
    h = start(inputs.pop()) / len(images)
    curvatures = []
    for layer, x in zip(reversed(layers), reversed(inputs)):
        h, h_w = RULES[type(layer)](layer, x, h)
        curvatures = h_w + curvatures
    return curvatures


# The rules take a layer, its input and the second derivatives of its output, and return those of the input
# and, in a list, of the layer's parameters. All tensors are (N, ...) but the last, which are summed over patterns.


@torch.enable_grad()
def weighted_sum(layer: nn.Module, x: Tensor, h_a: Tensor) -> tuple[Tensor, list[Tensor]]:
    """a = sum of u x: h_x = sum of u^2 h_a, and h_w = sum of x^2 h_a over the connections that share w.

    That is ordinary back-propagation through the same layer with each u replaced by u^2 and each x by x^2.
    """
    x2 = x.square().requires_grad_()
    w2 = {name: w.detach().square().requires_grad_() for name, w in layer.named_parameters()}
    h_x, *h_w = torch.autograd.grad(functional_call(layer, w2, x2), [x2, *w2.values()], h_a)
    return h_x, h_w


@torch.enable_grad()
def squashing(layer: nn.Module, a: Tensor, h_x: Tensor) -> tuple[Tensor, list[Tensor]]:
    """x = f(a): h_a = f'(a)^2 h_x."""
    a = a.detach().requires_grad_()
    (slope,) = torch.autograd.grad(layer(a).sum(), a)
    return slope.square() * h_x, []


def subsampling(layer: Subsampling, x: Tensor, h_x: Tensor) -> tuple[Tensor, list[Tensor]]:
    """x = f(c s + b) of the sum s of four inputs.

    The unit adds its inputs first, then multiplies (section II.B): c has one connection a unit, whose input is s.
    """
    s = F.avg_pool2d(x, 2, divisor_override=1)
    c, b = layer.coefficient.view(-1, 1, 1), layer.bias.view(-1, 1, 1)
    h_a, _ = squashing(layer.squash, c * s + b, h_x)
    h_c, h_b = (s.square() * h_a).sum((0, 2, 3)), h_a.sum((0, 2, 3))
    return F.interpolate(c.square() * h_a, scale_factor=2), [h_c, h_b]  # (N, C, H, W) -> (N, C, 2H, 2W)


def averaging(layer: nn.AvgPool2d, x: Tensor, h_a: Tensor) -> tuple[Tensor, list[Tensor]]:
    """The average of each 2x2 patch: four connections whose weight is always 1/4."""
    return F.interpolate(h_a / 16, scale_factor=2), []  # (N, C, H, W) -> (N, C, 2H, 2W)


RULES = {
    nn.Conv2d: weighted_sum,
    TableConvolution: weighted_sum,
    nn.Linear: weighted_sum,
    Places: weighted_sum,  # each output is one input times 1
    Subsampling: subsampling,
    nn.AvgPool2d: averaging,
    Squash: squashing,
    nn.Tanh: squashing,
    nn.Sigmoid: squashing,
    nn.ReLU: squashing,
}
