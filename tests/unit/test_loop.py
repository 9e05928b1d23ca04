"""The loop and its plain steps, which are those of minimal.py, and steps captured in a CUDA graph, without a GPU."""

import contextlib
import copy
import dataclasses
import re
import runpy
import threading
from unittest.mock import MagicMock

import numpy as np
import pytest
import torch
from conftest import ROOT, digits, few, run_here, same
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import minimal
import utils
from digits import mnist
from digits.augmentation import augment
from digits.mnist import Data
from model import normalize, pad
from training import checkpoint, loop, steps
from training.recipes import RECIPES
from training.state import State

RATES = (0.0005, 0.0005, 0.0002)
ADAM = dataclasses.replace(RECIPES["default"], learning_rates=RATES, augment=False)
OF_1998 = dataclasses.replace(RECIPES["1998"], learning_rates=RATES)
AUGMENTED = dataclasses.replace(ADAM, augment=True, elastic=0.5)
RECIPE = pytest.mark.parametrize("recipe", [ADAM, OF_1998, AUGMENTED], ids=["adam", "1998", "augmented"])
PLAIN = pytest.mark.parametrize("recipe", [ADAM, OF_1998], ids=["adam", "1998"])
PATH = pytest.mark.parametrize("make_steps", [loop.fastest, steps.plain], ids=["fastest", "plain"])


def run(recipe, seed=1, **options):
    return list(loop.train(recipe, few(), seed, **options))


def flat(tensors):
    return torch.cat([tensor.detach().flatten() for tensor in tensors.values()])


@RECIPE
@PATH
def test_resumed_is_uninterrupted_bit_for_bit_and_another_seed_is_another_run(recipe, make_steps):
    whole = run(recipe, make_steps=make_steps)
    first = copy.deepcopy(whole[0])
    np.random.seed(5)
    torch.manual_seed(5)
    resumed = run(recipe, found=first, make_steps=make_steps)
    assert [saved.epoch for saved in whole] == [1, 2, 3]
    assert all(same(one, other) for one, other in zip(whole[1:], resumed, strict=True))
    assert same(first, whole[0])  # later epochs change no checkpoint
    again, *others = (next(loop.train(recipe, few(), seed, make_steps=make_steps)) for seed in (1, 0, 2**32 - 1))
    assert same(again, first) and len({tuple(flat(saved.last).tolist()) for saved in (first, *others)}) == 3


@PATH
def test_teachers_from_the_next_seeds_are_learned_from_and_labels_no_more(make_steps):
    recipe, data = dataclasses.replace(ADAM, teachers=2), few()
    found = list(loop.teachers(recipe, data, 1, make_steps))
    assert [one.seed for one in found] == [2, 3] and same(found[0], run(ADAM, 2, make_steps=make_steps)[-1])
    with pytest.raises(ValueError, match="the recipe has 2 teachers"):
        run(recipe, make_steps=make_steps)
    committee = [checkpoint.network(one) for one in found]
    taught = run(recipe, make_steps=make_steps, committee=committee)
    mislabelled = Data("digits", (data.train[0], data.train[1].roll(1)), data.test)
    again = list(loop.train(recipe, mislabelled, 1, make_steps=make_steps, committee=committee))
    assert torch.equal(flat(again[-1].last), flat(taught[-1].last))
    plain = run(recipe, make_steps=steps.plain, committee=committee)
    assert (flat(taught[-1].last) - flat(plain[-1].last)).norm() < 1e-3 * flat(plain[-1].last).norm()
    losses = [[row["train_loss"] for row in one[-1].history] for one in (taught, plain)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)


@pytest.fixture(params=[1, 2])
def threads(request):
    """PyTorch with one and with two threads; with two, images are made ahead."""
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


@pytest.mark.parametrize("augmented", [True, False])
def test_each_epoch_has_an_order_and_images_of_its_own_augmented_as_the_recipe_says(augmented, threads):
    orders, seen = [], []

    def watched(state, recipe):
        def run(order):
            orders.append(order.flatten().tolist())
            seen.append(state.images.clone())

            made.run(order)

        made = steps.plain(state, recipe)
        return made._replace(run=run)

    recipe = dataclasses.replace(AUGMENTED, augment=augmented, batch_size=100)
    run(recipe, make_steps=watched)
    images = pad(few().train[0])
    draws = [loop.generator(1, epoch, loop.AUGMENTATION) for epoch in (1, 2, 3)]
    expected = [augment(images, generator, recipe.strength, 0.5) if augmented else images for generator in draws]
    assert all(torch.equal(one, other) for one, other in zip(seen, expected, strict=True))
    assert all(sorted(order) == list(range(100)) for order in orders) and orders[0] != orders[1] != orders[2]
    run(dataclasses.replace(recipe, constant_order=True), make_steps=watched)
    assert orders[3] == orders[4] == orders[5] == orders[0]


