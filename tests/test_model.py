"""The network beside the paper's figures, its layers beside results worked out by hand."""

import itertools
import math
import subprocess
import sys

import pytest
import torch

from model import (
    ACTIVATION,
    CONNECTION,
    OUTPUT,
    PAPER,
    RBF,
    SUBSAMPLING,
    TABLE_I,
    LeNet5,
    Squash,
    Subsampling,
    TableConvolution,
    digit_codes,
    layer_table,
    map_loss,
    pad,
    penalty_loss,
    scale,
)  # fmt: skip


def count(model):
    return sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize(
    ("options", "parameters"),
    [
        ({}, 60_850),
        ({"output": "rbf"}, 60_000),
        ({"subsampling": "average", "connection": "full", "activation": "tanh"}, 61_706),
        ({"subsampling": "average", "connection": "full", "activation": "relu"}, 61_706),
        ({"connection": "full"}, 61_750),
    ],
)
def test_parameter_counts(options, parameters):
    model = LeNet5(**options)
    assert count(model) == parameters
    assert sum(tensor.numel() for tensor in model.state_dict().values()) == parameters  # a checkpoint holds no others


def test_published_network_layer_by_layer():
    table = layer_table(LeNet5(output="rbf"))
    assert table == PAPER
    assert sum(row[1] for row in table.values()) == 60_000
    assert sum(row[2] for row in table.values()) == 340_908


def test_command_prints_both_tables_and_succeeds():
    result = subprocess.run([sys.executable, "model.py"], capture_output=True, text=True, timeout=120)
    assert result.returncode == 0
    for figure in ("1,516", "151,600", "60,000", "340,908", "60,850"):
        assert figure in result.stdout
    assert "differs" not in result.stdout


def test_command_fails_where_a_figure_differs(monkeypatch, capsys):
    import model

    wrong = {**PAPER, "c3": ((16, 10, 10), 2_416, 241_600)}
    assert not model.print_comparison("", LeNet5(output="rbf"), "paper", wrong)
    assert "differs" in capsys.readouterr().out


@pytest.mark.parametrize("options", list(itertools.product(SUBSAMPLING, CONNECTION, ACTIVATION, OUTPUT)))
def test_every_combination_of_options_gives_scores_and_gradients(options):
    model = LeNet5(*options)
    scores = model(torch.rand(3, 1, 32, 32))
    assert scores.shape == (3, 10)
    map_loss(scores, torch.tensor([1, 2, 3]), None).mean().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


@pytest.mark.parametrize("option", ["subsampling", "connection", "activation", "output"])
def test_unknown_option_names_the_choices(option):
    with pytest.raises(ValueError, match=f"{option} is 'none'.*must be one of: \\w+, "):
        LeNet5(**{option: "none"})


def test_squash_by_hand():
    squash = Squash()
    x = squash(torch.tensor([-1.0, 0.0, 1.0, 100.0], dtype=torch.float64))
    assert torch.allclose(x, torch.tensor([-1.0, 0.0, 1.0, 1.7159], dtype=torch.float64), atol=1e-5)


def test_subsampling_by_hand():
    layer = Subsampling(2, torch.nn.Identity())
    with torch.no_grad():
        layer.coefficient.copy_(torch.tensor([0.5, -1.0]))
        layer.bias.copy_(torch.tensor([1.0, 2.0]))
    maps = torch.tensor([[1.0, 2, 0, 0], [3, 4, 0, 8]]).expand(1, 2, 2, 4)
    assert layer(maps).tolist() == [[[[6.0, 5.0]], [[-8.0, -6.0]]]]


def test_table_convolution_reads_the_maps_of_the_table_alone():
    layer = TableConvolution(6, TABLE_I)
    with torch.no_grad():
        layer.weight.fill_(1.0)
        layer.bias.copy_(torch.arange(16.0))
    maps = torch.stack([torch.full((5, 5), 10.0**i) for i in range(6)]).unsqueeze(0)  # map i is all 10^i
    expected = [25 * sum(10**i for i in row) + bias for bias, row in enumerate(TABLE_I)]
    assert layer(maps).flatten().tolist() == expected


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


