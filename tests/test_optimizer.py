import io
import itertools
import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pytest
import torch
from torch import nn

from model import CONNECTION, OUTPUT, SUBSAMPLING, TABLE_I, LeNet5, Squash, Subsampling
from optimizer import DiagonalLM, curvature, propagate_back


def with_parameters(layer, *values):
    for parameter, value in zip(layer.parameters(), values):
        parameter.data = torch.tensor(value, dtype=torch.float64)
    return layer


def random_network(seed=0, **options):
    """A LeNet5 in double precision whose units work where f bends, and images for it."""
    torch.manual_seed(seed)
    model = LeNet5(**options).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn_like(parameter) * 1.5 / math.sqrt(parameter[0].numel() + 1))
    return model, torch.randn(3, 1, 32, 32, dtype=torch.float64)


# By hand


def test_fully_connected_network_by_hand():
    """(1, 2) -> a = (1, 0) -> x = (1, 0) -> y = 4, E = y^2 / 2; f'(1)^2 = 0.570646, f'(0)^2 = (A S)^2 = 1.308583."""
    layers = [
        with_parameters(nn.Linear(2, 2), [[1.0, 0.0], [2.0, -1.0]], [0.0, 0.0]),
        Squash(),
        with_parameters(nn.Linear(2, 1), [[3.0, -2.0]], [1.0]),
    ]
    image = torch.tensor([[1.0, 2.0]], dtype=torch.float64)
    h = propagate_back(layers, image, torch.ones_like)
    by_hand = [
        [[5.135816, 20.543264], [5.234334, 20.937335]],  # 9 f'(1)^2 (1, 4) and 4 f'(0)^2 (1, 4)
        [5.135816, 5.234334],
        [[1.0, 0.0]],
        [1.0],
    ]
    for found, expected in zip(h, by_hand, strict=True):
        torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64), rtol=1e-5, atol=1e-9)

    # One output, no sharing: no cross term to drop, and h is the diagonal of J^T J.
    network = nn.Sequential(*layers)
    jacobian = torch.autograd.grad(network(image).sum(), list(network.parameters()))
    for found, row in zip(h, jacobian, strict=True):
        torch.testing.assert_close(found, row.square())


def test_two_outputs_and_two_patterns_by_hand():
    """a = 2 x = -2 and 2, relu'(a) = 0 and 1, two outputs of weights 3 and 4: d2E/da^2 = 0 and 9 + 16."""
    layers = [with_parameters(nn.Linear(1, 1), [[2.0]], [0.0]), nn.ReLU()]
    layers += [with_parameters(nn.Linear(1, 2), [[3.0], [4.0]], [0.0, 0.0])]
    images = torch.tensor([[-1.0], [1.0]], dtype=torch.float64)
    h = propagate_back(layers, images, torch.ones_like)
    assert [t.tolist() for t in h] == [[[12.5]], [12.5], [[2.0], [2.0]], [1.0, 1.0]]  # means over the two patterns


def test_shared_weights_by_hand():
    """1 2 / -1 2 sums to 4, times c = 1/4 is a = 1; the weights of four connections are shared, with no cross terms."""
    layers = [
        with_parameters(nn.Conv2d(1, 1, 1), [[[[1.0]]]], [0.0]),
        with_parameters(Subsampling(1, Squash()), [0.25], [0.0]),
    ]
    image = torch.tensor([[[[1.0, 2.0], [-1.0, 2.0]]]], dtype=torch.float64)
    weight, bias, coefficient, unit_bias = (h.item() for h in propagate_back(layers, image, torch.ones_like))
    assert unit_bias == pytest.approx(0.570646, rel=1e-5)  # f'(1)^2
    assert coefficient == pytest.approx(9.130336, rel=1e-5)  # 4^2 f'(1)^2
    assert weight == pytest.approx(0.3566538, rel=1e-5)  # (1 + 4 + 1 + 4) c^2 f'(1)^2
    assert bias == pytest.approx(0.1426615, rel=1e-5)  # 4 c^2 f'(1)^2


def test_average_by_hand():
    layers = [with_parameters(nn.Conv2d(1, 1, 1), [[[[1.0]]]], [0.0]), nn.AvgPool2d(2)]
    image = torch.tensor([[[[1.0, 2.0], [-1.0, 2.0]]]], dtype=torch.float64)
    weight, bias = (h.item() for h in propagate_back(layers, image, torch.ones_like))
    assert (weight, bias) == (10 / 16, 4 / 16)


# Unit by unit, in double precision, the derivatives written out

