"""Recipes: what they may be, what flags change, where runs are kept; the optimizer of 1998 and its curvature."""

import dataclasses
import functools
import json
import math

import numpy as np
import pytest
import torch
from torch import nn, tensordot
from torch.func import functional_call, jacrev

import utils
from digits import mnist
from model import RBF, LeNet5, eq8_loss, eq9_loss, normalize
from training.optimizer import MU, DiagonalLM, curvature
from training.recipes import RECIPES, Recipe, record_dir
from training.state import State

DEFAULT, OF_1998 = RECIPES["default"], RECIPES["1998"]
change = dataclasses.replace


def test_the_recipes_are_those_of_the_documents():
    best, fast, numbers = RECIPES["best"], RECIPES["fast"], RECIPES["numbers"]
    names = ["default", "best", "distilled", "fast", "1998", "numbers"]
    assert list(RECIPES) == names == [each.name for each in RECIPES.values()]
    assert DEFAULT.learning_rates == (0.0005,) * 20 and DEFAULT.batch_size == 32 and DEFAULT.ema
    assert not DEFAULT.model_arguments and DEFAULT.augment and best.augment and not OF_1998.augment
    assert best.learning_rates[::30] == pytest.approx([0.001, 0.0005]) and best.learning_rates[-1] < 1e-6
    assert best.model_arguments == fast.model_arguments == {"activation": "relu"} and best.epochs == 60
    assert OF_1998.epochs == 20 and OF_1998.batch_size == 1 and OF_1998.model_arguments == {"output": "rbf"}
    assert OF_1998.constant_order and OF_1998.loss == "eq. 9"
    changes = [1, 3, 6, 9, 13]  # the first passes of the paper's schedule, and their rates
    assert [OF_1998.learning_rates[i - 1] for i in changes] == [0.0005, 0.0002, 0.0001, 0.00005, 0.00001]
    assert [1 + i for i, rate in enumerate(OF_1998.learning_rates) if rate != OF_1998.learning_rates[i - 1]] == changes
    assert numbers.model_arguments == {"activation": "relu", "classes": 11} and numbers.epochs == 48
    assert [name for name, recipe in RECIPES.items() if recipe.reads_numbers] == ["numbers"]
    assert RECIPES["distilled"].teachers == 5 and change(RECIPES["distilled"].of_teachers, name="best") == best


def test_flags_override_what_they_name_alone():
    recipe = Recipe("a", (0.5, 0.25, 0.125), 8, "adam")
    assert recipe.override(None, None, None) == recipe
    assert recipe.override(2, None, None) == change(recipe, learning_rates=(0.5, 0.25))
    assert recipe.override(5, 16, None) == Recipe("a", (0.5, 0.25, 0.125, 0.125, 0.125), 16, "adam")
    assert recipe.override(4, None, 1.0).learning_rates == (1.0, 0.5, 0.25, 0.25)
    assert recipe.override(augment=True) == change(recipe, augment=True)
    for each in RECIPES.values():  # exactly the flag's, or a run could not be resumed with the flags that began it
        assert all(each.override(lr=lr).learning_rates[0] == lr for lr in (0.0003, 0.0045, 0.0065, 0.009))


def test_the_rate_rises_and_falls_over_all_steps_where_there_is_a_warmup():
    recipe = change(DEFAULT, learning_rates=(1.0, 0.5), warmup=0.2)
    rates = [recipe.learning_rate(epoch, share) for epoch, share in ((1, 0), (1, 0.1), (1, 0.2), (2, 0.6), (2, 1))]
    assert rates == pytest.approx([0, 0.5, 1, 0.25, 0])
    assert change(recipe, warmup=0.0).learning_rate(2, 0.6) == 0.5


NAN, CODES = float("nan"), {"model_arguments": {"output": "rbf"}}
OF_LINES = {"loss": "ctc", "model_arguments": {"classes": 11}}
REFUSED = [
    *({"learning_rates": rates} for rates in ((), (0.0,), (NAN,), (float("inf"),), (1.0,) * 5001)),
    *({"batch_size": size} for size in (0, 32.5, 10**9)),
    *({"optimizer": "sgd"}, {"loss": "eq. 7", **CODES}, {"loss": "eq. 8"}, {"loss": "eq. 9", "j": None, **CODES}),
    *({"j": 1.0}, {"factor": 0.0}, {"strength": -1.0}, {"elastic": NAN}, {"ema": 1}, {"augment": None}),
    *({"initialization": {"bound": "1/F"}}, {"initialization": {"bias": 0}}, {"initialization": {"coefficient": 0}}),
    *({"teachers": -1}, {"teachers": 1.0}, {"teachers": 2, **CODES}),
    *({"constant_order": 1}, {"f6_curvature": 1.0}, {"f6_curvature": 0.0, **CODES}),
    *({"warmup": share} for share in (-0.1, 1.0, NAN)),
    *({"evened": 0.5}, *({"evened": share, **OF_LINES} for share in (-0.1, 1.1, NAN))),  # of lines alone
]


@pytest.mark.parametrize("what", REFUSED, ids=str)
def test_what_makes_no_sense_is_refused(what):
    with pytest.raises(ValueError, match="the recipe's \\w+ cannot be"):
        change(DEFAULT, **what)


def test_files_that_are_older_than_a_field_remain_valid():
    recipe = change(DEFAULT, evened=0.5, **OF_LINES)
    assert Recipe.from_json(json.loads(json.dumps(recipe.to_json()))) == recipe
    older = change(recipe, evened=0.0)
    assert "evened" not in older.to_json() and Recipe.from_json(older.to_json()) == older


