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


def test_parameters_and_connections_layer_by_layer():
    for network, count in ((LeNet5(**options), count) for options, count in COUNTS):
        for tensors in network.parameters(), network.state_dict().values():  # a file holds no others
            assert sum(tensor.numel() for tensor in tensors) == count
    published, default = model.layer_table(LeNet5(output="rbf")), model.layer_table(LeNet5())
    assert published == PAPER and default == NETWORK_MD
    assert [sum(row[i] for row in published.values()) for i in (1, 2)] == [60_000, 340_908]


@pytest.mark.parametrize("options", list(itertools.product(SUBSAMPLING, CONNECTION, ACTIVATION, OUTPUT)))
def test_every_combination_of_options_gives_logits_gradients_and_the_states_of_all_layers(options):
    network, images = LeNet5(*options), torch.rand(3, 1, 32, 32)
    logits, states = network(images), network.states(images)
    model.eq9_loss(logits, torch.tensor([1, 2, 3]), None).mean().backward()
    assert all(p.grad.isfinite().all() and p.grad.any() for p in network.parameters())
    assert states["input"] is images and torch.equal(states["output"], logits)
    states["flat"] = states["c5"].flatten(1)
    for name, before in ("c1", "input"), ("c3", "s2"), ("c5", "s4"), ("f6", "flat"):
        torch.testing.assert_close(states[name], network.squash(getattr(network, name)(states[before])))


def test_squashing_subsampling_and_rbf_by_hand():
    x = model.Squash()(torch.tensor([-1.0, 0.0, 1.0, 100.0], dtype=torch.float64))
    assert x.tolist() == pytest.approx([-1.0, 0.0, 1.0, 1.7159], abs=1e-5)
    layer = model.Subsampling(2, torch.nn.Identity())
    layer.coefficient.data, layer.bias.data = torch.tensor([0.5, -1.0]), torch.tensor([1.0, 2.0])
    maps = torch.tensor([[1.0, 2, 0, 0], [3, 4, 0, 8]]).expand(1, 2, 2, 4)
    assert layer(maps).tolist() == [[[[6.0, 5.0]], [[-8.0, -6.0]]]]
    layer = model.RBF()
    assert layer.codes.shape == (10, 84) and layer.codes.abs().eq(1).all()
    different = (layer.codes != layer.codes[3]).sum(1)
    assert torch.equal(layer(layer.codes[3:4]), -4.0 * different[None])  # each different pixel is 2 away
    assert different[3] == 0
    torch.testing.assert_close(model.RBF(0.5)(layer.codes), layer(layer.codes) / 2)


def test_the_codes_are_those_of_figure_3():
    different = (model.digit_codes().unsqueeze(1) != model.digit_codes()).sum(2)
    assert different[6, 8] == 12 == different[different > 0].min()  # the nearest two
    ink = model.digit_codes().view(10, 12, 7).eq(1).any(2)
    assert (ink[:, 0] & ~ink[:, 1]).nonzero().flatten().tolist() == [0, 2, 4, 5]  # a bar: 0, 2, 5 are not O, Z, S
    assert model.digit_codes().eq(1).sum(1).tolist() == [35, 27, 33, 32, 41, 35, 39, 25, 43, 39]


GRID = """
X . . . X X X . . X X X X . X X
X X . . . X X X . . X X X X . X
X X X . . . X X X . . X . X X X
. X X X . . X X X X . . X . X X
. . X X X . . X X X X . X X . X
. . . X X X . . X X X X . X X X
"""


def test_c3_reads_the_maps_of_the_papers_table_alone():
    rows = [line.split() for line in GRID.strip().splitlines()]  # as it is printed: a row a map of S2
    assert tuple(tuple(i for i in range(6) if rows[i][j] == "X") for j in range(16)) == TABLE_I
    layer = model.TableConvolution(6, TABLE_I)
    for p in layer.parameters():
        torch.nn.init.normal_(p)
    maps, kernels = torch.randn(2, 6, 14, 14), iter(layer.weight)
    for out_map, in_maps in enumerate(TABLE_I):
        expected = layer.bias[out_map] + sum(F.conv2d(maps[:, [i]], next(kernels)[None, None])[:, 0] for i in in_maps)
        torch.testing.assert_close(layer(maps)[:, out_map], expected, rtol=1e-4, atol=1e-4)