ACTIVATIONS = {  # f, and f' as a function of the state x = f(a)
    "squash": (lambda a: 1.7159 * np.tanh(2 / 3 * a), lambda x: 2 / 3 / 1.7159 * (1.7159**2 - x**2)),
    "tanh": (np.tanh, lambda x: 1 - x**2),
    "sigmoid": (lambda a: 1 / (1 + np.exp(-a)), lambda x: x * (1 - x)),
    "relu": (lambda a: np.maximum(a, 0), lambda x: x > 0),
}


class Layer(NamedTuple):
    """Maps of height x height units; a unit of map m sees window x window units of each of the maps sources[m]."""

    sources: Sequence[Sequence[int]]
    window: int
    stride: int
    height: int
    weight: np.ndarray  # flat, map after map
    bias: np.ndarray
    bends: bool = True
    trainable: bool = True

    def units(self):
        """Where each unit stands, where its inputs are, and which part of weight is its own."""
        stop = 0
        for m, maps in enumerate(self.sources):
            start, stop = stop, stop + len(maps) * self.window**2
            for row, column in itertools.product(range(self.height), repeat=2):
                top, left = row * self.stride, column * self.stride
                sees = slice(top, top + self.window), slice(left, left + self.window)
                yield (m, row, column), (slice(None), list(maps), *sees), slice(start, stop)


def reference_layers(model, subsampling, connection, output):
    w = {name: parameter.detach().numpy().ravel() for name, parameter in model.named_parameters()}

    def subsample(name, maps, height):
        own, zeros = [[m] for m in range(maps)], np.zeros(maps)
        if subsampling == "average":
            return [Layer(own, 2, 2, height, np.full(4 * maps, 1 / 4), zeros, bends=False, trainable=False)]
        sums = Layer(own, 2, 2, height, np.ones(4 * maps), zeros, bends=False, trainable=False)
        return [sums, Layer(own, 1, 1, height, w[f"{name}.coefficient"], w[f"{name}.bias"])]

    layers = [
        Layer([[0]] * 6, 5, 1, 28, w["c1.weight"], w["c1.bias"]),
        *subsample("s2", 6, 14),
        Layer(TABLE_I if connection == "table" else [range(6)] * 16, 5, 1, 10, w["c3.weight"], w["c3.bias"]),
        *subsample("s4", 16, 5),
        Layer([range(16)] * 120, 5, 1, 1, w["c5.weight"], w["c5.bias"]),
        Layer([range(120)] * 84, 1, 1, 1, w["f6.weight"], w["f6.bias"]),
    ]
    if output == "linear":
        layers.append(Layer([range(84)] * 10, 1, 1, 1, w["output.weight"], w["output.bias"], bends=False))
    return layers


def reference_curvature(layers, images, factor, activation, output):
    """The equations of appendix C, one unit after another; states are (N, maps, height, height)."""
    f, slope = ACTIVATIONS[activation]
    states = [images.numpy()]
    for layer in layers:
        x = states[-1]
        a = np.empty((len(x), len(layer.sources), layer.height, layer.height))
        for (m, row, column), inputs, own in layer.units():
            a[:, m, row, column] = x[inputs].reshape(len(x), -1) @ layer.weight[own] + layer.bias[m]
        states.append(f(a) if layer.bends else a)

    x = states.pop()
    if output == "rbf":
        h_x = np.full_like(x, 2 * factor)
    else:
        p = np.exp(x) / np.exp(x).sum(1, keepdims=True)
        h_x = factor * p * (1 - p)

    curvatures = []
    for layer in reversed(layers):
        h_a = slope(x) ** 2 * h_x if layer.bends else h_x
        x = states.pop()
        h_x, h_weight, h_bias = np.zeros_like(x), np.zeros_like(layer.weight), np.zeros_like(layer.bias)
        for (m, row, column), inputs, own in layer.units():
            h = h_a[:, m, row, column]
            h_weight[own] += h @ x[inputs].reshape(len(x), -1) ** 2 / len(x)
            h_bias[m] += h.mean()
            h_x[inputs] += np.outer(h, layer.weight[own] ** 2).reshape(x[inputs].shape)
        if layer.trainable:
            curvatures = [h_weight, h_bias, *curvatures]
    return curvatures


@pytest.mark.parametrize(
    "subsampling, connection, activation, output",
    [
        *itertools.product(SUBSAMPLING, CONNECTION, ["squash"], OUTPUT),
        *itertools.product(["trainable"], ["table"], ["tanh", "sigmoid", "relu"], ["rbf"]),
        *itertools.product(["average"], ["full"], ["tanh", "sigmoid", "relu"], ["linear"]),
    ],
)
def test_every_option_term_by_term(subsampling, connection, activation, output):
    model, images = random_network(subsampling=subsampling, connection=connection, activation=activation, output=output)
    found = curvature(model, images[:2], factor=0.3)
    layers = reference_layers(model, subsampling, connection, output)
    expected = reference_curvature(layers, images[:2], 0.3, activation, output)
    assert [h.shape for h in found] == [p.shape for p in model.parameters()]
    for h, reference in zip(found, expected, strict=True):
        assert h.max() > 0
        np.testing.assert_allclose(h.flatten(), reference, rtol=1e-9, atol=1e-15)


