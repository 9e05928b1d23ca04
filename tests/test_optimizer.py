"""The curvature by hand, unit by unit and on wide networks, and the optimizer that divides by it."""

import copy
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


def random_network(seed=0, **options):
    """A LeNet5 in double precision whose units work where f bends, and a picture for it."""
    torch.manual_seed(seed)
    model = LeNet5(**options).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn_like(parameter) * 1.5 / math.sqrt(parameter[0].numel() + 1))
    return model, torch.randn(1, 1, 32, 32, dtype=torch.float64)


# By hand


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


def test_two_outputs_and_two_patterns_by_hand():
    """a = 2 x = -2 and 2, relu'(a) = 0 and 1, two outputs of weights 3 and 4: d2E/da^2 = 0 and 9 + 16."""
    layers = [with_parameters(nn.Linear(1, 1), [[2.0]], [0.0]), nn.ReLU()]
    layers += [with_parameters(nn.Linear(1, 2), [[3.0], [4.0]], [0.0, 0.0])]
    images = torch.tensor([[-1.0], [1.0]], dtype=torch.float64)
    h = propagate_back(layers, images, torch.ones_like)
    assert [t.tolist() for t in h] == [[[12.5]], [12.5], [[2.0], [2.0]], [1.0, 1.0]]  # means over the two patterns


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


# Unit by unit


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


@pytest.mark.parametrize(
    ("subsampling", "connection", "activation", "output"),
    [
        ("trainable", "table", "squash", "linear"),
        ("trainable", "full", "sigmoid", "rbf"),
        ("average", "table", "relu", "rbf"),
        ("average", "full", "tanh", "linear"),
    ],
)
def test_every_option_unit_by_unit(subsampling, connection, activation, output):
    model, image = random_network(subsampling=subsampling, connection=connection, activation=activation, output=output)
    found, expected = curvature(model, image, factor=0.3), reference_curvature(model, image, 0.3)
    for h, reference, p in zip(found, expected, model.parameters(), strict=True):
        assert h.shape == p.shape and h.max() > 0
        torch.testing.assert_close(h, reference.detach(), rtol=1e-9, atol=1e-15)


# What the curvature is, and what it is not


def test_is_not_the_squared_gradient():
    """At a perfect fit of eq. 8 the gradient vanishes, and the curvature does not."""
    model, image = random_network(output="rbf")
    with torch.no_grad():
        model.f6.weight.zero_()
        model.f6.bias.copy_(model.output.codes[3] * 1.5 * math.atanh(1 / 1.7159))  # f(bias) is the code of 3
    gradient, h = torch.autograd.grad(-model(image)[0, 3], model.f6.weight)[0], curvature(model, image)[-2]
    assert gradient.square().max() < 1e-20 and h.min() > 1e-6


def test_leaves_the_model_alone():
    model, image = random_network()
    model(image).sum().backward()
    before = [(p.clone(), p.grad.clone()) for p in model.parameters()]
    assert not any(h.requires_grad for h in curvature(model, image))
    for p, (value, gradient) in zip(model.parameters(), before):
        assert torch.equal(p, value) and torch.equal(p.grad, gradient) and p.requires_grad


def test_rejects_a_layer_without_a_rule():
    with pytest.raises(KeyError, match="MaxPool2d"):
        propagate_back([nn.MaxPool2d(2)], torch.ones(1, 1, 2, 2), torch.ones_like)


# The optimizer


def parameters_with_gradients(seed=0):
    generator = torch.Generator().manual_seed(seed)
    parameters = [nn.Parameter(torch.randn(shape, generator=generator)) for shape in [(3, 2), (4,), (2, 1, 5)]]
    for parameter in parameters:
        parameter.grad = torch.randn(parameter.shape, generator=generator)
    return parameters, [torch.rand(parameter.shape, generator=generator) for parameter in parameters]


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


def test_step_skips_a_parameter_without_gradient_and_takes_a_closure():
    used, unused = nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(2))
    optimizer = DiagonalLM([used, unused], lr=0.5, mu=1.0)
    optimizer.set_curvature([torch.zeros(2)] * 2)

    def closure():
        optimizer.zero_grad()
        loss = used.square().sum()
        loss.backward()
        return loss

    assert optimizer.step(closure).item() == 2.0 and unused.tolist() == [1.0, 1.0] and used.tolist() == [0.0, 0.0]


def test_parameter_groups_have_their_own_lr_and_mu():
    parameters, curvatures = parameters_with_gradients()
    optimizer = DiagonalLM([{"params": parameters[:1]}, {"params": parameters[1:], "lr": 0.2, "mu": 0.1}], lr=0.4)
    optimizer.set_curvature(curvatures)
    settings = zip(parameters, curvatures, (0.4, 0.2, 0.2), (0.02, 0.1, 0.1))
    expected = [p - lr / (mu + h) * p.grad for p, h, lr, mu in settings]
    optimizer.step()
    for p, value in zip(parameters, expected):
        torch.testing.assert_close(p, value)


def test_a_new_lr_takes_effect_with_the_next_curvature_in_the_same_memory():
    """As a recorded CUDA graph needs it: it reads this memory."""
    parameters, curvatures = parameters_with_gradients()
    optimizer = DiagonalLM(parameters, lr=0.1)
    optimizer.param_groups[0]["lr"] = lr = torch.tensor(0.1)
    optimizer.set_curvature(curvatures)
    addresses = [value.data_ptr() for state in optimizer.state.values() for value in state.values()]
    rates = [optimizer.state[p]["rate"].clone() for p in parameters]
    lr.fill_(0.2)
    optimizer.step()
    assert all(torch.equal(optimizer.state[p]["rate"], rate) for p, rate in zip(parameters, rates))
    optimizer.set_curvature(curvatures)
    assert addresses == [value.data_ptr() for state in optimizer.state.values() for value in state.values()]
    for p, h in zip(parameters, curvatures):
        torch.testing.assert_close(optimizer.state[p]["rate"], 0.2 / (0.02 + h))


def test_resumes_bit_for_bit():
    parameters, curvatures = parameters_with_gradients()
    optimizer = DiagonalLM(parameters, lr=0.1, mu=0.03)
    optimizer.set_curvature(curvatures)
    optimizer.step()
    copies = copy.deepcopy(parameters)
    for p, q in zip(parameters, copies):
        q.grad = p.grad.clone()
    resumed = DiagonalLM(copies, lr=1.0)
    resumed.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    for one in (optimizer, resumed):
        one.step()
        one.set_curvature(curvatures[:1] + [2 * h for h in curvatures[1:]])
        one.step()
    assert all(torch.equal(p, q) for p, q in zip(parameters, copies))
    assert optimizer.effective_steps() == resumed.effective_steps()


@pytest.mark.parametrize("arguments", [{"lr": 0.0}, {"lr": -1.0}, {"lr": math.nan}, {"lr": 1.0, "mu": 0.0}])
def test_rejects_what_is_not_positive(arguments):
    with pytest.raises(ValueError, match="must be positive"):
        DiagonalLM([nn.Parameter(torch.zeros(1))], **arguments)


def test_rejects_curvatures_that_do_not_fit():
    parameters, curvatures = parameters_with_gradients()
    optimizer = DiagonalLM(parameters, lr=0.1)
    optimizer.set_curvature(curvatures)
    steps = optimizer.effective_steps()
    for wrong in (curvatures[:2], [*curvatures[:2], torch.ones(1)], [torch.cat([h.flatten() for h in curvatures])]):
        with pytest.raises(ValueError, match="shapes"):
            optimizer.set_curvature(wrong)
    assert optimizer.effective_steps() == steps
