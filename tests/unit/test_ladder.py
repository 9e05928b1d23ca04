"""The ladder from 1998 to today, committees, the comparison of figure 9: networks, classifiers, what they write."""

import dataclasses
import json

import pytest
import torch
from conftest import few_digits
from test_experiments import STUDY, TINY, read, rehearse, start, write  # noqa: F401, two of them are fixtures
from torch.nn import functional as F

from ClassifyTask_test import wilson_interval
from digits import mnist
from experiments import classifiers, committee, comparison, ladder, ladder_recipes
from experiments.ladder_recipes import BATCHES, BEFORE_BEST, IS_BEST, IS_DEFAULT, LINEAR, Variant
from experiments.runner import Context, Study
from model import LeNet5
from training import loop, provenance
from training.recipes import RECIPES

CHOSEN = {LINEAR: 0.2, BATCHES: 0.5}


def changed(one, other):
    """The fields in which two recipes differ."""
    fields = [field.name for field in dataclasses.fields(one) if field.name != "name"]
    return {name for name in fields if getattr(one, name) != getattr(other, name)}


def test_the_ladder_leads_from_recipe_1998_to_best_by_one_change_a_step():
    steps = ladder_recipes.ladder(CHOSEN)
    first, *others, last = steps.values()
    assert not changed(first, RECIPES["1998"]) and not changed(last, RECIPES["best"]) and len(others) == 9
    assert not changed(steps[IS_DEFAULT], RECIPES["default"]) and steps[IS_BEST] is last
    assert changed(steps[LINEAR], first) == {"model_arguments", "loss", "j", "factor", "f6_curvature"}
    assert changed(steps[BATCHES], steps["order drawn anew"]) == {"batch_size", "factor"}
    assert changed(steps["order drawn anew"], steps[LINEAR]) == {"constant_order"}
    assert changed(steps["Adam"], steps[BATCHES]) == {"optimizer", "learning_rates", "factor"}
    after = list(steps.values())[list(steps).index("Adam") :]
    assert [len(changed(*pair)) for pair in zip(after, after[1:])] == [1] * 6
    assert [steps[name].factor for name in CHOSEN] == list(CHOSEN.values())
    assert changed(steps[BEFORE_BEST], last) == {"elastic"}
    assert all(len(changed(recipe, last)) == 1 for recipe in ladder_recipes.backwards().values())


def test_side_steps_are_lenet_5_with_one_thing_else():
    torch.manual_seed(0)
    images, same = torch.rand(50, 1, 32, 32), Variant()
    torch.manual_seed(0)
    torch.rand(50, 1, 32, 32)
    assert torch.equal(same(images), LeNet5()(images)) and same.plain
    sizes = {
        name: sum(p.numel() for p in Variant(**arguments).parameters())
        for name, arguments in ladder_recipes.SIDE.items()
    }
    assert sizes == {
        "C3 fully connected": 61_750, "average pooling": 60_806, "max pooling": 60_806, "tanh": 60_850,
        "sigmoid": 60_850, "28x28, not padded": 43_570, "batch norm": 61_134,
    }  # fmt: skip
    states = Variant(max_pooling=True).states(images)
    assert torch.equal(states["s2"], F.max_pool2d(states["c1"], 2)) and states["s4"].shape == (50, 16, 5, 5)
    small = Variant(padded=False)
    assert torch.equal(small(images), small(F.pad(images[..., 2:-2, 2:-2], (2, 2, 2, 2))))
    assert small.states(images)["c1"].shape == (50, 6, 24, 24) and not small.plain
    normed, seen = Variant(batch_norm=True), []
    normed.squash.register_forward_hook(lambda module, inputs, output: seen.append(inputs[0]))
    normed(images)
    for sums in seen[0], seen[2], seen[4]:  # of C1, C3 and C5
        assert sums.mean((0, 2, 3)).abs().max() < 1e-4 and sums.var((0, 2, 3)).sub(1).abs().max() < 0.05


def test_batch_norm_is_tested_with_the_means_of_the_training_digits(start, monkeypatch):  # noqa: F811
    monkeypatch.setattr(mnist, "load_dataset", few_digits)
    tested, accuracy = [], ladder.utils.accuracy
    monkeypatch.setattr(
        ladder.utils, "accuracy", lambda network, *rest: tested.append(network) or accuracy(network, *rest)
    )
    context = Context("ladder", "digits", tiny=True, seeds=(0,), variants=("side",))
    (task,) = [task for task in ladder.tasks(context, []) if task["variant"] == "batch norm"]
    assert ladder.measure(context, task)["path"] == "plain"
    network, images = tested[0], few_digits("digits", None, "train")[0]
    with torch.no_grad():
        sums = network.c1(ladder.utils.normalize(ladder.pad(images)))
    assert torch.allclose(network.norms["c1"].running_mean, sums.mean((0, 2, 3)), atol=1e-4) and not network.training


