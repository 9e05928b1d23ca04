"""The written-out gradient beside automatic differentiation, and the CUDA graph beside single steps."""

import copy
import unittest.mock

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import ClassifyTask_train
import fast
import utils
from fast import Gradient, flatten, supports
from model import LeNet5, map_loss, pad, scale

NETWORKS = [
    ({}, None),
    ({"connection": "full"}, None),
    ({"output": "rbf"}, 1.0),
    ({"output": "rbf", "connection": "full"}, 0.1),
]


def digits(count):
    images, labels = utils.load_dataset("digits", None, "train")
    return pad(images[:count]), labels[:count]


def network(options, wide, dtype=torch.float64):
    """A network with the initial weights, or (wide) with larger ones, as training makes them."""
    torch.manual_seed(0)
    model = LeNet5(**options).to(dtype)
    if wide:
        with torch.no_grad():
            for p in model.parameters():
                p.add_(0.1 * torch.randn_like(p))
    return model


def plain(model, images, labels, j, factor):
    """Losses and the flat gradient of factor * sum of the losses, by automatic differentiation."""
    losses = map_loss(model(scale(images, next(model.parameters()).dtype)), labels, j)
    gradients = torch.autograd.grad(factor * losses.sum(), list(model.parameters()))
    return losses.detach(), torch.cat([g.flatten() for g in gradients])


@pytest.fixture(params=[False, True], ids=["not AMD", "AMD"])
def cpu(request, monkeypatch):
    """Both ways to multiply and to squash, whichever this CPU takes."""
    monkeypatch.setattr(fast, "AMD", request.param)


@pytest.mark.parametrize("batch", [1, 5, 32])
@pytest.mark.parametrize("wide", [False, True])
@pytest.mark.parametrize(("options", "j"), NETWORKS)
def test_agrees_with_the_plain_path_in_double_precision(options, j, wide, batch, cpu):
    images, labels = digits(batch)
    model = network(options, wide)
    losses, expected = plain(model, images, labels, j, 0.3)
    with torch.no_grad():
        scores = model(scale(images, torch.float64))
    flat = flatten(model)
    flat.grad.fill_(float("nan"))  # every element must be written
    found_losses, found_scores = Gradient(model, batch, 0.3, j)(images, labels)
    assert torch.allclose(found_losses, losses, rtol=1e-10, atol=1e-10)
    assert torch.allclose(found_scores, scores, rtol=1e-10, atol=1e-10)
    assert (flat.grad - expected).norm() <= 1e-10 * expected.norm()


def test_large_products_by_either_library(cpu):
    if fast.AMD and not fast.ONEDNN:
        pytest.skip("oneDNN is taken on CPUs with AVX-512 only")
    weights, inputs, errors = torch.randn(64, 217), torch.randn(217, 800), torch.randn(64, 800)
    for a, b in (weights, inputs), (inputs, errors.T), (weights.T, errors):
        found = fast.product(a, b)
        assert found.is_contiguous()  # views of it are taken
        assert torch.allclose(found, a @ b, rtol=1e-4, atol=1e-3)


def test_tanh_in_place(cpu):
    u = torch.linspace(-20, 20, 1001)
    expected = u.double().tanh()
    assert fast.tanh_(u) is u
    assert torch.allclose(u.double(), expected, rtol=0, atol=2e-7)


@pytest.mark.parametrize("wide", [False, True])
@pytest.mark.parametrize(("options", "j"), NETWORKS)
def test_is_as_exact_as_the_plain_path_in_single_precision(options, j, wide, cpu):
    errors, plain_errors = [], []
    for images, labels in zip(*(tensor.split(32) for tensor in digits(4 * 32))):
        model = network(options, wide, torch.float32)
        _, exact = plain(copy.deepcopy(model).double(), images, labels, j, 1.0)
        _, single = plain(model, images, labels, j, 1.0)
        flat = flatten(model)
        Gradient(model, 32, 1.0, j)(images, labels)
        errors.append((flat.grad - exact).norm())
        plain_errors.append((single - exact).norm())
    assert sum(errors) <= 2 * sum(plain_errors)


@pytest.mark.parametrize(("output", "j"), [("linear", None), ("rbf", 1.0)])
def test_all_tensors_are_on_the_models_device(output, j):
    model = LeNet5(connection="full", output=output).to("meta")  # where no tensor of the CPU may take part
    flatten(model)
    gradient = Gradient(model, 32, 1.0, j)
    parts = [gradient, *vars(gradient).values()]
    tensors = [value for part in parts for value in getattr(part, "__dict__", {}).values() if torch.is_tensor(value)]
    assert len(tensors) > 20
    assert all(tensor.is_meta for tensor in tensors)
    images, labels = (torch.empty(shape, dtype=torch.uint8, device="meta") for shape in ((32, 32, 32), 32))
    losses, scores = gradient(images, labels.long())
    assert losses.is_meta and scores.is_meta
    assert losses.shape == (32,) and scores.shape == (32, 10)