# What the curvature is, and what it is not


def test_f6_and_c5_are_exact_for_one_pattern():
    """One pattern uses each of their weights once, and 2 diag(J^T J), J = dx/dw, is the exact curvature of eq. 8."""
    model, images = random_network(output="rbf")
    h = dict(zip(dict(model.named_parameters()), curvature(model, images[:1], factor=0.3)))
    model.output = nn.Identity()  # leaves the states of F6
    weights = [*model.c5.parameters(), *model.f6.parameters()]
    jacobian = [torch.autograd.grad(state, weights, retain_graph=True) for state in model(images[:1])[0]]
    for name, rows in zip(["c5.weight", "c5.bias", "f6.weight", "f6.bias"], zip(*jacobian, strict=True), strict=True):
        torch.testing.assert_close(h[name], 2 * 0.3 * sum(row.square() for row in rows))


def test_is_not_the_squared_gradient():
    """At a perfect fit of eq. 8 the gradient vanishes, and the curvature does not."""
    model, images = random_network(output="rbf")
    with torch.no_grad():
        model.f6.weight.zero_()
        model.f6.bias.copy_(model.output.codes[3] * 1.5 * math.atanh(1 / 1.7159))  # f(bias) is the code of 3
    loss = -model(images)[:, 3].mean()
    gradient, h = torch.autograd.grad(loss, model.f6.weight)[0], curvature(model, images)[-2]
    assert gradient.square().max() < 1e-20
    assert h.min() > 1e-6


def test_is_the_mean_over_patterns():
    model, images = random_network()
    single = [curvature(model, image[None]) for image in images]
    for h, *of_each in zip(curvature(model, images), *single):
        torch.testing.assert_close(h, torch.stack(of_each).mean(0))


def test_leaves_the_model_alone():
    model, images = random_network()
    model(images).sum().backward()
    before = [(p.clone(), p.grad.clone()) for p in model.parameters()]
    assert not any(h.requires_grad for h in curvature(model, images))
    for p, (value, gradient) in zip(model.parameters(), before):
        assert torch.equal(p, value) and torch.equal(p.grad, gradient) and p.requires_grad


def test_follows_the_type_of_the_model():
    model, images = random_network()
    in_double = curvature(model, images)
    for h, reference in zip(curvature(model.float(), images.float()), in_double):
        assert h.dtype == torch.float32
        torch.testing.assert_close(h.double(), reference, rtol=1e-4, atol=1e-6)


def test_rejects_a_layer_without_a_rule():
    with pytest.raises(KeyError, match="MaxPool2d"):
        propagate_back([nn.MaxPool2d(2)], torch.ones(1, 1, 2, 2), torch.ones_like)


# The optimizer


def parameters_with_gradients(seed=0):
    generator = torch.Generator().manual_seed(seed)
    parameters = [nn.Parameter(torch.randn(shape, generator=generator)) for shape in [(3, 2), (4,), (2, 1, 5)]]
    for parameter in parameters:
        parameter.grad = torch.randn(parameter.shape, generator=generator)
    curvatures = [torch.rand(parameter.shape, generator=generator) for parameter in parameters]
    return parameters, curvatures


def test_step():
    parameter = nn.Parameter(torch.tensor([1.0, 2.0, 3.0]))
    parameter.grad = torch.tensor([1.0, -2.0, 8.0])
    optimizer = DiagonalLM([parameter], lr=0.5, mu=0.25)
    optimizer.set_curvature([torch.tensor([0.25, 0.75, 3.75])])
    optimizer.step()  # the steps are 1, 1/2 and 1/8
    assert parameter.tolist() == [0.0, 3.0, 2.0]
    assert optimizer.effective_steps() == (0.125, 1.0)


def test_step_before_the_first_estimate_is_lr_over_mu():
    parameters, _ = parameters_with_gradients()
    expected = [p - 0.0005 / 0.02 * p.grad for p in parameters]
    DiagonalLM(parameters, lr=0.0005).step()
    for p, value in zip(parameters, expected):
        torch.testing.assert_close(p, value)


def test_step_skips_a_parameter_without_gradient_and_takes_a_closure():
    used, unused = nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(2))
    optimizer = DiagonalLM([used, unused], lr=0.5, mu=1.0)

    def closure():
        optimizer.zero_grad()
        loss = used.square().sum()
        loss.backward()
        return loss

    assert optimizer.step(closure).item() == 2.0
    assert used.tolist() == [0.0, 0.0] and unused.tolist() == [1.0, 1.0]