@pytest.fixture
def no_digests(monkeypatch):
    """Without the digests of all modules, which take most of the time of many small runs."""
    monkeypatch.setattr(provenance, "module_digests", dict)


def test_the_ladder_is_climbed_with_factors_chosen_by_validation(start, rehearse, no_digests, monkeypatch):  # noqa: F811
    asked, validation = [], Context.validation
    monkeypatch.setattr(mnist, "load_dataset", lambda *args: asked.append(args[2]) or few_digits(*args))
    monkeypatch.setattr(Context, "validation", lambda context: asked.append("validation") or validation(context))
    start("ladder_seconds", "--tiny").succeeded()
    ladder.runner.load.cache_clear()
    asked.clear()
    found = rehearse("ladder", "ladder", "backwards", "side")
    assert asked.count("validation") == 4 and "validation" not in asked[asked.index("test") :]
    tried = [run for run in found["runs"] if run["part"] == "factor"]
    for step, factor in found["factors"].items():
        accuracies = {run["factor"]: run["accuracy"] for run in tried if run["step"] == step}
        assert accuracies[factor] == max(accuracies.values()) and len(accuracies) == 2
    steps = list(ladder_recipes.ladder(CHOSEN))
    assert list(found["ladder"]) == steps and len(found["side"]) == 7 and len(found["backwards"]) == 6
    assert found["backwards"][IS_BEST]["mean"] == found["ladder"][BEFORE_BEST]["mean"]
    rise = found["ladder"]["Adam"]["difference"]
    assert rise == pytest.approx(found["ladder"][BATCHES]["mean"] - found["ladder"]["Adam"]["mean"])
    shown = ladder.tables(found)
    assert [len(table.splitlines()) - 2 for table in shown.values()] == [11, 6, 7, 4]
    epoch = read(TINY / "ladder_seconds.json")["variants"]["Adam"]["epoch"]
    assert f"| {epoch:.1f} | " in next(line for line in shown["ladder"].splitlines() if line.startswith("| Adam"))
    assert (TINY / "ladder.png").exists()
    monkeypatch.setattr(loop, "train", None)
    assert rehearse("ladder", "side")["runs"] == found["runs"]  # nothing is left to do
    for run in tried:  # the other factors are better now: the steps that have one are left
        run["accuracy"] = float(run["factor"] != found["factors"][run["step"]])
    (TINY / "ladder.json").write_text(json.dumps(found), encoding="utf-8")
    study = Study(Context("ladder", "digits", tiny=True, seeds=(0,), variants=("ladder",)), ladder.EXPERIMENT)
    assert [task["variant"] for task in study.missing()] == [LINEAR, "order drawn anew", BATCHES]
    assert not {LINEAR, BATCHES} & study.content()["ladder"].keys()


def test_a_difference_has_welchs_interval():
    own, base = ([{"accuracy": 1 - error} for error in errors] for errors in ((0.01, 0.02, 0.03), (0.03, 0.04, 0.05)))
    found = ladder.row(own, base)
    half = 2.776445 * (2 * 0.0001 / 3) ** 0.5  # Student's t of four degrees of freedom, 97.5 %
    assert found["difference"] == pytest.approx(-0.02)
    assert found["interval"] == pytest.approx([-0.02 - half, -0.02 + half], rel=1e-4)
    assert ladder.cells({**found, "training_mean": 1, "training_deviation": 0})[3:] == ["−2.00", "−4.27 to +0.27"]
    assert "interval" not in ladder.row(own[:1], base) and "difference" not in ladder.row(own, None)
    assert ladder.cells(ladder.row([{"accuracy": None}], base))[1] == "diverged"


def test_a_committee_is_the_mean_of_its_members_probabilities(start, rehearse, no_digests, monkeypatch):  # noqa: F811
    sure, weak, other = (torch.tensor([[p, 1 - p]]) for p in (0.9, 0.45, 0.2))
    two, none = torch.tensor([0]), torch.tensor([1])
    assert committee.errors([sure, weak, other], two) == pytest.approx([2 / 3, 1 / 3, 0])  # weak + other is wrong
    assert committee.errors([sure, weak, other], none) == pytest.approx([1 / 3, 2 / 3, 1])
    monkeypatch.setattr(committee, "TITLES", {"fast": "fast"})
    boosted = [{"variant": "boosted-lenet-4", "seed": s, "accuracy": 0.99 + s / 100, "parameters": 9} for s in (0, 1)]
    write("section_3", TINY, runs=boosted)
    found = rehearse("committee", "--seeds", "0", "1")
    fast = found["variants"]["fast"]
    assert fast["curve"][0] == pytest.approx(sum(fast["errors"]) / 2) and len(fast["curve"]) == 2
    assert fast["parameters"] == 2 * 60_850 and fast["interval"][0] < fast["curve"][1] < fast["interval"][1]
    assert "| boosted LeNet-4 | 3 |  | 0.50 ± 0.71 |" in committee.tables(found)["results"]
    assert (TINY / "committee.png").exists()


