"""The network beside the paper's figures, its layers beside results worked out by hand."""

import itertools
import math

import pytest
import torch
import torch.nn.functional as F

import model
from model import ACTIVATION, CONNECTION, NETWORK_MD, OUTPUT, PAPER, SUBSAMPLING, TABLE_I, LeNet5

SIMPLIFIED = {"subsampling": "average", "connection": "full", "activation": "tanh"}
COUNTS = [({}, 60_850), ({"output": "rbf"}, 60_000), (SIMPLIFIED, 61_706), ({"connection": "full"}, 61_750)]


@pytest.mark.parametrize(("options", "parameters"), COUNTS)
def test_parameter_counts(options, parameters):
    network = LeNet5(**options)
    assert sum(p.numel() for p in network.parameters()) == parameters
    assert sum(tensor.numel() for tensor in network.state_dict().values()) == parameters  # a file holds no others


def test_both_networks_layer_by_layer():
    published, default = model.layer_table(LeNet5(output="rbf")), model.layer_table(LeNet5())
    assert published == PAPER and default == NETWORK_MD
    assert [sum(row[i] for row in published.values()) for i in (1, 2)] == [60_000, 340_908]


@pytest.mark.parametrize("options", list(itertools.product(SUBSAMPLING, CONNECTION, ACTIVATION, OUTPUT)))
def test_every_combination_of_options_gives_scores_and_gradients(options):
    network = LeNet5(*options)
    scores = network(torch.rand(3, 1, 32, 32))  # (3, 10)
    model.map_loss(scores, torch.tensor([1, 2, 3]), None).mean().backward()
    assert all(p.grad.isfinite().all() and p.grad.any() for p in network.parameters())


def test_unknown_option_names_the_choices():
    with pytest.raises(ValueError, match="subsampling is 'none'.*must be one of: trainable, average"):
        LeNet5(subsampling="none")


def test_squash_by_hand():
    x = model.Squash()(torch.tensor([-1.0, 0.0, 1.0, 100.0], dtype=torch.float64))
    assert x.tolist() == pytest.approx([-1.0, 0.0, 1.0, 1.7159], abs=1e-5)


def test_subsampling_by_hand():
    layer = model.Subsampling(2, torch.nn.Identity())
    with torch.no_grad():
        layer.coefficient.copy_(torch.tensor([0.5, -1.0]))
        layer.bias.copy_(torch.tensor([1.0, 2.0]))
    maps = torch.tensor([[1.0, 2, 0, 0], [3, 4, 0, 8]]).expand(1, 2, 2, 4)
    assert layer(maps).tolist() == [[[[6.0, 5.0]], [[-8.0, -6.0]]]]


GRID = """
X . . . X X X . . X X X X . X X
X X . . . X X X . . X X X X . X
X X X . . . X X X . . X . X X X
. X X X . . X X X X . . X . X X
. . X X X . . X X X X . X X . X
. . . X X X . . X X X X . X X X
"""


def test_table_is_the_papers():
    rows = [line.split() for line in GRID.strip().splitlines()]  # as it is printed: a row a map of S2
    assert tuple(tuple(i for i in range(6) if rows[i][j] == "X") for j in range(16)) == TABLE_I


def test_table_convolution_reads_the_maps_of_the_table_alone():
    layer = model.TableConvolution(6, TABLE_I)
    for p in layer.parameters():
        torch.nn.init.normal_(p)
    maps, kernels = torch.randn(2, 6, 14, 14), iter(layer.weight)
    for out_map, in_maps in enumerate(TABLE_I):
        expected = layer.bias[out_map] + sum(F.conv2d(maps[:, [i]], next(kernels)[None, None])[:, 0] for i in in_maps)
        torch.testing.assert_close(layer(maps)[:, out_map], expected, rtol=1e-4, atol=1e-4)


def test_rbf_by_hand():
    layer = model.RBF()
    assert layer.codes.shape == (10, 84) and layer.codes.abs().eq(1).all()
    different = (layer.codes != layer.codes[3]).sum(1)
    assert torch.equal(layer(layer.codes[3:4]), -4.0 * different[None])  # each different pixel is 2 away
    assert different[3] == 0 and different.sort()[0][1] >= 5


def test_losses_are_the_papers_equations():
    scores = torch.tensor([[-3.0, -1.0, -4.0] + [-50.0] * 7] * 2, dtype=torch.float64)
    labels, partition = torch.tensor([0, 1]), math.exp(-3) + math.exp(-1) + math.exp(-4) + 7 * math.exp(-50)
    for j, rubbish in (2.0, math.exp(-2)), (None, 0):
        expected = [penalty + math.log(rubbish + partition) for penalty in (3, 1)]
        assert model.map_loss(scores, labels, j).tolist() == pytest.approx(expected, rel=1e-12)
    assert model.mse_loss(scores, labels).tolist() == [3, 1]
    far = torch.full((1, 10), -1e6, requires_grad=True)
    loss = model.map_loss(far, torch.tensor([4]), 1.0)
    loss.sum().backward()
    assert loss.item() == pytest.approx(1e6) and far.grad[0, 4] == pytest.approx(-1)