def test_losses_are_the_papers_equations():
    scores = torch.tensor([[-3.0, -1.0, -4.0] + [-50.0] * 7] * 2, dtype=torch.float64)
    labels, partition = torch.tensor([0, 1]), math.exp(-3) + math.exp(-1) + math.exp(-4) + 7 * math.exp(-50)
    for j, rubbish in (2.0, math.exp(-2)), (None, 0):
        expected = [penalty + math.log(rubbish + partition) for penalty in (3, 1)]
        assert model.eq9_loss(scores, labels, j).tolist() == pytest.approx(expected, rel=1e-12)
    assert model.eq8_loss(scores, labels).tolist() == [3, 1]
    far = torch.full((1, 10), -1e6, requires_grad=True)
    loss = model.eq9_loss(far, torch.tensor([4]), 1.0)
    loss.sum().backward()
    assert loss.item() == pytest.approx(1e6) and far.grad[0, 4] == pytest.approx(-1)


UINT8 = torch.zeros(2, 1, 32, 32, dtype=torch.uint8)
FOR_PAD = [torch.rand(2, 28, 28), UINT8[0], UINT8[..., 2:30, 2:30]]  # floats would be classified, and wrong
FOR_NORMALIZE = [torch.rand(2, 32, 32), UINT8, UINT8[0, :, 4:]]


def test_input_is_padded_and_normalized_as_published_and_other_refused():
    images = torch.zeros(1, 28, 28, dtype=torch.uint8)
    images[0, 0, 0] = 255
    x = model.normalize(model.pad(images))
    assert x.shape == (1, 1, 32, 32) and x.dtype == torch.float32
    assert x[0, 0, 2, 2].item() == pytest.approx(1.175) and x[0, 0, 0, 0].item() == pytest.approx(-0.1)
    assert x.sum().item() == pytest.approx(1.175 - 0.1 * 1023, rel=1e-5)
    for function, wanted, wrong in (model.pad, "28, 28", FOR_PAD), (model.normalize, "32, W", FOR_NORMALIZE):
        for images in wrong:
            found = rf"{str(images.dtype)[6:]} \({', '.join(map(str, images.shape))}\)"
            with pytest.raises(ValueError, match=rf"must be uint8 \(N, {wanted}\).* 0 .*to 255 .*, but are {found}"):
                function(images)
    for images in torch.zeros(1, 32, 32), torch.zeros(1, 3, 32, 32), UINT8:
        with pytest.raises(ValueError, match=r"must be float \(N, 1, 32, W\), .* but are (float32|uint8) \(.*32\)"):
            LeNet5()(images)
    for height, width in (31, 32), (33, 32), (32, 31):
        with pytest.raises(ValueError, match=f"{height}x{width}, but must be 32 high and at least 32 wide"):
            LeNet5()(torch.zeros(1, 1, height, width))
    with pytest.raises(ValueError, match="subsampling is 'none'.*must be one of: trainable, average"):
        LeNet5(subsampling="none")
    with pytest.raises(ValueError, match="codes for ten classes, not for 11"):
        LeNet5(output="rbf", classes=11)
    for factor in 0.0, math.inf:
        with pytest.raises(ValueError, match=f"rbf_factor is {factor}, but must be positive"):
            LeNet5(output="rbf", rbf_factor=factor)


LIMITS = {"1/sqrt(F)": lambda f: f**-0.5, "2.4/F": lambda f: 2.4 / f, "sqrt(3/F)": lambda f: (3 / f) ** 0.5}


@pytest.mark.parametrize("bound", LIMITS)
def test_initial_weights_follow_the_fan_in(bound):
    torch.manual_seed(0)
    network, limit, coefficient = LeNet5(), LIMITS[bound], 1
    if bound != "1/sqrt(F)":  # the default
        network.reset_parameters(bound, coefficient := 0.25)
    for layer, fan_in in (network.c1, 25), (network.c5, 400), (network.f6, 120), (network.output, 84):
        assert 0.9 * limit(fan_in) < layer.weight.abs().max() <= limit(fan_in)
        assert 0.2 * limit(fan_in) < layer.bias.abs().max() <= limit(fan_in)
    for own, maps in zip(network.c3.weight.split([len(maps) for maps in TABLE_I]), TABLE_I):
        assert 0.9 * limit(25 * len(maps)) < own.abs().max() <= limit(25 * len(maps))
    for layer in network.s2, network.s4:
        assert layer.coefficient.eq(coefficient).all() and layer.bias.eq(0).all()
    network.reset_parameters(bound, zero_biases=True)
    for name, parameter in network.named_parameters():
        assert parameter.eq(0).all() == name.endswith("bias")


@pytest.mark.parametrize("output", OUTPUT)
@pytest.mark.parametrize("width", [33, 35, 36, 47, 48])
def test_each_place_of_a_wide_image_is_seen_as_an_image_of_its_own(width, output):
    torch.manual_seed(0)
    network, images = LeNet5(output=output).double(), torch.randn(2, 1, 32, width, dtype=torch.float64)
    logits = network(images)
    assert logits.shape == (2, (width - 32) // 4 + 1, 10)
    for place in range(logits.shape[1]):
        torch.testing.assert_close(logits[:, place], network(images[..., 4 * place : 4 * place + 32]))
