"""Experiments beside the paper: what it leaves open, its curve, its errors, its augmentation, its noise."""

import pytest
import torch
from test_experiments import TINY, read, rehearse, start, write  # noqa: F401, two of them are fixtures

from experiments import left_open, left_open_tested, paper_augmentation, paper_errors, results, robustness, seeds
from experiments.runner import Context
from model import pad
from training import loop
from training.recipes import RECIPES
from training.state import State


def test_settings_are_tried_then_the_best_on_all_digits_then_from_more_seeds(rehearse, monkeypatch):  # noqa: F811
    data = []
    train = loop.train
    monkeypatch.setattr(loop, "train", lambda recipe, given, seed: data.append(given) or train(recipe, given, seed))
    found = rehearse("left_open")
    runs = [(run["digits"], run["seed"]) for run in found["runs"]]
    assert runs == [("without validation", 0)] * 6 + [("all", 0)] * 3 + [("without validation", 1), ("all", 1)] * 3
    assert {len(given.train[1]) for given in data} == {86, 100}  # a seventh of a hundred is held out
    held_out = {tuple(given.test[0][:, 14, 14].tolist()) for given in data}
    assert len(held_out) == 2  # of the training digits, or all of these: never the test set
    assert [len(row["training"]) for row in found["settings"].values()] == [1] * 6
    assert (TINY / "left_open.png").exists() and left_open.tables(found)["results"].count("\n") == 7


def test_judges_by_hand(monkeypatch):
    monkeypatch.setattr(left_open, "CURVE", [0.05, 0.03, 0.01])
    assert left_open.away([0.06, 0.03]) == pytest.approx(0.01) and left_open.away([0.03, 0.01], 1) == 0
    row = {
        "seeds": 1,
        "mean": 0.99,
        "away": 0.001,
        "least": 1e-4,
        "most": 1e-2,
        "unscaled_least": 1,
        "unscaled_most": 1,
    }
    others = {"a": row, "b": {**row, "mean": 0.9915}, "c": {"seeds": 1}, "d": {**row, "seeds": 5, "mean": 0.999}}
    assert left_open.judges(row, others) == ["validation", "curve", "steps"]
    others["b"]["mean"] = 0.993  # noise is 0.24 %
    assert left_open.judges({**row, "away": 0.003, "most": 0.04}, others) == []
    assert left_open.judges(others["c"], others) == []
    runs = [("a", 0.9, [0.05]), ("b", 0.8, [0.051]), ("c", 0.7, [0.9]), ("d", None, None), ("e", 0.91, [0.06])]
    runs = [{"variant": name, "accuracy": accuracy, "training": curve} for name, accuracy, curve in runs]
    assert left_open.ranked(runs) == ["a", "e", "b", "c"]
    assert len(left_open.SETTINGS) >= 60


def test_the_curve_is_compared_point_by_point_with_the_papers(start):  # noqa: F811
    rows = [{"train_accuracy": a, "test_accuracy": b} for a, b in ((0.95, 0.97), (0.96, 0.976), (0.99, 0.98))]
    write("seeds", TINY, runs=[{"variant": "1998", "seed": seed, "history": rows} for seed in (0, 1)])
    start("paper_curve", "--tiny").succeeded()
    found = read(TINY / "paper_curve.json")["distances"]
    assert found["training"]["differences"] == pytest.approx([5 - 4.89, 4 - 3.04, 1 - 1.77])
    assert found["training"]["outside"] == pytest.approx([5 - 4.89, 4 - 3.04, 1.77 - 1])
    assert found["training"]["most"] == pytest.approx(0.96) and found["training"]["most_from_pass_3"] == pytest.approx(
        0.77
    )
    assert found["test"]["most_shifted"] == pytest.approx(max(3 - 2.24, 2.4 - 1.48, 2 - 1.43))


def test_what_was_not_taken_is_tested_beside_what_was(rehearse):  # noqa: F811
    rows = [{"train_accuracy": a, "test_accuracy": b} for a, b in ((0.95, 0.97), (0.96, 0.9779), (0.99, 0.98))]
    write("seeds", TINY, runs=[{"variant": "1998", "seed": 0, "accuracy": 0.98, "history": rows}])
    found = rehearse("left_open_tested")["variants"]
    assert list(found) == ["1998", *left_open_tested.OTHERS] and all(row["seeds"] == 1 for row in found.values())
    assert found["1998"]["training_away"] == pytest.approx(0.04 - 0.0304)
    assert found["1998"]["test_away"] == pytest.approx(0.02 - 0.0148)


