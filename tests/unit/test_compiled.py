"""The compiled loops beside model.py: the same gradient, training and bits; and no run fails for want of them."""

import copy
import dataclasses
import hashlib
import os
import subprocess
import sys
import time

import numba
import numpy as np
import pytest
import torch
from conftest import digits, few

import model
from digits.mnist import Data
from model import normalize
from training import cache, compiled, kernels, loop, steps
from training.recipes import RECIPES
from training.state import State

change = dataclasses.replace
DEFAULT, OF_1998 = RECIPES["default"], RECIPES["1998"]
EACH = {
    "default": DEFAULT,
    "full C3, ReLU": change(DEFAULT, model_arguments={"connection": "full", "activation": "relu"}),
    "1998": OF_1998,
    "1998, a factor of the distance": change(OF_1998, model_arguments={"output": "rbf", "rbf_factor": 0.3}),
    "eq. 8": change(OF_1998, loss="eq. 8", j=None),
}
RECIPE = pytest.mark.parametrize("recipe", EACH.values(), ids=EACH)


def train(recipe=DEFAULT, epochs=1, make_steps=loop.fastest, data=None):
    return list(loop.train(recipe.override(epochs, augment=False), data or few(), 0, make_steps=make_steps))[-1]


def path(trained):
    return trained.history[-1]["path"]


def differentiate(state, recipe, dtype):
    """The gradient of model.py for all digits of a state, one batch."""
    network = copy.deepcopy(state.model).to(dtype)
    losses = recipe.losses(network(normalize(state.images, dtype)), state.labels)
    gradients = torch.autograd.grad(recipe.loss_factor(len(losses)) * losses.sum(), list(network.parameters()))
    return torch.cat([gradient.flatten() for gradient in gradients]).double()


@pytest.mark.parametrize("count", [1, 5, 33, 70])
@RECIPE
def test_the_gradient_is_as_near_to_the_exact_one_as_that_of_model_py(recipe, count):
    """In batches of one digit, of a part of a block of 32, and of more; no ReLU of seed 7 is near its bend."""
    images, labels = (tensor[:count].clone() for tensor in digits("train"))
    state = State(change(recipe, batch_size=count), 7, (images, labels))
    before = state.weights.clone()
    found, gradient = compiled.loops(kernels, state, recipe)
    exact, plain = (differentiate(state, recipe, dtype) for dtype in (torch.float64, torch.float32))
    distance = (torch.from_numpy(gradient(torch.arange(count))) - exact).norm()
    assert distance < 2 * (plain - exact).norm() < 1e-5 * exact.norm()
    assert torch.equal(state.weights, before)
    row, expected = (made.evaluate((images, labels)) for made in (found, steps.plain(state, recipe)))
    assert row == pytest.approx(expected, rel=1e-5)
    state.labels += 10
    with pytest.raises(ValueError, match="0 to 9"):
        compiled.compiled(state, recipe)


def test_loops_for_single_digits_refuse_two_a_step():
    state = State(OF_1998, 0, digits("train"))
    steps, gradient = compiled.loops(kernels, state, OF_1998)
    for function, two in (steps.run, torch.tensor([[0, 1]])), (gradient, torch.tensor([0, 1])):
        with pytest.raises(ValueError, match="one digit a step, but order is .1, 2."):
            function(two)


@pytest.mark.parametrize("size", [1, 32])
@RECIPE
def test_weights_and_history_are_those_of_the_plain_path(recipe, size, monkeypatch):
    """100 digits in batches of 32 leave a last one of 4."""
    recipe = change(recipe, batch_size=size, factor=recipe.factor and recipe.factor / size)
    plain = train(recipe, 2, steps.plain)
    monkeypatch.setattr(torch.optim.Optimizer, "__init__", lambda *_: pytest.fail("an optimizer that nothing needs"))
    found = train(recipe, 2)
    assert path(found) == "compiled" and path(plain) == "plain"
    for pair in (found.last, plain.last), (found.tested, plain.tested):
        ours, theirs = (torch.cat([tensor.flatten() for tensor in each.values()]) for each in pair)
        assert (ours - theirs).norm() < 1e-3 * theirs.norm()
    for row, expected in zip(found.history, plain.history, strict=True):
        for subset in "train", "test":
            assert row[f"{subset}_loss"] == pytest.approx(expected[f"{subset}_loss"], rel=1e-3)
            assert row[f"{subset}_accuracy"] == pytest.approx(expected[f"{subset}_accuracy"], abs=0.02)