def test_flat_parameters_are_the_models():
    model = LeNet5()
    before = copy.deepcopy(model.state_dict())
    flat = flatten(model)
    assert flat.numel() == 60_850
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    with torch.no_grad():
        flat.zero_()
    assert all(p.eq(0).all() for p in model.parameters())
    model(torch.ones(1, 1, 32, 32)).sum().backward()
    assert flat.grad[-10:].eq(1).all()  # the output's biases


def test_unsupported_networks_take_the_plain_path():
    assert supports(LeNet5(connection="full"))
    assert not supports(LeNet5(subsampling="average"))
    assert not supports(LeNet5(activation="relu"))


def train(device="cpu", plain=False, epochs=1, batch_size=32, checkpoint=None, recipe="adam", count=None):
    run = {
        "recipe": {"name": recipe, **ClassifyTask_train.RECIPES[recipe], "epochs": epochs, "batch_size": batch_size},
        "dataset": "digits",
        "seed": 1,
    }
    sets = [[t[:count].to(device) for t in utils.load_dataset("digits", None, name)] for name in ("train", "test")]
    return list(ClassifyTask_train.train(run, *sets, checkpoint=checkpoint, plain=plain))


def distance(a, b):
    a, b = (torch.cat([tensor.flatten() for tensor in c["last"].values()]) for c in (a, b))
    return (a - b).norm() / b.norm()


def same(a, b):
    return all(torch.equal(a[which][name], b[which][name]) for which in ("model", "last") for name in a[which])


def test_300_steps_lead_to_the_weights_of_the_plain_path():
    fast, slow = (train(plain=plain, epochs=7)[-1] for plain in (False, True))  # 45 steps an epoch
    assert distance(fast, slow) <= 1e-3
    assert not same(fast, slow)  # two paths were taken


@pytest.mark.parametrize("recipe", ["adam", "1998"])
def test_resumed_is_uninterrupted_bit_for_bit(recipe):
    settings = {"recipe": recipe, "epochs": 3, "batch_size": 32 if recipe == "adam" else 1, "count": 300}
    whole = train(**settings)
    resumed = train(**settings, checkpoint=whole[0])
    assert len(resumed) == 2
    assert same(whole[-1], resumed[-1])
    strip = [{key: value for key, value in row.items() if key != "seconds"} for row in whole[-1]["history"]]
    assert strip == [{k: v for k, v in row.items() if k != "seconds"} for row in resumed[-1]["history"]]


def test_the_last_smaller_batch_is_trained_on():
    (checkpoint,) = train(batch_size=32, count=70)
    assert checkpoint["optimizer"]["state"][0]["step"] == 3
    assert checkpoint["history"][0]["train_accuracy"] * 70 == pytest.approx(
        round(checkpoint["history"][0]["train_accuracy"] * 70), abs=1e-4
    )  # a share of 70 digits


def test_a_network_without_a_fast_path_is_trained():
    recipe = {**ClassifyTask_train.RECIPES["adam"], "epochs": 6}
    recipe["network"] = {"subsampling": "average", "connection": "full", "activation": "tanh"}
    sets = [utils.load_dataset("digits", None, name) for name in ("train", "test")]
    *_, checkpoint = ClassifyTask_train.train({"recipe": recipe, "dataset": "digits", "seed": 0}, *sets)
    assert checkpoint["history"][-1]["train_accuracy"] > 0.7


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
def tapes(monkeypatch):
    """Lets as_graph record on the CPU, on tapes in place of CUDA graphs; they are collected in this list."""
    tapes = []

    def new_tape():
        tapes.append(Tape())
        return tapes[-1]

    monkeypatch.setattr(torch.cuda, "CUDAGraph", new_tape)
    monkeypatch.setattr(torch.cuda, "graph", lambda tape, stream: tape)
    for name in "Stream", "current_stream", "stream", "device":
        monkeypatch.setattr(torch.cuda, name, unittest.mock.MagicMock())
    monkeypatch.setattr(ClassifyTask_train, "GRAPHS", ("cpu",))
    return tapes


RUNS = [
    {"epochs": 3},  # 1,437 digits: the last batch has 29
    {"epochs": 3, "plain": True},
    {"epochs": 3, "recipe": "1998", "batch_size": 1, "count": 60},  # a new learning rate in the third pass
    {"epochs": 2, "recipe": "1998", "batch_size": 1, "count": 60, "plain": True},
]