def test_one_thread_trains_and_another_makes_images_until_the_run_ends_or_is_left(threads):
    for _ in range(2):  # a second run has its image thread, too
        trained = loop.train(AUGMENTED, few(), 0)
        next(trained)
        helpers = [thread for thread in threading.enumerate() if "augmentation" in thread.name]
        assert torch.get_num_threads() == 1 and len(helpers) == threads - 1
        trained.close()
        assert torch.get_num_threads() == threads
        for helper in helpers:
            helper.join(10)
            assert not helper.is_alive()


@PLAIN
@PATH
def test_each_epoch_has_its_learning_rate_and_a_row_tells_the_losses_and_accuracies(recipe, make_steps):
    """With steps of almost nothing they are those of the initial network."""
    recipe = dataclasses.replace(recipe, learning_rates=(1e-12, 0.0005, 1e-12))
    first, second, third = run(recipe, make_steps=make_steps)
    model = State(recipe, 1, few().train).model
    weights = [flat(dict(model.named_parameters())), *(flat(saved.last) for saved in (first, second, third))]
    far = [(one - other).norm() for one, other in zip(weights, weights[1:])]
    assert far[0] < 1e-6 and far[1] > 1e-2 and far[2] < 1e-6
    row, *_ = first.history
    for subset, (images, labels) in zip(("train", "test"), few()[1:]):
        losses = recipe.losses(model(normalize(pad(images))), labels)
        assert row[f"{subset}_loss"] == pytest.approx(losses.mean().item(), rel=1e-5)
        assert row[f"{subset}_accuracy"] == pytest.approx(utils.accuracy(model, images, labels), abs=1e-9)
    assert row["epoch"] == 1 and 0 < row["seconds"] < 100
    assert row["path"] == ("plain" if make_steps is steps.plain else "compiled")
    if recipe.optimizer == "diagonal-lm":
        assert row["step_range"][1] <= 1e-12 / 0.02 < second.history[1]["step_range"][0]


def test_progress_is_told_digit_by_digit_in_batches_of_any_size(monkeypatch):
    monkeypatch.setattr(loop, "CHUNK", 2)
    told = []
    *_, last = run(ADAM, progress=lambda epoch, digits, totals: told.append((epoch, digits, *totals.tolist())))
    assert [call[:2] for call in told] == [(epoch, count) for epoch in (1, 2, 3) for count in (64, 96, 100)]
    row, (*_, loss, correct, count) = last.history[-1], told[-1]
    assert count == 100 and (row["train_loss"], row["train_accuracy"]) == (loss / 100, correct / 100)
    (last,), (as_one,) = (run(ADAM.override(1, size)) for size in (500, 100))  # fewer digits than a batch
    assert torch.equal(flat(last.last), flat(as_one.last))


def test_minimal_is_the_plain_training():
    train, test = (mnist.load_dataset("digits", None, subset) for subset in ("train", "test"))
    data = mnist.Data("digits", [tensor[:500] for tensor in train], test)  # the last batch is a smaller one
    plain = loop.train(ADAM.override(epochs=2), data, 0, make_steps=steps.plain)
    for model, trained in zip(minimal.train(*data.train, 2), plain, strict=True):
        found, expected = (torch.cat([w.flatten() for w in s.values()]) for s in (model.state_dict(), trained.last))
        assert (found - expected).norm() <= 1e-5 * expected.norm()
        assert minimal.accuracy(model, *test) == pytest.approx(utils.accuracy(model, *test))
    assert 0.1 < minimal.accuracy(model, *test) < 1


