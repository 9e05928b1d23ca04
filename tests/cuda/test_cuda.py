"""What only a CUDA device can show: python -m pytest -m cuda. A capture that fails, and goes on plain, fails here."""

import dataclasses
import json

import numpy as np
import pytest
import torch
from conftest import REFERENCE, digits, same

import utils
from digits import mnist
from digits.augmentation import augment
from model import pad
from reading.ctc import ctc
from training import checkpoint, loop, steps
from training.recipes import RECIPES
from training.state import State

pytestmark = pytest.mark.cuda

# With a new learning rate in the third epoch; an epoch has graphs of 25 steps, single steps, and a smaller batch.
RATES = (0.0005, 0.0005, 0.0002)
ADAM = dataclasses.replace(RECIPES["default"], learning_rates=RATES, batch_size=8, augment=False)
OF_1998 = dataclasses.replace(RECIPES["1998"], learning_rates=RATES)
LINEAR_1998 = dataclasses.replace(OF_1998, model_arguments={}, loss="cross-entropy", j=None, f6_curvature=None)
RECIPE = pytest.mark.parametrize("recipe", [ADAM, OF_1998], ids=["default", "1998"])


@pytest.fixture(autouse=True)
def device():
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    utils.pick_device("cuda")
    assert not torch.backends.cuda.matmul.allow_tf32 and not torch.backends.cudnn.allow_tf32
    yield f"cuda:{torch.cuda.device_count() - 1}"
    torch.use_deterministic_algorithms(False)


def run(recipe, device, make_steps=loop.fastest, found=None):
    data, count = mnist.load("digits", None, device), 60 if recipe is OF_1998 else 500
    train, test = (tuple(tensor[:count] for tensor in part) for part in (data.train, data.test))
    return list(loop.train(recipe, mnist.Data(data.name, train, test), 1, found, make_steps))


@RECIPE
def test_steps_of_a_graph_are_plain_steps(recipe, device):
    captured, plain = run(recipe, device), run(recipe, device, steps.plain)
    assert {row["path"] for row in captured[-1].history} == {"cuda_graph"}
    assert captured[0].versions.keys() >= {"gpu", "cuda"}
    history = [{**row, "path": "plain"} for row in captured[-1].history]
    assert same(dataclasses.replace(captured[-1], history=history), plain[-1])
    assert same(run(recipe, device, found=captured[0])[-1], captured[-1])


@RECIPE
def test_no_step_waits_for_the_device(recipe):
    state = State(recipe, 0, [tensor.to("cuda") for tensor in digits("train")])
    taken, order = steps.plain(state, recipe), torch.zeros(2, state.batch_size, dtype=torch.int64, device="cuda")
    torch.cuda.set_sync_debug_mode("error")
    try:
        taken.run(order)
    finally:
        torch.cuda.set_sync_debug_mode("default")


TRAINED = {
    "default": (ADAM, steps.plain),
    "elastic": (dataclasses.replace(ADAM, augment=True, elastic=1.0), steps.plain),
    "numbers": (RECIPES["numbers"].override(epochs=1), ctc),
}


@pytest.mark.parametrize(("recipe", "make_steps"), TRAINED.values(), ids=TRAINED)
def test_an_epoch_agrees_with_the_cpu(device, recipe, make_steps):
    here, there = (run(recipe, on, make_steps)[0] for on in (device, "cpu"))
    ours, theirs = (torch.cat([tensor.flatten() for tensor in found.last.values()]) for found in (here, there))
    assert (ours - theirs).norm() <= 1e-3 * theirs.norm()
    for loss in "train_loss", "test_loss":
        assert here.history[0][loss] == pytest.approx(there.history[0][loss], rel=1e-3)


@pytest.mark.parametrize("elastic", [0, 1.0])
def test_augmented_images_are_those_of_the_cpu(device, elastic):
    """But for a few values that lie amid two grey levels, and are rounded to the other one."""
    images = pad(digits("train")[0])
    ours, theirs = (augment(images.to(on), np.random.default_rng(0), 1, elastic).cpu().int() for on in (device, "cpu"))
    assert (ours - theirs).abs().max() <= 1 and (ours != theirs).float().mean() < 2e-3


@pytest.mark.parametrize("recipe", [OF_1998, LINEAR_1998], ids=["rbf", "linear"])
def test_the_curvature_is_that_of_the_cpu(device, recipe):
    ours, theirs = (State(recipe, 0, [tensor.to(on) for tensor in digits("train")]) for on in (device, "cpu"))
    for state in ours, theirs:
        state.estimate_curvature(np.random.default_rng(0), 1.0)
    for kind in "curvature", "rate":
        assert theirs.vectors[kind].count_nonzero() == len(theirs.weights)
        torch.testing.assert_close(ours.vectors[kind].cpu(), theirs.vectors[kind], rtol=1e-3, atol=0)


def test_the_scripts(device, call, tmp_path):
    """Trained on the device and tested on both, and the shipped networks' readings, are as on the CPU."""
    flags = "--dataset", "digits", "--record-dir", tmp_path
    out = call("ClassifyTask_train.py", *flags, "--epochs", 2, "--device", device).succeeded().out
    assert f"device {device}" in out and checkpoint.load(tmp_path / checkpoint.FILE).history[0]["path"] == "cuda_graph"
    images, accuracies, readings = [REFERENCE / f"{name}.jpg" for name in ("example", "number")], [], []
    for on in device, "cpu":
        call("ClassifyTask_test.py", *flags, "--device", on).succeeded()
        metrics = json.loads((tmp_path / "metrics.json").read_text(encoding="utf-8"))
        assert metrics["device"] == on
        accuracies.append(metrics["accuracy"])
        readings.append(call("ClassifyTask_predict.py", "--record-dir", REFERENCE, "--device", on, *images).out)
    assert accuracies[0] == pytest.approx(accuracies[1], abs=0.005) and accuracies[0] > 0.5
    assert readings[0] == readings[1] and ".jpg: 5," in readings[0] and ".jpg: 1998," in readings[0]
