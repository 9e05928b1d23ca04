"""The curvature by hand and unit by unit, and the optimizer that divides by it."""

import functools
import math

import pytest
import torch
from torch import nn, tensordot
from torch.func import functional_call, jacrev

from model import RBF, LeNet5, Squash, Subsampling
from optimizer import DiagonalLM, curvature, propagate_back


def with_parameters(layer, *values):
    for parameter, value in zip(layer.parameters(), values):
        parameter.data = torch.tensor(value, dtype=torch.float64)
    return layer


def random_network(options):
    """A LeNet5 in double precision whose units work where f bends, and a picture for it."""
    torch.manual_seed(0)
    model = LeNet5(*options).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn_like(parameter) * 1.5 / math.sqrt(parameter[0].numel() + 1))
    return model, torch.randn(1, 1, 32, 32, dtype=torch.float64)


def test_fully_connected_network_by_hand():
    """(1, 2) -> a = (1, 0) -> x = (1, 0) -> y = 4, E = y^2 / 2; f'(1)^2 = 0.570646, f'(0)^2 = (A S)^2 = 1.308583."""
    layers = [
        with_parameters(nn.Linear(2, 2), [[1.0, 0.0], [2.0, -1.0]], [0.0, 0.0]),
        Squash(),
        with_parameters(nn.Linear(2, 1), [[3.0, -2.0]], [1.0]),
    ]
    h = propagate_back(layers, torch.tensor([[1.0, 2.0]], dtype=torch.float64), torch.ones_like)
    by_hand = [[5.135816, 20.543264, 5.234334, 20.937335], [5.135816, 5.234334], [1.0, 0.0], [1.0]]
    for found, expected in zip(h, by_hand, strict=True):  # 9 f'(1)^2 (1, 4) and 4 f'(0)^2 (1, 4)
        assert found.flatten().tolist() == pytest.approx(expected, rel=1e-5)


def test_shared_weights_by_hand():
    """1 2 / -1 2 sums to 4, times c = 1/4 is a = 1; the weights of four connections are shared, with no cross terms."""
    layers = [with_parameters(nn.Conv2d(1, 1, 1), [[[[1.0]]]], [0.0])]
    layers += [with_parameters(Subsampling(1, Squash()), [0.25], [0.0])]
    image = torch.tensor([[[[1.0, 2.0], [-1.0, 2.0]]]], dtype=torch.float64)
    weight, bias, coefficient, unit_bias = (h.item() for h in propagate_back(layers, image, torch.ones_like))
    assert unit_bias == pytest.approx(0.570646, rel=1e-5)  # f'(1)^2
    assert coefficient == pytest.approx(9.130336, rel=1e-5)  # 4^2 f'(1)^2
    assert weight == pytest.approx(0.3566538, rel=1e-5)  # (1 + 4 + 1 + 4) c^2 f'(1)^2
    assert bias == pytest.approx(0.1426615, rel=1e-5)  # 4 c^2 f'(1)^2


def reference_curvature(model, image, factor):
    """The equations of appendix C by whole Jacobians: a weight has one connection to each unit, of derivative da/du."""
    modules = [module for chain in model.layers().values() for module in chain]
    inputs, curvatures = [image], []
    if isinstance(model.output, RBF):
        modules.pop()
    for module in modules:
        inputs.append(module(inputs[-1]))
    p = inputs.pop().softmax(-1)
    h = torch.full_like(p, 2 * factor) if isinstance(model.output, RBF) else factor * p * (1 - p)
    for module, x in zip(reversed(modules), reversed(inputs)):
        call = functools.partial(functional_call, module)
        of_weights, of_inputs = jacrev(call, argnums=(0, 1), chunk_size=64)(dict(module.named_parameters()), x)
        curvatures = [tensordot(h, j.square(), h.dim()) for j in of_weights.values()] + curvatures
        h = tensordot(h, of_inputs.square(), h.dim())
    return curvatures


@pytest.mark.parametrize("options", [("trainable", "table", "squash", "linear"), ("average", "full", "relu", "rbf")])
def test_every_option_unit_by_unit(options):
    model, image = random_network(options)
    found, expected = curvature(model, image, factor=0.3), reference_curvature(model, image, 0.3)
    for h, reference, p in zip(found, expected, model.parameters(), strict=True):
        assert h.shape == p.shape and h.max() > 0
        torch.testing.assert_close(h, reference.detach(), rtol=1e-9, atol=1e-15)


def test_step_by_hand():
    parameter = nn.Parameter(torch.tensor([1.0, 2.0, 3.0]))
    parameter.grad = torch.tensor([1.0, -2.0, 8.0])
    optimizer = DiagonalLM([parameter], lr=0.5, mu=0.25)
    optimizer.step()
    assert parameter.tolist() == [1.0, 2.0, 3.0]  # without a curvature there is no step
    optimizer.set_curvature([torch.tensor([0.25, 0.75, 3.75])])
    optimizer.step()  # the rates are 1, 1/2 and 1/8
    assert parameter.tolist() == [0.0, 3.0, 2.0]
    assert optimizer.effective_steps() == (0.125, 1.0) and optimizer.state[parameter]["step"] == 2


def test_a_new_lr_takes_effect_with_the_next_curvature_in_the_same_memory():
    """As a recorded CUDA graph needs it: it reads this memory."""
    parameter, lr = nn.Parameter(torch.zeros(3)), torch.tensor(0.1)
    optimizer = DiagonalLM([parameter], lr=0.1)
    optimizer.param_groups[0]["lr"] = lr
    curvature = torch.tensor([0.0, 0.5, 2.0])
    optimizer.set_curvature([curvature])
    rate = optimizer.state[parameter]["rate"]
    lr.fill_(0.2)
    torch.testing.assert_close(rate, 0.1 / (0.02 + curvature))
    optimizer.set_curvature([curvature])
    torch.testing.assert_close(rate, 0.2 / (0.02 + curvature))