def test_it_prints_the_accuracy_after_each_epoch_in_the_form_that_its_head_shows(monkeypatch):
    monkeypatch.setattr(mnist, "find_dataset", lambda choice, data_dir: "mnist")
    monkeypatch.setattr(mnist, "load", lambda name, data_dir: few())
    monkeypatch.setattr(torch, "set_num_threads", lambda count: None)

    def start():
        return run_here(lambda: runpy.run_path(str(ROOT / "minimal.py"), run_name="__main__"), "minimal.py")

    printed = start().succeeded().out.splitlines()
    shown = [line.strip() for line in minimal.__doc__.splitlines() if line.startswith("    epoch")]
    form = [re.sub(r"\d+\.\d\d", "N", line) for line in printed]
    assert len(form) == 20 and [form[0], form[-1]] == [re.sub(r"\d+\.\d\d", "N", line) for line in shown]
    assert [re.search(r"\d+", line)[0] for line in printed] == [str(epoch) for epoch in range(1, 21)]
    monkeypatch.setattr(mnist, "load", MagicMock(side_effect=utils.UserError("a file is damaged")))
    start().refused("minimal.py: a file is damaged")
    assert len((ROOT / "minimal.py").read_text().splitlines()) <= 60


class Tape(TorchDispatchMode):
    """Records operations as a CUDA graph does: the tensors, by their place in memory, and each number as it is now."""

    operations = ()

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        result = operation(*args, **(kwargs or {}))
        if operation.namespace != "profiler":  # marks of PyTorch's own
            self.operations += ((operation, args, kwargs or {}, result),)
        return result

    @torch.inference_mode()
    def replay(self):
        for operation, args, kwargs, result in self.operations:
            again = operation(*args, **kwargs)
            if all(value.alias_info is None for value in operation._schema.returns):  # neither in place nor a view
                for old, new in zip(tree_leaves(result), tree_leaves(again)):
                    if old is not None:
                        old.copy_(new)


@pytest.fixture
def cuda(monkeypatch):
    """torch.cuda's graphs and streams, on the CPU; with an error, each capture fails at its end."""
    fake = MagicMock(error=None)

    @contextlib.contextmanager
    def graph(tape, stream):
        with tape:
            yield
        if fake.error:  # as PyTorch's: another error follows
            try:
                raise RuntimeError(fake.error)
            finally:
                raise RuntimeError("the capture has failed")

    fake.CUDAGraph.side_effect, fake.graph = Tape, graph
    for name in "CUDAGraph", "Stream", "current_stream", "set_stream", "stream", "graph":
        monkeypatch.setattr(torch.cuda, name, getattr(fake, name))
    return fake


@PLAIN
def test_captured_steps_are_single_steps(recipe, cuda, monkeypatch):
    """Graphs of 5 steps, and steps besides; a batch of Adam's is smaller; one capture serves all learning rates."""
    monkeypatch.setattr(steps, "STEPS_PER_GRAPH", 5)
    recipe = dataclasses.replace(recipe, batch_size=min(recipe.batch_size, 8))
    captured = run(recipe, make_steps=steps.cuda_graph)
    assert cuda.CUDAGraph.call_count == 1
    assert same(run(recipe, make_steps=steps.cuda_graph, found=captured[0])[-1], captured[-1])
    assert {row["path"] for row in captured[-1].history} == {"cuda_graph"}
    for one, other in zip(captured, run(recipe, make_steps=steps.plain), strict=True):
        called_plain = [{**row, "path": "plain"} for row in one.history]
        assert same(dataclasses.replace(one, history=called_plain), other)


def test_where_the_capture_fails_single_steps_are_taken(cuda, capsys):
    cuda.error = "operation not permitted\nwhen stream is capturing"
    found = run(ADAM, make_steps=steps.cuda_graph)[-1]
    notice = "no CUDA graph here (operation not permitted); going on step by step, slower\n"
    assert capsys.readouterr() == (notice, "")
    cuda.set_stream.assert_called_once_with(cuda.current_stream())  # it was left where the capture failed
    assert same(found, run(ADAM, make_steps=steps.plain)[-1])  # its path, too


@PLAIN
def test_steps_and_curvature_stay_on_the_device_and_read_nothing_back(recipe, monkeypatch):
    """Meta tensors have nothing to read, and refuse those of the CPU. Adam's own step is one operation on CUDA."""
    monkeypatch.setattr(torch.optim.Adam, "step", lambda self: None)
    state = State(recipe, 0, [tensor.to("meta") for tensor in digits("train")])
    if recipe is OF_1998:
        state.estimate_curvature(np.random.default_rng(0), 1.0)
    steps.plain(state, recipe).run(torch.zeros(2, state.batch_size, dtype=torch.int64, device="meta"))