def test_losses_their_factor_and_the_initial_weights_are_the_recipes():
    scores, labels = torch.randn(4, 10), torch.tensor([1, 2, 3, 9])
    losses = {"cross-entropy": eq9_loss(scores, labels, None), "eq. 8": eq8_loss(scores, labels)}
    for loss, expected in {**losses, "eq. 9": eq9_loss(scores, labels, 0.3)}.items():
        recipe = change(OF_1998, loss=loss, j=0.3 if loss == "eq. 9" else None)
        assert torch.equal(recipe.losses(scores, labels), expected)
    assert OF_1998.loss_factor(4) == 0.1 and DEFAULT.loss_factor(4) == 0.25
    recipe = change(DEFAULT, initialization={"bound": "2.4/F", "coefficient": 0.25, "zero_biases": True})
    model = State(recipe, 0, mnist.load_dataset("digits", None, "test")).model
    assert model.s2.coefficient.eq(0.25).all() and model.f6.weight.abs().max() <= 2.4 / 120
    assert model.c5.bias.eq(0).all()


def test_each_kind_of_run_has_its_own_folder():
    for folder, (name, augment, dataset) in {  # below Record, and, of what is shipped, below Record/reference
        **{".": ("default", None, "mnist"), "default-no-augment": ("default", False, "mnist")},
        **{"default-digits": ("default", True, "digits"), "numbers": ("numbers", None, "mnist")},
        **{"1998": ("1998", None, "mnist"), "1998-augment": ("1998", True, "mnist")},
        "1998-augment-digits": ("1998", True, "digits"),
    }.items():
        recipe = RECIPES[name].override(epochs=1, lr=0.1, augment=augment)
        assert record_dir(recipe, dataset) == utils.RECORD / folder
        assert record_dir(recipe, dataset, reference=True) == utils.RECORD / "reference" / folder


def reference_curvature(model, image, factor):
    """The equations of appendix C by whole Jacobians: a weight has one connection to each unit, of derivative da/du."""
    modules = [module for chain in model.layers().values() for module in chain]
    inputs, curvatures = [image], []
    if isinstance(model.output, RBF):
        modules.pop()
    for module in modules:
        inputs.append(module(inputs[-1]))
    p = inputs.pop().softmax(-1)
    of_distance = 2 * factor * getattr(model.output, "factor", 1)
    h = torch.full_like(p, of_distance) if isinstance(model.output, RBF) else factor * p * (1 - p)
    for module, x in zip(reversed(modules), reversed(inputs)):
        call = functools.partial(functional_call, module)
        of_weights, of_inputs = jacrev(call, argnums=(0, 1), chunk_size=64)(dict(module.named_parameters()), x)
        curvatures = [tensordot(h, j.square(), h.dim()) for j in of_weights.values()] + curvatures
        h = tensordot(h, of_inputs.square(), h.dim())
    return curvatures


OPTIONS = [("trainable", "table", "squash", "linear"), ("average", "full", "relu", "rbf", 10, 0.5)]


@pytest.mark.parametrize("options", OPTIONS)
def test_every_option_unit_by_unit(options):
    torch.manual_seed(0)
    model, image = LeNet5(*options).double(), torch.randn(1, 1, 32, 32, dtype=torch.float64)
    for parameter in model.parameters():  # so that the units work where f bends
        parameter.data = torch.randn_like(parameter) * 1.5 / math.sqrt(parameter[0].numel() + 1)
    pair = image.repeat(2, 1, 1, 1)  # of equal images: the mean is that of one
    found, expected = curvature(model, pair, factor=0.3), reference_curvature(model, image, 0.3)
    for h, reference, p in zip(found, expected, model.parameters(), strict=True):
        assert h.shape == p.shape and h.max() > 0
        torch.testing.assert_close(h, reference.detach(), rtol=1e-9, atol=1e-15)


def test_the_curvature_is_the_mean_over_500_digits_drawn_at_random():
    state = State(OF_1998, 0, mnist.load_dataset("digits", None, "train"))
    chosen = torch.from_numpy(np.random.default_rng(3).permutation(len(state.labels))[:500])
    expected = torch.cat([h.flatten() for h in curvature(state.model, normalize(state.images[chosen]), 0.05)])
    state.learning_rate.fill_(0.0002)
    state.estimate_curvature(np.random.default_rng(3), 0.05)
    torch.testing.assert_close(state.vectors["curvature"], expected)
    torch.testing.assert_close(state.vectors["rate"], 0.0002 / (MU + expected))
    state.estimate_curvature(np.random.default_rng(3), 0.05, f6=0.4)  # eq. 8 with this factor has 0.1
    torch.testing.assert_close(state.vectors["curvature"], 4 * expected)


def test_step_by_hand():
    parameter = nn.Parameter(torch.tensor([1.0, 2.0, 3.0]))
    parameter.grad = torch.tensor([1.0, -2.0, 8.0])
    optimizer = DiagonalLM([parameter], lr=0.5, mu=0.25)
    optimizer.step()
    assert parameter.tolist() == [1.0, 2.0, 3.0]  # without a curvature there is no step
    optimizer.set_curvature([torch.tensor([0.25, 0.75, 3.75])])
    optimizer.step()  # the rates are 1, 1/2 and 1/8
    assert parameter.tolist() == [0.0, 3.0, 2.0]
    assert optimizer.state[parameter]["rate"].tolist() == [1.0, 0.5, 0.125] and optimizer.state[parameter]["step"] == 2
