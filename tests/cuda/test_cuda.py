"""What only a CUDA device can show: python -m pytest -m cuda. A capture that fails, and goes on plain, fails here."""

import dataclasses

import pytest
import torch
from conftest import digits, same

import utils
from digits import mnist
from training import loop, steps
from training.recipes import RECIPES
from training.state import State

pytestmark = pytest.mark.cuda

# With a new learning rate in the third epoch; an epoch has graphs of 25 steps, single steps, and a smaller batch.
RATES = (0.0005, 0.0005, 0.0002)
ADAM = dataclasses.replace(RECIPES["default"], learning_rates=RATES, batch_size=8, augment=False)
OF_1998 = dataclasses.replace(RECIPES["1998"], learning_rates=RATES)
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


def test_agrees_with_the_cpu():
    last = [run(ADAM, device, steps.plain)[0].last for device in ("cuda", "cpu")]
    ours, theirs = (torch.cat([tensor.flatten() for tensor in named.values()]) for named in last)
    assert (ours - theirs).norm() <= 1e-3 * theirs.norm()