def test_tanh_is_within_a_millionth_over_all_of_single_precision():
    @numba.njit
    def all_of(x):
        return np.array([kernels.tanh(u) for u in x])

    bits = np.linspace(0, np.float32(np.finfo(np.float32).max).view(np.uint32), 400_001).astype(np.uint32)
    positive = np.concatenate([bits.view(np.float32), np.linspace(0, 20, 200_001, dtype=np.float32)])
    for u in positive, -positive:
        assert np.abs(all_of(u) - np.tanh(u.astype(float))).max() < 1e-6


def test_where_the_loops_do_not_cover_a_network_or_are_wrong_or_missing_training_goes_on(monkeypatch, capsys):
    data = Data("digits", *((images, labels % 5) for images, labels in few()[1:]))
    for arguments in {"subsampling": "average"}, {"activation": "tanh"}, {"classes": 11}, {"classes": 5}:
        assert path(train(change(DEFAULT, model_arguments=arguments), data=data)) == "plain"
        said = capsys.readouterr().out
        assert said.startswith("kernels.py has no loops for this network or loss; ") and said.count("\n") == 1
        assert path(train(change(DEFAULT, model_arguments=arguments), make_steps=steps.plain, data=data)) == "plain"
        assert capsys.readouterr().out == ""  # nobody has asked for loops
    with monkeypatch.context() as patch:
        patch.setattr(model.Squash, "A", 1.8)
        assert path(train()) == "plain" and "off that of model.py" in capsys.readouterr().out
    monkeypatch.delitem(sys.modules, "training.kernels")
    monkeypatch.delattr("training.kernels")
    monkeypatch.setitem(sys.modules, "numba", None)
    assert path(train()) == "plain"
    out, err = capsys.readouterr()
    assert out.startswith("no compiled loops here (") and out.count("\n") == 1 and not err


def test_that_numba_compiles_is_told_once_and_not_of_a_start_that_is_slow(capsys):
    with compiled.notice_of_compiling(cached=True):
        time.sleep(1.6)
        assert capsys.readouterr().out == ""
        for one in numba.njit(lambda: 1), numba.njit(lambda: 2):
            one()
    assert capsys.readouterr().out == "compiling the loops of kernels.py, once; this takes about half a minute ...\n"


@pytest.mark.parametrize("damage", ["empty", "half", "garbled", "one more", "one less"])
def test_what_numba_keeps_is_used_only_as_it_was_left(damage, tmp_path, capsys):
    index, code = (tmp_path / f"kernels.take_x.{end}" for end in ("nbi", "1.nbc"))
    index.write_bytes(b"index")
    cache.seal(tmp_path)
    code.write_bytes(b"machine code")  # of another signature: sealed again
    cache.seal(tmp_path)
    cache.remove_unsealed(tmp_path)
    assert index.exists() and code.read_bytes() == b"machine code" and capsys.readouterr().out == ""
    if damage == "one less":
        code.unlink()
    else:
        file = tmp_path / "kernels.take_x.2.nbc" if damage == "one more" else code
        file.write_bytes({"empty": b"", "half": b"machin", "garbled": b"machine cope"}.get(damage, b"new"))
    for file in tmp_path.iterdir():
        os.utime(file, (0, 0))
    cache.remove_unsealed(tmp_path)
    said = capsys.readouterr().out
    assert said.count("\n") == 1 and "damaged or incomplete" in said and not list(tmp_path.iterdir())


def test_what_another_process_has_just_compiled_is_left_alone(tmp_path, capsys):
    for name in "kernels.take_x.nbi", "kernels.take_y.nbi":  # before anything is sealed, and after that
        (tmp_path / name).write_bytes(b"index")
        cache.remove_unsealed(tmp_path)
        assert (tmp_path / name).exists() and capsys.readouterr().out == ""
        cache.seal(tmp_path)


def child(code, **environment):
    """What another Python prints that runs this code after `from test_compiled import *`."""
    command = [sys.executable, "-c", f"from test_compiled import *; {code}"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), **environment}
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout


def test_with_compiling_disabled_training_goes_on():
    said, found = child("print(path(train()))", NUMBA_DISABLE_JIT="1").splitlines()
    assert said.startswith("no compiled loops here (NUMBA_DISABLE_JIT is set)") and found == "plain"


def bits():
    """How often numba's cache was read, and the digest of weights trained a digit a step."""
    content = b"".join(tensor.numpy().tobytes() for tensor in train(OF_1998).last.values())
    return sum(kernels.take_singles.stats.cache_hits.values()), hashlib.sha256(content).hexdigest()


def test_a_process_that_compiles_gives_the_bits_of_one_that_has_loaded_the_cache(tmp_path):
    """Compiled here too only if nothing had compiled the loops before the tests."""
    assert child("print(*bits())", NUMBA_CACHE_DIR=str(tmp_path)).splitlines()[-1].split() == ["0", bits()[1]]