def test_input_is_padded_and_scaled_as_published():
    images = torch.zeros(1, 28, 28, dtype=torch.uint8)
    images[0, 0, 0] = 255
    x = model.scale(model.pad(images))
    assert x.shape == (1, 1, 32, 32) and x.dtype == torch.float32
    assert x[0, 0, 2, 2].item() == pytest.approx(1.175) and x[0, 0, 0, 0].item() == pytest.approx(-0.1)
    assert x.sum().item() == pytest.approx(1.175 - 0.1 * 1023, rel=1e-5)


LIMITS = {"1/sqrt(F)": lambda f: f**-0.5, "2.4/F": lambda f: 2.4 / f, "sqrt(3/F)": lambda f: (3 / f) ** 0.5}


@pytest.mark.parametrize("bound", LIMITS)
def test_initial_weights_follow_the_fan_in(bound):
    torch.manual_seed(0)
    network, limit = LeNet5(), LIMITS[bound]
    network.reset_parameters(bound, coefficient=0.25)
    for layer, fan_in in (network.c1, 25), (network.c5, 400), (network.f6, 120), (network.output, 84):
        assert 0.9 * limit(fan_in) < layer.weight.abs().max() <= limit(fan_in)
        assert 0.2 * limit(fan_in) < layer.bias.abs().max() <= limit(fan_in)
    kernels = network.c3.weight.split([len(maps) for maps in TABLE_I])
    for own, maps in zip(kernels, TABLE_I):
        assert 0.9 * limit(25 * len(maps)) < own.abs().max() <= limit(25 * len(maps))
    for layer in network.s2, network.s4:
        assert layer.coefficient.eq(0.25).all() and layer.bias.eq(0).all()


def test_the_default_start():
    network = LeNet5()
    assert 0.9 * 120**-0.5 < network.f6.weight.abs().max() <= 120**-0.5
    assert network.s2.coefficient.eq(1).all()


@pytest.mark.parametrize("options", [{}, {"output": "rbf"}])
def test_gradient_against_differences(options):
    torch.manual_seed(0)
    network = LeNet5(**options).double()
    images, labels = torch.rand(2, 1, 32, 32, dtype=torch.float64), torch.tensor([3, 8])
    model.map_loss(network(images), labels, 1.0).sum().backward()
    for p in network.parameters():
        i, losses = int(torch.randint(p.numel(), ())), []
        with torch.no_grad():
            for h in (1e-5, -2e-5, 1e-5):
                p.view(-1)[i] += h
                losses.append(model.map_loss(network(images), labels, 1.0).sum().item())
        assert p.grad.view(-1)[i].item() == pytest.approx((losses[0] - losses[1]) / 2e-5, rel=1e-4, abs=1e-6)


@pytest.mark.parametrize("output", OUTPUT)
@pytest.mark.parametrize("width", [33, 35, 36, 47, 48])
def test_each_place_of_a_wide_picture_is_read_as_a_picture_of_its_own(width, output):
    torch.manual_seed(0)
    network, pictures = LeNet5(output=output).double(), torch.randn(2, 1, 32, width, dtype=torch.float64)
    scores = network(pictures)
    assert scores.shape == (2, (width - 32) // 4 + 1, 10)
    for place in range(scores.shape[1]):
        torch.testing.assert_close(scores[:, place], network(pictures[..., 4 * place : 4 * place + 32]))


@pytest.mark.parametrize("shape", [(31, 32), (33, 32), (32, 31), (28, 28)])
def test_other_pictures_are_refused(shape):
    with pytest.raises(ValueError, match="{}x{}, but must be 32 high and at least 32 wide".format(*shape)):
        LeNet5()(torch.zeros(1, 1, *shape))


@pytest.mark.parametrize("output", OUTPUT)
def test_states_are_those_of_every_layer(output):
    network, images = LeNet5(output=output), torch.randn(2, 1, 32, 32)
    states = network.states(images)
    assert states["input"] is images and torch.equal(states["output"], network(images))
    for name, before in ("c1", "input"), ("c3", "s2"), ("c5", "s4"):
        torch.testing.assert_close(states[name], network.squash(getattr(network, name)(states[before])))
    torch.testing.assert_close(states["f6"], network.squash(network.f6(states["c5"].flatten(1))))
    torch.testing.assert_close(states["output"], network.output(states["f6"]))
