"""The answers of docs/exercises.md: what is counted or worked out there is checked, and what is claimed is trained.

Variants are compared by validation on 5,000 of the training digits; the test set takes no part.
"""

import contextlib
import dataclasses
import functools
import itertools
import math
from collections.abc import Iterator
from unittest.mock import patch

import torch
from torch import Tensor

import model
import utils
from experiments import results, validation
from experiments.runner import Context, Experiment
from model import TABLE_I, LeNet5, Squash, TableConvolution, layer_table, normalize, pad
from training import checkpoint, loop
from training.recipes import Recipe

EPOCHS = 8
SHIFTS = range(7)  # pixels to the right
FLAT = 0.1  # a unit whose squashing function has a slope below this hardly learns

# C3 wired in four groups of four maps that read the same maps of S2: 60 kernels, as in table I.
GROUPS = ((0, 1, 2, 3), (2, 3, 4, 5), (0, 1, 4, 5), (1, 3, 5)) * 4
STEPS = ("default", "linear learning-rate decay", "batches of 128", "batches of 128, learning rate × 4")  # exercise 8
WIRING = {"table": TABLE_I, "groups": GROUPS, "full": (tuple(range(6)),) * 16}


@contextlib.contextmanager
def groups() -> Iterator[None]:
    """LeNet5(connection="groups") inside the block, and nowhere else."""
    with patch.dict(model.CONNECTION, groups=lambda: TableConvolution(6, GROUPS)):
        yield


def variants() -> dict[str, Recipe]:
    """What is trained for the exercises, by name."""
    default = validation.without_augmentation("default").override(epochs=EPOCHS)
    rate = default.learning_rates[0]
    falling = tuple(rate * (EPOCHS - epoch) / EPOCHS for epoch in range(EPOCHS))
    recipes = (
        default,
        dataclasses.replace(default, learning_rates=falling),
        default.override(batch_size=128),
        default.override(batch_size=128, lr=4 * rate),
    )
    arguments = {"ReLU": {"activation": "relu"}, "groups": {"connection": "groups"}, "full": {"connection": "full"}}
    networks = {name: dataclasses.replace(default, model_arguments=own) for name, own in arguments.items()}
    return {"default": default, **networks, **dict(zip(STEPS[1:], recipes[1:]))}


@groups()
def measure(context: Context, task: dict) -> dict:
    """Train a variant on all but the validation set, and look at its errors there, its slopes and C3's maps."""
    recipe, data = Recipe.from_json(task["recipe"]), context.validation()
    images, labels = data.test
    torch.manual_seed(task["seed"])
    untrained = LeNet5(**recipe.model_arguments)  # the weights that training starts from
    *_, trained = loop.train(recipe, data, task["seed"])
    network, history = checkpoint.network(trained), trained.history
    result = {
        "accuracy": history[-1]["test_accuracy"],
        "last_accuracy": utils.accuracy(checkpoint.network(trained, last=True), images, labels),
        "first_accuracy": history[0]["test_accuracy"],
        "training_accuracy": history[-1]["train_accuracy"],
        "seconds": sum(row["seconds"] for row in history),
        "path": history[-1]["path"],
        "different_maps": [different_maps(model, images[:500]) for model in (untrained, network)],
        "flat": flat(network, images[:500]),
    }
    padded = pad(images)
    for pixels in SHIFTS:
        logits = utils.class_logits(network, shifted(padded, pixels))
        result[f"shift_{pixels}_accuracy"] = int((logits.argmax(1) == labels).sum()) / len(labels)
    return result


def shifted(padded: Tensor, pixels: int) -> Tensor:
    """Images uint8 (N, 32, 32), moved to the right; what leaves them is lost, and background follows."""
    moved = torch.zeros_like(padded)
    moved[..., pixels:] = padded[..., : padded.shape[-1] - pixels]
    return moved