def test_a_scheduler_changes_the_step():
    parameter = nn.Parameter(torch.zeros(1))
    parameter.grad = torch.ones(1)
    optimizer = DiagonalLM([parameter], lr=1.0, mu=0.5)
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, step_size=1, gamma=0.5)
    optimizer.set_curvature([torch.tensor([0.5])])
    positions = []
    for _ in range(3):
        optimizer.step()
        schedule.step()
        positions.append(parameter.item())
    assert positions == [-1.0, -1.5, -1.75]
    assert optimizer.effective_steps() == (0.125, 0.125)


def test_parameter_groups_have_their_own_lr_and_mu():
    parameters, curvatures = parameters_with_gradients()
    optimizer = DiagonalLM([{"params": parameters[:1]}, {"params": parameters[1:], "lr": 0.2, "mu": 0.1}], lr=0.4)
    optimizer.set_curvature(curvatures)
    expected = [
        p - lr / (mu + h) * p.grad for p, h, lr, mu in zip(parameters, curvatures, (0.4, 0.2, 0.2), (0.02, 0.1, 0.1))
    ]
    optimizer.step()
    for p, value in zip(parameters, expected):
        torch.testing.assert_close(p, value)


def test_flat_parameter_is_the_same_as_the_list():
    parameters, curvatures = parameters_with_gradients()
    flat = nn.Parameter(torch.cat([p.detach().flatten() for p in parameters]))
    flat.grad = torch.cat([p.grad.flatten() for p in parameters])
    of_list, of_flat = DiagonalLM(parameters, lr=0.1), DiagonalLM([flat], lr=0.1)
    of_list.set_curvature(curvatures)
    of_flat.set_curvature([torch.cat([h.flatten() for h in curvatures])])
    for _ in range(3):
        of_list.step()
        of_flat.step()
    torch.testing.assert_close(flat, torch.cat([p.flatten() for p in parameters]))
    assert of_flat.effective_steps() == of_list.effective_steps()


def test_rates_are_written_in_place():
    """As a captured CUDA graph needs it: it reads the same memory after a new curvature and a new lr."""
    parameters, curvatures = parameters_with_gradients()
    optimizer = DiagonalLM(parameters, lr=0.1)
    addresses = [optimizer.state[p]["rate"].data_ptr() for p in parameters]
    optimizer.param_groups[0]["lr"] = 0.2
    optimizer.set_curvature(curvatures)
    assert addresses == [optimizer.state[p]["rate"].data_ptr() for p in parameters]
    for p, h in zip(parameters, curvatures):
        assert torch.equal(optimizer.state[p]["rate"], 0.2 / (0.02 + h))


def test_resumes_bit_for_bit():
    parameters, curvatures = parameters_with_gradients()
    optimizer = DiagonalLM(parameters, lr=0.1, mu=0.03)
    optimizer.set_curvature(curvatures)
    optimizer.param_groups[0]["lr"] = 0.07
    optimizer.step()

    file = io.BytesIO()
    torch.save(optimizer.state_dict(), file)
    file.seek(0)
    resumed_parameters = [nn.Parameter(p.detach().clone()) for p in parameters]
    for p, q in zip(parameters, resumed_parameters):
        q.grad = p.grad.clone()
    resumed = DiagonalLM(resumed_parameters, lr=1.0)
    resumed.load_state_dict(torch.load(file, weights_only=True))
    for _ in range(3):
        optimizer.step()
        resumed.step()
    for p, q in zip(parameters, resumed_parameters):
        assert torch.equal(p, q)
        assert torch.equal(optimizer.state[p]["curvature"], resumed.state[q]["curvature"])
    assert optimizer.effective_steps() == resumed.effective_steps()


@pytest.mark.parametrize("arguments", [{"lr": 0.0}, {"lr": -1.0}, {"lr": math.nan}, {"lr": 1.0, "mu": 0.0}])
def test_rejects_what_is_not_positive(arguments):
    with pytest.raises(ValueError, match="must be positive"):
        DiagonalLM([nn.Parameter(torch.zeros(1))], **arguments)


def test_rejects_curvatures_that_do_not_fit():
    parameters, curvatures = parameters_with_gradients()
    optimizer = DiagonalLM(parameters, lr=0.1)
    steps = optimizer.effective_steps()
    for wrong in (curvatures[:2], [*curvatures[:2], torch.ones(1)], [torch.cat([h.flatten() for h in curvatures])]):
        with pytest.raises(ValueError, match="shapes"):
            optimizer.set_curvature(wrong)
    assert optimizer.effective_steps() == steps