@pytest.mark.parametrize("settings", RUNS)
def test_recorded_steps_are_single_steps(settings, tapes, monkeypatch):
    recorded = train(**settings)
    assert len(tapes) == (2 if settings["epochs"] == 3 and "count" in settings else 1)
    assert same(recorded[-1], train(**settings, checkpoint=recorded[0])[-1])  # resumed
    monkeypatch.setattr(ClassifyTask_train, "GRAPHS", ())
    single = train(**settings)
    assert same(recorded[-1], single[-1])
    assert recorded[-1]["history"][-1]["train_loss"] == single[-1]["history"][-1]["train_loss"]


@pytest.mark.parametrize("settings", RUNS)
def test_recorded_steps_neither_wait_for_the_device_nor_bring_tensors_to_it(settings, tapes):
    train(**{**settings, "epochs": 1})
    used = {operation.overloadpacket.__name__ for operation, *_ in tapes[0].operations}
    assert used >= {"mm", "tanh_backward", "index_select", "argmax"}
    assert not used & {"_local_scalar_dense", "item", "is_nonzero", "equal", "nonzero", "masked_select"}
    assert not used & {"lift_fresh", "scalar_tensor", "arange", "eye", "full", "randperm"}
    assert all(kwargs.get("device") is None for *_, kwargs, _ in tapes[0].operations)


def test_where_recording_fails_single_steps_are_taken(tapes, monkeypatch, capsys):
    def fail(tape, stream):
        raise RuntimeError("operation not permitted\nwhen stream is capturing")

    monkeypatch.setattr(torch.cuda, "graph", fail)
    checkpoint = train()[-1]
    message = "no CUDA graph here (operation not permitted); going on step by step, slower\n"
    assert capsys.readouterr().err == message
    monkeypatch.setattr(ClassifyTask_train, "GRAPHS", ())
    assert same(checkpoint, train()[-1])


@pytest.mark.cuda
class TestCuda:
    """What only a CUDA device can show."""

    @pytest.fixture(autouse=True)
    def device(self):
        if not torch.cuda.is_available():
            pytest.skip("no CUDA device")
        utils.pick_device("cuda")
        yield
        torch.use_deterministic_algorithms(False)

    @pytest.mark.parametrize("settings", RUNS)
    def test_graph_equals_single_steps(self, settings, monkeypatch):
        graph = train("cuda", **settings)
        monkeypatch.setattr(ClassifyTask_train, "GRAPHS", ())
        assert same(graph[-1], train("cuda", **settings)[-1])

    @pytest.mark.parametrize("settings", RUNS)
    def test_no_step_waits_for_the_device(self, settings, monkeypatch):
        def watched(steps, chunk, changed):
            def run(chunk):
                torch.cuda.set_sync_debug_mode("error")
                try:
                    steps(chunk)
                finally:
                    torch.cuda.set_sync_debug_mode("default")

            return run

        monkeypatch.setattr(ClassifyTask_train, "as_graph", watched)
        train("cuda", **settings)

    def test_tf32_is_off(self):
        assert not torch.backends.cuda.matmul.allow_tf32
        assert not torch.backends.cudnn.allow_tf32

    @pytest.mark.parametrize("recipe", ["adam", "1998"])
    @pytest.mark.parametrize("plain", [False, True])
    def test_capture_succeeds(self, recipe, plain, capsys):
        train(f"cuda:{torch.cuda.device_count() - 1}", recipe=recipe, plain=plain)
        assert "no CUDA graph" not in capsys.readouterr().err

    @pytest.mark.parametrize("recipe", ["adam", "1998"])
    @pytest.mark.parametrize("plain", [False, True])
    def test_same_seed_same_weights_and_exact_resumption(self, recipe, plain):
        settings = {"recipe": recipe, "plain": plain, "epochs": 3, "batch_size": 32 if recipe == "adam" else 1}
        first, second = train("cuda", **settings), train("cuda", **settings)
        assert same(first[-1], second[-1])
        assert same(first[-1], train("cuda", **settings, checkpoint=first[0])[-1])

    def test_agrees_with_the_cpu(self):
        assert distance(train("cuda", epochs=3)[-1], train("cpu", epochs=3)[-1]) <= 1e-3

    @pytest.mark.parametrize(("options", "j"), NETWORKS)
    def test_gradient_in_double_precision(self, options, j):
        images, labels = (t.cuda() for t in digits(32))
        model = network(options, wide=True).cuda()
        _, expected = plain(model, images, labels, j, 1.0)
        flat = flatten(model)
        Gradient(model, 32, 1.0, j)(images, labels)
        assert (flat.grad - expected).norm() <= 1e-10 * expected.norm()