@torch.no_grad()
def different_maps(network: LeNet5, images: Tensor) -> float:
    """How many different maps C3 has, 1 to 16, on images uint8 (N, 28, 28): 16^2 / the sum of the squared correlations.

    16 maps without correlation count as 16, and 16 copies of one map as 1.
    """
    maps = network.states(normalize(pad(images)))["c3"].transpose(0, 1).flatten(1)  # (16, N * 100)
    correlations = maps.corrcoef().nan_to_num()  # a map that is constant has none
    return len(maps) ** 2 / correlations.square().sum().item()


def flat(network: LeNet5, images: Tensor) -> dict[str, float]:
    """Of each layer, the share of units whose squashing function has a slope below FLAT on images uint8 (N, 28, 28)."""
    sums = []  # the weighted sums of the layers: what the squashing function is given
    hook = network.squash.register_forward_hook(lambda module, inputs, output: sums.append(inputs[0]))
    with torch.no_grad():
        network(normalize(pad(images)))
    hook.remove()
    shares = {}
    for name, a in zip(network.layers(), sums):
        (slope,) = torch.autograd.grad(network.squash(a.requires_grad_()).sum(), a)
        shares[name] = (slope < FLAT).float().mean().item()
    return shares


def summarize(context: Context, runs: list[dict]) -> dict:
    """What was worked out, and of each variant the seeds, means and deviations."""
    found = {}
    for name, own in results.group(runs).items():
        flat = {layer: sum(run["flat"][layer] for run in own) / len(own) for layer in own[0]["flat"]}
        maps = [sum(values) / len(own) for values in zip(*(run["different_maps"] for run in own))]
        found[name] = {"seeds": len(own), **results.mean_and_deviation(own), "flat": flat, "different_maps": maps}
    return {"worked_out": worked_out(), "variants": found}


# ------------------------------------------------------------------- what is counted or worked out, and checked


@functools.cache
@groups()
def worked_out() -> dict:
    return {
        "c3": count_c3(),
        "squash": squashing_function(),
        "fields": receptive_fields(),
        "coefficient": coefficient_gradient(),
        "moves": {pixels: moves(pixels) for pixels in (1, 2, 3, 4)},
        "symmetry": {connection: symmetry(connection) for connection in WIRING},
        "paths": {number: [paths(number, places) for places in range(1, 7)] for number in ("1", "12", "11")},
    }


def paths(number: str, places: int) -> int:
    """Exercise 9: how many paths through the classes write a number; a space stands for "none"."""
    written = [
        "".join(c for c, _ in itertools.groupby(path)) for path in itertools.product({*number, " "}, repeat=places)
    ]
    return sum(text.replace(" ", "") == number for text in written)


def count_c3() -> dict:
    """Exercise 1: kernels, parameters and connections of C3."""
    found = {}
    for name, table in WIRING.items():
        kernels = sum(len(maps) for maps in table)
        parameters = 25 * kernels + 16  # a bias a map
        found[name] = {"kernels": kernels, "parameters": parameters, "connections": 100 * parameters}
        assert layer_table(LeNet5(connection=name))["c3"] == ((16, 10, 10), parameters, 100 * parameters)
    return found


def squashing_function() -> dict:
    """Exercise 2: f, f' and f'' at some places, and where f'' is largest."""
    bend = math.atanh(3**-0.5) / Squash.S
    a = torch.linspace(0, 4, 400_001, dtype=torch.float64)
    f, slope, bending = derivatives(a)
    assert abs(a[bending.abs().argmax()].item() - bend) < 1e-5
    assert abs(f[a == 1].item() - 1) < 1e-5
    rows = torch.tensor([0, 0.5, bend, 1, 2, 3, 4], dtype=torch.float64)
    return {"bend": bend, "rows": torch.stack([rows, *derivatives(rows)], 1).tolist()}