def test_deslanted_digits_stand_upright():
    image = torch.zeros(3, 28, 28, dtype=torch.uint8)
    for row in range(8, 24):
        column = 14 + (row - 14) // 2
        image[0, row, column : column + 3] = 255  # a bar that leans, one that stands, and nothing
        image[1, row, 13:16] = 255
    upright = classifiers.deslant(image)
    assert upright.shape == (3, 20, 20) and torch.equal(upright[1:], image[1:, 4:24, 4:24])
    assert torch.equal(upright[0].sum(1), image[0, 4:24].sum(1))  # lines are shifted, no more
    places = torch.arange(20.0)
    before, centres = ((digit[4:].float() @ places) / digit[4:].sum(1) for digit in (image[0, 4:24, 4:24], upright[0]))
    assert before.max() - before.min() > 6 and centres.max() - centres.min() < 1
    assert centres.mean().item() == pytest.approx(before.mean().item(), abs=0.1)
    assert abs(torch.cov(torch.stack([places[4:], centres]))[0, 1]) < 0.02


def test_classifiers_by_hand():
    images, labels = torch.zeros(30, 28, 28, dtype=torch.uint8), torch.arange(30) % 10
    images[torch.arange(30), 10, labels] = torch.tensor([200, 100, 50] * 10, dtype=torch.uint8)  # a pixel a class
    digits = images[:20].clone() // 2
    stored = {}
    for name in "linear", "pairwise", "svm", "neighbours", "rbf":
        features = () if name == "rbf" else (classifiers.pixels,)
        classify, stored[name] = getattr(classifiers, name)(images, labels, *features)
        assert torch.equal(classify(digits), labels[:20]), name
    assert stored["neighbours"] == 30 * 784
    for known, answer in ([1, 2, 4], 1), ([1, 2, 2], 2):  # three answers: the nearest; else the majority
        vote, _ = classifiers.neighbours(images[[0, 10, 20]], torch.tensor(known), classifiers.pixels)
        assert vote(images[:1]) == answer
    assert classifiers.products(torch.tensor([[2.0, 3.0, 5.0]])).tolist() == [[4, 6, 10, 9, 15, 25]]
    few, classes = few_digits("digits", None, "train")
    for fit, numbers in (classifiers.quadratic, 784 * 41 + 8210), (classifiers.connected, 7850):
        classify, stored = fit(few, classes)
        assert stored == numbers and (classify(few) == classes).float().mean() > 0.9


def test_the_comparison_has_the_errors_of_the_studies_beside_its_own(start, no_digests, monkeypatch):  # noqa: F811
    monkeypatch.setattr(mnist, "load_dataset", few_digits)
    write(
        "section_3",
        TINY,
        runs=[{"variant": "lenet-1", "seed": s, "accuracy": 0.97 + s / 100, "seconds": 7} for s in (0, 1)],
    )
    out = start("comparison", "--tiny").succeeded().out
    assert "errors of LeNet-1: those in" in out and out.count("left out: what python -m experiments") == 2
    found = read(TINY / "comparison.json")["variants"]
    assert found.keys() == {*comparison.METHODS, "lenet-1"}
    small = found["lenet-1"]
    assert (small["seeds"], small["training_seconds"], small["numbers"]) == (2, 7, 2578)
    assert small["error"] == pytest.approx(0.025) and small["interval"] == wilson_interval(small["error"] * 100, 100)
    assert found["1000"]["numbers"] == 795_010 and found["pairwise"]["numbers"] == 45 * 785
    trained = [name for name, (*_, fit) in comparison.METHODS.items() if "connected" not in str(fit) and name != "rbf"]
    assert len(trained) == 9 and all(0 < found[name]["error"] < 0.6 for name in trained)
    shown = comparison.tables({"variants": {"lenet-1": {**small, "error": 0.0199, "near": True}}})["results"]
    assert "| LeNet-1 | 2 | 1.99 | " in shown and "| 1.7 | yes |" in shown
    assert (TINY / "comparison.png").exists()
    write("seeds", TINY, runs=[{"variant": "1998", "seed": 0, "accuracy": 0.0, "seconds": 1}])
    monkeypatch.setitem(comparison.METHODS, "linear", None)  # is not made again
    assert "errors of LeNet-5: those in" in start("comparison", "--tiny", "linear", "1998").succeeded().out
    assert not read(TINY / "comparison.json")["variants"]["1998"]["near"]
