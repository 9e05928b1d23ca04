"""A recipe: what it may be, how flags change it, how a file keeps it, and where its runs are kept."""

import dataclasses

import pytest
import torch

from model import map_loss, mse_loss
from recipes import RECIPES, Recipe, record_dir


def test_the_recipes_are_those_of_today_and_of_1998():
    adam, of_1998 = RECIPES["adam"], RECIPES["1998"]
    assert adam.learning_rates == (0.0005,) * 20 and adam.batch_size == 32 and adam.average and not adam.network
    assert of_1998.epochs == 20 and of_1998.batch_size == 1 and of_1998.network == {"output": "rbf"}
    changes = [1, 3, 6, 9, 13]  # the first passes of the paper's schedule, and their rates
    assert [of_1998.learning_rates[i - 1] for i in changes] == [0.0005, 0.0002, 0.0001, 0.00005, 0.00001]
    assert [1 + i for i, rate in enumerate(of_1998.learning_rates) if rate != of_1998.learning_rates[i - 1]] == changes


def test_flags_override_what_they_name_alone():
    recipe = Recipe("a", (0.5, 0.25, 0.125), 8, "adam")
    assert recipe.override(None, None, None) == recipe
    assert recipe.override(2, None, None) == dataclasses.replace(recipe, learning_rates=(0.5, 0.25))
    assert recipe.override(5, 16, None) == Recipe("a", (0.5, 0.25, 0.125, 0.125, 0.125), 16, "adam")
    assert recipe.override(4, None, 1.0).learning_rates == (1.0, 0.5, 0.25, 0.25)


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES)
def test_the_learning_rate_is_the_flags_exactly(recipe):
    """Or a run could not be resumed with the flags that began it."""
    for lr in 0.0003, 0.0045, 0.0065, 0.009:
        assert recipe.override(lr=lr).learning_rates[0] == lr


NAN, RBF = float("nan"), {"network": {"output": "rbf"}}
REFUSED = [
    *({"learning_rates": rates} for rates in ((), (0.0,), (NAN,), (float("inf"),), (1.0,) * 5001)),
    *({"batch_size": size} for size in (0, 32.5, 10**9)),
    *({"optimizer": "sgd"}, {"loss": "eq. 7", **RBF}, {"loss": "eq. 8"}, {"loss": "eq. 9", "j": None, **RBF}),
    *({"j": 1.0}, {"factor": 0.0}, {"strength": -1.0}),
]


@pytest.mark.parametrize("change", REFUSED, ids=str)
def test_what_makes_no_sense_is_refused(change):
    with pytest.raises(ValueError, match="the recipe's \\w+ cannot be"):
        dataclasses.replace(RECIPES["adam"], **change)


def test_losses_and_their_factor_are_the_recipes():
    scores, labels = torch.randn(4, 10), torch.tensor([1, 2, 3, 9])
    losses = {"cross-entropy": map_loss(scores, labels, None), "eq. 8": mse_loss(scores, labels)}
    losses["eq. 9"] = map_loss(scores, labels, 0.3)
    for loss, expected in losses.items():
        recipe = dataclasses.replace(RECIPES["1998"], loss=loss, j=0.3 if loss == "eq. 9" else None)
        assert torch.equal(recipe.losses(scores, labels), expected)
    assert RECIPES["1998"].scale_of(4) == 0.05 and RECIPES["adam"].scale_of(4) == 0.25


def test_each_recipe_and_data_set_has_its_own_folder():
    folders = [record_dir(RECIPES[name], dataset) for dataset in ("mnist", "digits") for name in ("adam", "1998")]
    assert [folder.as_posix() for folder in folders] == ["Record", "Record/1998", "Record/digits", "Record/1998/digits"]