def derivatives(a: Tensor) -> list[Tensor]:
    """f, f' and f'' by automatic differentiation."""
    found = [Squash()(a.requires_grad_())]
    for _ in range(2):
        found += torch.autograd.grad(found[-1].sum(), a, create_graph=True)
    a.requires_grad_(False)
    return [value.detach() for value in found]


def receptive_fields() -> dict:
    """Exercise 3: the side of the input patch that a unit sees, and how far its neighbour's patch lies from it."""
    found, field, step = {}, 1, 1
    torch.manual_seed(0)
    network, image = LeNet5().double(), torch.rand(1, 1, 32, 36, dtype=torch.float64).requires_grad_()
    states = network.states(image)
    for name, kernel, stride in (("c1", 5, 1), ("s2", 2, 2), ("c3", 5, 1), ("s4", 2, 2), ("c5", 5, 1)):
        field, step = field + (kernel - 1) * step, step * stride
        found[name] = {"field": field, "step": step}
        for unit in 0, 1:  # neighbours in the first row of the last map
            (gradient,) = torch.autograd.grad(states[name][0, -1, 0, unit], image, retain_graph=True)
            columns = gradient[0, 0].any(0).nonzero()[:, 0]
            assert (columns[0].item(), len(columns)) == (unit * step, field)
    return found


def coefficient_gradient() -> dict:
    """Exercise 4: dE/dc of S2's six coefficients by hand, beside automatic differentiation and difference quotients."""
    torch.manual_seed(0)
    network, images = LeNet5().double(), torch.rand(8, 1, 32, 32, dtype=torch.float64)
    c, labels, cross_entropy = network.s2.coefficient, torch.arange(8), torch.nn.functional.cross_entropy
    states = network.states(images)
    loss, x = cross_entropy(states["output"], labels), states["s2"]
    automatic, d_x = torch.autograd.grad(loss, [c, x])
    with torch.no_grad():
        sums = 4 * torch.nn.functional.avg_pool2d(states["c1"], 2)  # s of the exercise
        slope = Squash.S / Squash.A * (Squash.A**2 - x**2)  # f' from f
        by_hand = (d_x * slope * sums).sum((0, 2, 3))
        quotients, h = torch.zeros_like(c), 1e-5
        for i in range(len(c)):
            for sign in 1, -1:
                c[i] += sign * h
                quotients[i] += sign * cross_entropy(network(images), labels) / (2 * h)
                c[i] -= sign * h
    size = automatic.norm()
    errors = {"automatic": (by_hand - automatic).norm() / size, "quotient": (by_hand - quotients).norm() / size}
    assert errors["automatic"] < 1e-12 and errors["quotient"] < 1e-7
    return {name: error.item() for name, error in errors.items()}


def moves(pixels: int) -> list[str]:
    """Exercise 5: the layers whose maps move by whole units, and do not change, if the image moves by some pixels."""
    torch.manual_seed(0)
    network = LeNet5().double()
    image = torch.zeros(1, 32, 32, dtype=torch.uint8)
    image[:, 8:24, 8:24] = torch.randint(256, (16, 16))
    with torch.no_grad():
        one, other = (network.states(normalize(p, torch.float64)) for p in (image, shifted(image, pixels)))
    found = []
    for name, layer in receptive_fields().items():
        units, rest = divmod(pixels, layer["step"])
        width = one[name].shape[-1] - units
        if rest == 0 and width > 0 and torch.allclose(one[name][..., :width], other[name][..., units:], atol=1e-12):
            found.append(name)
    assert found == {1: ["c1"], 2: ["c1", "s2", "c3"], 3: ["c1"], 4: ["c1", "s2", "c3", "s4"]}[pixels]
    return found


