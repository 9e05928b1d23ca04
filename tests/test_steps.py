"""Recorded steps beside plain ones: without a GPU, and (-m cuda) on one. test_minimal.py has the plain ones."""

import contextlib
import dataclasses
from types import SimpleNamespace
from unittest.mock import MagicMock

import numpy as np
import pytest
import torch
from conftest import digits, same
from torch._subclasses import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import mnist
import steps
import utils
from model import LeNet5, scale
from recipes import RECIPES
from training import State, train

# With a new learning rate in the third epoch; an epoch has steps of 25 recorded ones, others, and a smaller batch.
ADAM = dataclasses.replace(RECIPES["adam"], learning_rates=(0.0005, 0.0005, 0.0002), batch_size=8, distort=False)
OF_1998 = dataclasses.replace(RECIPES["1998"], learning_rates=(0.0005, 0.0005, 0.0002))
RECIPE = pytest.mark.parametrize("recipe", [ADAM, OF_1998], ids=["adam", "1998"])


def run(recipe, checkpoint=None, plain=False, device="cpu"):
    count = 60 if recipe is OF_1998 else 500
    sets = [[t[:count].to(device) for t in mnist.load_dataset("digits", None, part)] for part in ("train", "test")]
    return list(train(recipe, "digits", 1, *sets, checkpoint, plain))


def paths(checkpoint):
    return {row["path"] for row in checkpoint.history}


def called_plain(checkpoint):
    return dataclasses.replace(checkpoint, history=[{**row, "path": "plain"} for row in checkpoint.history])


class Tape(TorchDispatchMode):
    """Records operations as a CUDA graph does: the tensors, by their place in memory, and each number as it is now."""

    def __init__(self):
        super().__init__()
        self.operations = []

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        result = operation(*args, **(kwargs or {}))
        if operation.namespace != "profiler":  # marks of PyTorch's own
            self.operations.append((operation, args, kwargs or {}, result))
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
    """torch.cuda's graphs, streams and events, on the CPU; with an error, each recording fails at its end."""
    fake = SimpleNamespace(tapes=[], error=None)
    fake.now = fake.first = MagicMock()  # the current stream

    @contextlib.contextmanager
    def stream(stream):
        before, fake.now = fake.now, stream
        yield
        fake.now = before

    @contextlib.contextmanager
    def graph(tape, stream):
        before, fake.now = fake.now, stream
        with tape:
            yield
        if fake.error:  # as PyTorch's: the stream stays where it is
            raise RuntimeError(fake.error)
        fake.now = before

    for name, value in {
        "CUDAGraph": lambda: fake.tapes.append(Tape()) or fake.tapes[-1],
        "Event": MagicMock,
        "Stream": MagicMock(),
        "current_stream": lambda device: fake.now,
        "set_stream": lambda stream: setattr(fake, "now", stream),
        "stream": stream,
        "graph": graph,
    }.items():
        monkeypatch.setattr(torch.cuda, name, value)
    monkeypatch.setattr(steps, "fastest", steps.recorded)
    return fake


@RECIPE
def test_recorded_steps_are_single_steps(recipe, cuda):
    single, recorded = run(recipe, plain=True), run(recipe)
    assert paths(recorded[-1]) == {"recorded"} and len(cuda.tapes) == 1  # one recording serves all learning rates
    assert all(same(called_plain(one), other) for one, other in zip(recorded, single, strict=True))
    assert same(run(recipe, recorded[0])[-1], recorded[-1])  # resumed
    assert cuda.now is cuda.first


def test_where_recording_fails_single_steps_are_taken(cuda, capsys):
    cuda.error = "operation not permitted\nwhen stream is capturing"
    found = run(ADAM)[-1]
    notice = "no CUDA graph here (operation not permitted); going on step by step, slower\n"
    assert capsys.readouterr() == (notice, "") and cuda.now is cuda.first
    assert paths(found) == {"plain"} and same(found, run(ADAM, plain=True)[-1])


@RECIPE
def test_steps_and_curvature_read_nothing_back(recipe):
    """Meta tensors have nothing to read. Adam's own step is one operation on CUDA, and left out."""
    state = State(recipe, 0, [tensor.to("meta") for tensor in digits("train")])
    if recipe is ADAM:
        state.optimizer.step = lambda: None
    state.optimizer.set_curvature = getattr(state.optimizer, "set_curvature", lambda curvatures: None)
    state.estimate_curvature(np.random.default_rng(0), 1.0)
    steps.plain(state, recipe).run(torch.zeros(2, state.batch_size, dtype=torch.int64, device="meta"))


@RECIPE
def test_all_tensors_of_the_network_move_to_the_device(recipe):
    """Fake tensors of a GPU refuse those of the CPU."""
    model = LeNet5(**recipe.network)
    shapes = {name: t.shape for name, t in [*model.named_parameters(), *model.named_buffers()]}
    with FakeTensorMode():
        named = {name: torch.empty(shape, device="cuda") for name, shape in shapes.items()}
        images = torch.empty(4, 32, 32, dtype=torch.uint8, device="cuda")
        scores = torch.func.functional_call(model, named, scale(images))
        losses = recipe.losses(scores, torch.empty(4, dtype=torch.int64, device="cuda"))
    assert scores.device.type == losses.device.type == "cuda"


@pytest.mark.cuda
class TestCuda:
    """What only a CUDA device can show. A recording that fails, and so goes on plain, fails here."""

    @pytest.fixture(autouse=True)
    def device(self):
        if not torch.cuda.is_available():
            pytest.skip("no CUDA device")
        utils.pick_device("cuda")
        assert not torch.backends.cuda.matmul.allow_tf32 and not torch.backends.cudnn.allow_tf32
        yield
        torch.use_deterministic_algorithms(False)

    @RECIPE
    def test_recorded_steps_are_single_steps(self, recipe):
        device = f"cuda:{torch.cuda.device_count() - 1}"
        recorded, single = run(recipe, device=device), run(recipe, plain=True, device=device)
        assert paths(recorded[-1]) == {"recorded"} and recorded[0].versions.keys() >= {"gpu", "cuda"}
        assert same(called_plain(recorded[-1]), single[-1])
        assert same(run(recipe, recorded[0], device=device)[-1], recorded[-1])

    @RECIPE
    def test_no_step_waits_for_the_device(self, recipe):
        state = State(recipe, 0, [tensor.to("cuda") for tensor in digits("train")])
        order = torch.zeros(2, state.batch_size, dtype=torch.int64, device="cuda")
        torch.cuda.set_sync_debug_mode("error")
        try:
            steps.plain(state, recipe).run(order)
        finally:
            torch.cuda.set_sync_debug_mode("default")

    def test_agrees_with_the_cpu(self):
        last = [run(ADAM, device=device, plain=True)[0].last for device in ("cuda", "cpu")]
        ours, theirs = (torch.cat([tensor.flatten() for tensor in named.values()]) for named in last)
        assert (ours - theirs).norm() <= 1e-3 * theirs.norm()