def test_rbf_by_hand():
    layer = RBF()
    x = layer.codes[3].clone().unsqueeze(0)
    scores = layer(x)
    different = (layer.codes != layer.codes[3]).sum(1)
    assert torch.equal(scores[0], -4.0 * different)  # each different pixel is 2 away
    assert scores.argmax() == 3
    assert scores[0, 3] == 0


def test_codes_are_ten_different_bitmaps():
    codes = digit_codes()
    assert codes.shape == (10, 84)
    assert codes.abs().eq(1).all()
    distances = torch.cdist(codes, codes, p=0) + 84 * torch.eye(10)
    assert distances.min() >= 5


def test_map_loss_is_equation_9():
    scores = torch.tensor([[-3.0, -1.0, -4.0] + [-50.0] * 7], dtype=torch.float64)
    expected = 3 + math.log(math.exp(-2) + math.exp(-3) + math.exp(-1) + math.exp(-4) + 7 * math.exp(-50))
    assert map_loss(scores, torch.tensor([0]), 2.0).item() == pytest.approx(expected, rel=1e-12)
    assert penalty_loss(scores, torch.tensor([0])).item() == 3
    without = torch.nn.functional.cross_entropy(scores, torch.tensor([0])).item()
    assert map_loss(scores, torch.tensor([0]), None).item() == pytest.approx(without, rel=1e-12)


def test_map_loss_is_safe_far_from_the_codes():
    scores = torch.full((1, 10), -1e6, requires_grad=True)
    loss = map_loss(scores, torch.tensor([4]), 1.0)
    loss.sum().backward()
    assert loss.item() == pytest.approx(1e6)
    assert scores.grad[0, 4] == pytest.approx(-1)


def test_input_is_padded_and_scaled_as_published():
    images = torch.zeros(1, 28, 28, dtype=torch.uint8)
    images[0, 0, 0] = 255
    x = scale(pad(images))
    assert x.shape == (1, 1, 32, 32)
    assert x.dtype == torch.float32
    assert x[0, 0, 2, 2].item() == pytest.approx(1.175)
    assert x[0, 0, 0, 0].item() == pytest.approx(-0.1)
    assert x.sum().item() == pytest.approx(1.175 - 0.1 * 1023, rel=1e-5)


def test_initial_weights_follow_the_fan_in():
    torch.manual_seed(0)
    model = LeNet5()
    assert model.c1.weight.abs().max() <= 2.4 / 25
    assert model.c1.weight.abs().max() > 0.8 * 2.4 / 25
    for kernel, out_map in zip(model.c3.weight, model.c3.connections[0]):
        assert kernel.abs().max() <= 2.4 / (25 * len(TABLE_I[out_map]))
    assert 0.8 * 2.4 / 120 < model.f6.weight.abs().max() <= 2.4 / 120
    assert model.s2.coefficient.eq(0.25).all()
    assert model.s2.bias.eq(0).all()


def test_gradient_against_differences():
    torch.manual_seed(0)
    model = LeNet5(output="rbf").double()
    images, labels = torch.rand(2, 1, 32, 32, dtype=torch.float64), torch.tensor([3, 8])
    map_loss(model(images), labels, 1.0).sum().backward()
    generator = torch.Generator().manual_seed(1)
    for p in model.parameters():
        i = int(torch.randint(p.numel(), (), generator=generator))
        with torch.no_grad():
            losses = []
            for h in (1e-5, -2e-5):
                p.view(-1)[i] += h
                losses.append(map_loss(model(images), labels, 1.0).sum().item())
            p.view(-1)[i] += 1e-5
        assert p.grad.view(-1)[i].item() == pytest.approx((losses[0] - losses[1]) / 2e-5, rel=1e-4, abs=1e-6)