def symmetry(connection: str) -> int:
    """Exercise 7: how many different gradients the biases of C3's 16 maps have, if all of its maps start the same."""
    torch.manual_seed(0)
    network, images = LeNet5(connection=connection).double(), torch.rand(8, 1, 32, 32, dtype=torch.float64)
    with torch.no_grad():
        network.c3.weight.copy_(torch.rand(5, 5) / 25)
        network.c3.bias.zero_()
        network.c5.weight.copy_(network.c5.weight[:, :1])  # C5 reads all maps of S4 with the same kernel
    torch.nn.functional.cross_entropy(network(images), torch.arange(8)).backward()
    different = len(network.c3.bias.grad.div(network.c3.bias.grad.norm()).round(decimals=9).unique())
    assert different == len(set(WIRING[connection]))
    return different


# --------------------------------------------------------------------------------------- the tables of the answers


def tables(content: dict) -> dict[str, str]:
    """The tables of docs/exercises.md in Markdown, by name."""
    known, found, error = content["worked_out"], content["variants"], results.error
    fields = [[name.upper(), f"{row['field']} × {row['field']}", row["step"]] for name, row in known["fields"].items()]
    shifts = [[k, *(error(found[name], f"shift_{k}_") for name in ("default", "ReLU"))] for k in SHIFTS]
    steps = [[name, *(error(found[name], prefix) for prefix in ("first_", "", "last_"))] for name in STEPS]
    answers = ("ReLU", "groups", "full", *STEPS)
    own = [
        [name, *(error(row, prefix) for prefix in ("first_", "", "last_"))]
        for name, row in found.items()
        if name not in answers
    ]
    counts = [[name, *(f"{number:,}" for number in row.values())] for name, row in known["c3"].items()]
    bends = [[f"{number + 0.0:.4f}".replace("-", "−") for number in row] for row in known["squash"]["rows"]]
    ways = [[number, *(count or "none" for count in counts)] for number, counts in known["paths"].items()]
    wiring = [wiring_row(name, known, found[variant]) for name, variant in zip(WIRING, ("default", "groups", "full"))]
    headers = {
        "c3": (["C3", "kernels", "parameters", "connections"], counts),
        "squash": (["a", "f(a)", "f′(a)", "f″(a)"], bends),
        "fields": (["layer", "sees, pixels", "step, pixels"], fields),
        "shift": (["moved by, pixels", "validation error, %", "the same with ReLU, %"], shifts),
        "relu": (["", "squashing", "ReLU"], relu_rows(found["default"], found["ReLU"])),
        "wiring": (
            ["C3", "parameters of C3", "sets of inputs", "validation error, %", "different maps, untrained", "trained"],
            wiring,
        ),
        "steps": (["training", "validation error, first epoch, %", "at the end, %", "last weights, %"], steps),
        "paths": (["number", "1 place", *(f"{places} places" for places in range(2, 7))], ways),
    }
    headers |= {"own": (["own variant", *headers["steps"][0][1:]], own)} if own else {}
    return {name: results.markdown(*table) for name, table in headers.items()}


def relu_rows(*found: dict) -> list[list]:
    """What two variants do, row by row."""
    errors = {
        "validation error after the first epoch, %": "first_",
        "validation error at the end, %": "",
        "the same, last weights, %": "last_",
        "training error during the last epoch, %": "training_",
    }
    rows = [[title, *(results.error(row, prefix) for row in found)] for title, prefix in errors.items()]
    for layer in found[0]["flat"]:
        rows.append([f"flat units in {layer.upper()}, %", *(f"{100 * row['flat'][layer]:.0f}" for row in found)])
    return rows


def wiring_row(wiring: str, known: dict, found: dict) -> list:
    maps = [f"{count:.1f}" for count in found["different_maps"]]
    parameters = f"{known['c3'][wiring]['parameters']:,}"
    return [wiring, parameters, len(set(WIRING[wiring])), results.error(found), *maps]


EXPERIMENT = Experiment(
    tables=tables,
    summarize=summarize,
    tasks=lambda context, runs: context.tasks(variants()),
    measure=measure,
    seeds=(0, 1, 2),
    seconds=20,
)