def test_errors_are_compared_with_the_papers(start, monkeypatch):  # noqa: F811
    monkeypatch.setattr(paper_errors, "PAPER", {1: (5, 3), 2: (4, 9), 7: (0, 6)})
    both = [([1, 2, 8], [3, 1, 0]), ([1, 7, 9, 8], [3, 6, 0, 0])]
    runs = [{"variant": "1998", "seed": i, "misclassified": a, "answers": b} for i, (a, b) in enumerate(both)]
    write("seeds", TINY, runs=runs)
    start("paper_errors", "--tiny").succeeded()
    found = read(TINY / "paper_errors.json")
    row = found["variants"]["1998"]
    assert (row["errors"], row["shared_with_paper"], row["same_answer"], row["shared_with_each_other"]) == (
        3.5,
        2,
        1.5,
        2,
    )
    assert row["paper_jaccard"] == [2 / 4, 2 / 5] and row["own_jaccard"] == [2 / 5]
    assert found["digits"]["1"] == {"label": 5, "answer": 3, "here": {"3": 2}, "misclassified_by": 2}
    assert "| all 2 networks | 1 |" in paper_errors.tables(found)["digits"]
    assert len(results.PAPER["figure 8"]["errors"]) == 82


def test_digits_are_distorted_once_and_each_version_is_seen_in_turn():
    images = pad(torch.randint(0, 256, (50, 28, 28), dtype=torch.uint8))
    versions = paper_augmentation.Versions(images, 3)
    passes = torch.stack([versions.of(number) for number in range(1, 21)])
    assert torch.equal(passes[:10], passes[10:]) and torch.equal(versions.images[0], images)
    for digit in range(50):  # each of its ten versions, once
        seen = {image.numpy().tobytes() for image in passes[:10, digit]}
        assert seen == {image.numpy().tobytes() for image in versions.images[:, digit]} and len(seen) == 10
    assert 0 < sum(torch.equal(a, b) for a, b in zip(passes[0], images)) < 25  # the digits as they are, among others
    recipe = RECIPES["1998"].override(epochs=2)
    state = State(recipe, 0, (images[:, 2:30, 2:30], torch.arange(50) % 10))
    steps = paper_augmentation.take_versions(3, state, recipe)
    assert torch.equal(state.images, passes[0])
    for order in torch.arange(50).view(2, 25, 1):
        steps.run(order)
    assert torch.equal(state.images, passes[1])


def test_a_tenth_of_the_pixels_is_inverted_anew_in_each_step():
    recipe = RECIPES["1998"].override(epochs=1)
    images = torch.full((20, 28, 28), 255, dtype=torch.uint8)
    state = State(recipe, 0, (images, torch.arange(20) % 10))
    clean, seen = state.images.clone(), []
    steps, state.generator = seeds.noisy(state, recipe), loop.generator(0, 1, loop.STEPS)
    for order in torch.arange(20).view(20, 1), torch.arange(20).view(20, 1):
        steps.run(order)
        seen.append(state.images.clone())
    shares = [(images != clean).float().mean().item() for images in seen]
    assert shares == pytest.approx([0.1, 0.1], abs=0.01) and not torch.equal(*seen)
    assert all(torch.equal(images[images != clean], (255 - clean)[images != clean]) for images in seen)


def test_a_network_that_is_kept_is_read_and_one_of_another_recipe_trained_again(rehearse, monkeypatch):  # noqa: F811
    amounts = {"rotation": (-30, 0, 30, 60), "scale": (0.5, 1, 2), "noise": (0, 0.1, 0.4)}
    changes = {name: (robustness.CHANGES[name][0], own, *robustness.CHANGES[name][2:]) for name, own in amounts.items()}
    monkeypatch.setattr(robustness, "CHANGES", changes)
    found = rehearse("robustness")
    assert [run["variant"] for run in found["runs"]] == [*seeds.COMPARED, seeds.NOISY]
    for run in found["runs"]:
        accuracy = run["accuracies"]
        assert accuracy["rotation"]["0"] == accuracy["noise"]["0"] and len(set(accuracy["rotation"].values())) > 1
    context, trained = Context("", "digits", tiny=True), []
    train = seeds.train
    monkeypatch.setattr(seeds, "train", lambda *what: trained.append(what) or train(*what))
    seeds.network(context, "1998", 0)
    assert not trained
    monkeypatch.setattr(Context, "shorten", lambda context, recipe: recipe.override(epochs=2))
    seeds.network(context, "1998", 0)
    assert len(trained) == 1
