"""The scripts as a user runs them: what they print, write and refuse."""

import json
import math
import re
import shutil
import signal
import sys

import numpy as np
import pytest
import torch
from conftest import contents, same

import ClassifyTask_test
import ClassifyTask_train
import utils

TRAIN, TEST = "ClassifyTask_train.py", "ClassifyTask_test.py"
FIGURES = {
    "training_curve.png",
    "ConfusionMatrix.png",
    "Result_of_LeNet_Training.png",
    "misclassified.png",
    "lenet.png",
}
DIGITS = ("--dataset", "digits")


@pytest.fixture
def run(trained, tmp_path):
    """A folder of one's own with a trained checkpoint in it."""
    return shutil.copytree(trained[0], tmp_path / "run")


@pytest.fixture
def few_digits(monkeypatch):
    """240 training and 100 test digits, for what need not be learnt."""
    load = utils.load_dataset
    counts = {"train": 240, "test": 100}
    monkeypatch.setattr(utils, "load_dataset", lambda *which: [tensor[: counts[which[2]]] for tensor in load(*which)])


# ---------------------------------------------------------------------------------------------- training


def test_training_says_what_it_does_in_plain_lines(trained):
    out, err = trained[1].out, trained[1].err
    assert err == "" and "\r" not in out and "\x1b" not in out
    lines = out.splitlines()
    assert lines[0] == "LeNet-5 on digits, recipe adam, seed 0, device cpu" or torch.cuda.is_available()
    for number, line in enumerate(lines[1:3], 1):
        assert re.match(rf"epoch  {number}/2  train loss \d\.\d+, accuracy \d+\.\d+%  test accuracy \d+\.\d+%", line)
    assert re.search(r"\d+\.\d\d% with the running average of the weights", out)
    assert re.search(r"\d+\.\d\d% with the weights of the last step", out)
    assert str(trained[0] / "LeNet5.pt") in lines[-1]


def test_the_checkpoint_has_the_keys_and_the_history_of_the_format(trained):
    assert [path.name for path in trained[0].iterdir()] == ["LeNet5.pt"]
    checkpoint = torch.load(trained[0] / "LeNet5.pt", weights_only=True)
    assert set(checkpoint) == {
        *("format", "arguments", "model", "last", "optimizer", "epoch", "random_state", "history"),
        *("recipe", "dataset", "seed", "versions"),
    }
    assert (checkpoint["format"], checkpoint["arguments"], checkpoint["epoch"]) == (1, {}, 2)
    assert (checkpoint["dataset"], checkpoint["seed"], checkpoint["recipe"]["name"]) == ("digits", 0, "adam")
    columns = ["epoch", "train_loss", "train_accuracy", "test_loss", "test_accuracy", "seconds"]
    assert [list(row) for row in checkpoint["history"]] == [columns, columns]
    assert [row["epoch"] for row in checkpoint["history"]] == [1, 2]
    first, second = checkpoint["history"]
    assert second["train_loss"] < first["train_loss"] < math.log(10) and second["train_accuracy"] > 0.5
    assert all(type(version) is str for version in checkpoint["versions"].values())
    assert sum(tensor.numel() for tensor in checkpoint["model"].values()) == 60_850


def test_the_history_has_the_figures_of_the_reported_weights(trained):
    checkpoint = utils.load_checkpoint(trained[0] / "LeNet5.pt")
    test_set = utils.load_dataset("digits", None, "test")
    assert checkpoint["history"][-1]["test_accuracy"] == utils.accuracy(checkpoint, "model", test_set)


def test_each_data_set_has_its_own_folder(call, tmp_path):
    call(TRAIN, *DIGITS, "--epochs", 1, "--batch-size", 500).succeeded()
    assert [path.relative_to(tmp_path).as_posix() for path in contents(tmp_path)] == ["Record/digits/LeNet5.pt"]


def test_real_mnist_from_training_to_figures(mnist, command, tmp_path):
    command(TRAIN, "--data-dir", mnist, "--epochs", 1).succeeded()
    result = command(TEST, "--data-dir", mnist).succeeded()
    assert result.err == "" and "LeNet-5 on mnist" in result.out
    assert {path.name for path in (tmp_path / "Record").iterdir()} == FIGURES | {"LeNet5.pt", "metrics.json"}
    metrics = json.loads((tmp_path / "Record" / "metrics.json").read_text())
    assert 0.93 < metrics["accuracy"] < 0.995 and metrics["dataset"] == "mnist"
    assert sum(row["support"] for row in metrics["classes"]) == 10_000


@pytest.mark.parametrize("recipe", ["adam", "1998"])
def test_one_seed_gives_one_training_and_another_seed_another(recipe, call, tmp_path, few_digits):
    for name, seed in ("a", 7), ("b", 7), ("c", 8):
        arguments = (*DIGITS, "--recipe", recipe, "--epochs", 2, "--seed", seed)
        call(TRAIN, *arguments, "--record-dir", name).succeeded()
    a, b, c = (utils.load_checkpoint(tmp_path / name / "LeNet5.pt") for name in "abc")
    assert same(a, b) and not same(a, c)
    assert not torch.equal(a["last"]["c5.weight"], c["last"]["c5.weight"])


def test_the_running_average_is_that_of_torch(monkeypatch):
    """AveragedModel over the same weights: of all steps in the first epoch, exponential from then on."""
    train_set, test_set = ([t[:330] for t in utils.load_dataset("digits", None, name)] for name in ("train", "test"))
    recipe = {"name": "adam", **ClassifyTask_train.RECIPES["adam"], "epochs": 3}
    batches = math.ceil(330 / recipe["batch_size"])
    averaged = []

    def make_optimizer(recipe, weights):
        model = torch.nn.ParameterList([weights])
        averaged.append(
            torch.optim.swa_utils.AveragedModel(
                model, avg_fn=lambda average, new, count: average + (new - average) / min(int(count) + 1, batches)
            )
        )
        optimizer = made(recipe, weights)
        optimizer.register_step_post_hook(lambda *_: averaged[0].update_parameters(model))
        return optimizer

    made = ClassifyTask_train.make_optimizer
    monkeypatch.setattr(ClassifyTask_train, "make_optimizer", make_optimizer)
    for checkpoint in ClassifyTask_train.train({"recipe": recipe, "dataset": "digits", "seed": 0}, train_set, test_set):
        expected = averaged[0].module[0]
        found, last = (torch.cat([t.flatten() for t in checkpoint[key].values()]) for key in ("model", "last"))
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)
        assert (found - last).abs().max() > 1e-3
    assert int(averaged[0].n_averaged) == 3 * batches


# ---------------------------------------------------------------------------------------------- resuming


@pytest.mark.parametrize("flags", [(), ("--plain",), ("--recipe", "1998")], ids=["fast", "plain", "1998"])
def test_a_resumed_training_is_that_without_interruption(flags, call, tmp_path, monkeypatch, few_digits):
    arguments = (*DIGITS, *flags, "--epochs", 4)
    call(TRAIN, *arguments, "--record-dir", "whole").succeeded()
    save = utils.save_checkpoint
    for stop in 2, 4:  # in the second epoch, and in the fourth

        def interrupted(path, checkpoint, stop=stop):
            if checkpoint["epoch"] == stop:
                raise KeyboardInterrupt
            save(path, checkpoint)

        monkeypatch.setattr(utils, "save_checkpoint", interrupted)
        result = call(TRAIN, *arguments, "--record-dir", "parts", "--resume").said("stopped", "--resume")
        assert result.status == 130
        checkpoint = utils.load_checkpoint(tmp_path / "parts" / "LeNet5.pt")
        assert checkpoint["epoch"] == stop - 1 == len(checkpoint["history"])
    monkeypatch.setattr(utils, "save_checkpoint", save)
    call(TRAIN, *arguments, "--record-dir", "parts", "--resume").succeeded()
    whole, parts = (utils.load_checkpoint(tmp_path / name / "LeNet5.pt") for name in ("whole", "parts"))
    assert same(whole, parts) and parts["epoch"] == 4


@pytest.mark.skipif(sys.platform == "win32", reason="Ctrl-C cannot be sent to another process")
def test_ctrl_c_keeps_the_last_epoch(start, command, tmp_path):
    arguments = (*DIGITS, "--epochs", 12, "--batch-size", 100, "--record-dir", "run")
    process = start(TRAIN, *arguments)
    while not process.stdout.readline().startswith("epoch  2"):
        pass
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130 and err.count("\n") == 1 and "stopped" in err
    assert [path.name for path in contents(tmp_path)] == ["LeNet5.pt"]
    done = utils.load_checkpoint(tmp_path / "run" / "LeNet5.pt")["epoch"]
    assert 2 <= done < 12
    result = command(TRAIN, *arguments, "--resume").succeeded()
    assert re.findall(r"^epoch +(\d+)/12", result.out, re.MULTILINE) == [str(n) for n in range(done + 1, 13)]
    command(TRAIN, *arguments[:-1], "whole").succeeded()
    whole, parts = (utils.load_checkpoint(tmp_path / name / "LeNet5.pt") for name in ("whole", "run"))
    assert same(whole, parts)


def test_a_finished_run_is_left_alone(call, run):
    before = contents(run)
    result = call(TRAIN, *DIGITS, "--record-dir", run, "--epochs", 2, "--resume").succeeded()
    assert "finished" in result.out and result.err == "" and contents(run) == before


def test_resuming_without_a_checkpoint_is_starting(call, tmp_path):
    call(TRAIN, *DIGITS, "--record-dir", "run", "--epochs", 1, "--batch-size", 500, "--resume").succeeded()
    assert utils.load_checkpoint(tmp_path / "run" / "LeNet5.pt")["epoch"] == 1


def test_resuming_takes_what_the_flags_leave_out_from_the_checkpoint(call, tmp_path, monkeypatch):
    flags = ("--epochs", 2, "--batch-size", 500, "--lr", 0.003, "--seed", 5)
    save = utils.save_checkpoint

    def once(path, checkpoint):
        save(path, checkpoint)
        raise KeyboardInterrupt

    monkeypatch.setattr(utils, "save_checkpoint", once)
    assert call(TRAIN, *DIGITS, *flags, "--record-dir", "run").status == 130
    monkeypatch.undo()
    monkeypatch.chdir(tmp_path)
    call(TRAIN, *DIGITS, "--record-dir", "run", "--resume").succeeded()
    checkpoint = utils.load_checkpoint(tmp_path / "run" / "LeNet5.pt")
    assert (checkpoint["epoch"], checkpoint["seed"], checkpoint["recipe"]["lr"]) == (2, 5, [0.003])
    call(TRAIN, *DIGITS, *flags, "--record-dir", "run", "--resume").succeeded()


@pytest.mark.parametrize("recipe", ["adam", "1998"])
def test_a_flag_given_again_contradicts_nothing(recipe, tmp_path):
    parsed = type("Arguments", (), {"recipe": recipe, "epochs": None, "batch_size": None, "lr": None})
    for lr in np.random.default_rng(0).lognormal(-6, 3, 1000).tolist():
        parsed.lr = lr
        first = ClassifyTask_train.choose_recipe(parsed, None)
        assert first["lr"][0] == lr
        assert ClassifyTask_train.choose_recipe(parsed, {"recipe": first}) == first
        parsed.lr = None
        assert ClassifyTask_train.choose_recipe(parsed, {"recipe": first}) == first


@pytest.mark.parametrize(
    ("flags", "word"),
    [
        (("--epochs", 3), "epochs 20, not 3"),
        (("--batch-size", 64), "batch_size 32, not 64"),
        (("--lr", 0.1), "lr [0.0005], not [0.1]"),
        (("--seed", 1), "seed 0, not 1"),
        (("--recipe", "1998"), "recipe adam, not 1998"),
    ],
)
def test_flags_that_contradict_the_checkpoint_are_refused(flags, word, call, run):
    checkpoint = utils.load_checkpoint(run / "LeNet5.pt")
    checkpoint["recipe"]["epochs"] = 20
    utils.save_checkpoint(run / "LeNet5.pt", checkpoint)
    before = contents(run)
    call(TRAIN, *DIGITS, "--record-dir", run, "--resume", *flags).refused(word, "LeNet5.pt")
    assert contents(run) == before


def test_a_checkpoint_of_another_data_set_is_not_resumed(call, run, tiny_mnist):
    before = contents(run)
    arguments = ("--data-dir", tiny_mnist, "--record-dir", run, "--resume")
    call(TRAIN, *arguments).refused("dataset digits, not mnist")
    assert contents(run) == before


@pytest.mark.parametrize(
    "change",
    [
        lambda optimizer: optimizer.clear(),
        lambda optimizer: optimizer["state"].clear(),
        lambda optimizer: optimizer["state"][0].pop("exp_avg"),
        lambda optimizer: optimizer["state"][0].update(exp_avg=torch.zeros(3)),
        lambda optimizer: optimizer["state"][0].update(step=7),
        lambda optimizer: optimizer["state"][0]["exp_avg_sq"].fill_(math.nan),
        lambda optimizer: optimizer.update(state=[]),
    ],
    ids=["nothing", "no state", "a tensor missing", "another shape", "no tensor", "NaN", "a list"],
)
def test_a_checkpoint_with_another_optimizer_is_not_resumed(change, call, run):
    checkpoint = utils.load_checkpoint(run / "LeNet5.pt")
    checkpoint["recipe"]["epochs"] = 3
    change(checkpoint["optimizer"])
    utils.save_checkpoint(run / "LeNet5.pt", checkpoint)
    before = contents(run)
    call(TRAIN, *DIGITS, "--record-dir", run, "--resume").refused()
    assert contents(run) == before


# ---------------------------------------------------------------------------------------------- divergence


@pytest.mark.parametrize("lr", ["1", "1e4"])
@pytest.mark.parametrize("flags", [(), ("--recipe", "1998")], ids=["adam", "1998"])
def test_a_learning_rate_that_is_too_large_is_noticed_at_once(lr, flags, call, run, few_digits):
    before = contents(run)
    arguments = (*DIGITS, *flags, "--record-dir", run, "--lr", lr)
    call(TRAIN, *arguments).refused("diverged in epoch 1", "smaller --lr")
    assert contents(run) == before


@pytest.mark.parametrize("lr", [10.0, 1e30, math.inf, math.nan])
@pytest.mark.parametrize("flags", [(), ("--plain",)], ids=["fast", "plain"])
def test_the_checkpoint_of_the_epoch_before_a_divergence_is_kept(lr, flags, call, tmp_path, monkeypatch, few_digits):
    recipe = {**ClassifyTask_train.RECIPES["adam"], "lr": [0.0005, 0.0005, lr]}
    monkeypatch.setitem(ClassifyTask_train.RECIPES, "adam", recipe)
    call(TRAIN, *DIGITS, *flags, "--record-dir", "run").refused("diverged in epoch 3")
    assert [path.name for path in contents(tmp_path)] == ["LeNet5.pt"]
    checkpoint = torch.load(tmp_path / "run" / "LeNet5.pt", weights_only=True)
    assert checkpoint["epoch"] == 2 and all(tensor.isfinite().all() for tensor in checkpoint["last"].values())


# ---------------------------------------------------------------------------------------------- testing


def test_testing_writes_every_file_and_says_so(tested):
    folder, result = tested
    assert {path.name for path in folder.iterdir()} == FIGURES | {"LeNet5.pt", "metrics.json"}
    for name in FIGURES:
        assert (folder / name).read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
    metrics = json.loads((folder / "metrics.json").read_text())
    low, high = metrics["interval"]
    assert result.err == ""
    assert f"accuracy {metrics['accuracy']:.2%}, 95 % interval {low:.2%} to {high:.2%}" in result.out
    assert f"{metrics['errors']} errors in 360 digits" in result.out
    by_class = re.findall(r"(\d): (\d+)", result.out.partition("by class")[2])
    assert [int(digit) for digit, _ in by_class] == list(range(10))
    assert sum(int(count) for _, count in by_class) == metrics["errors"]


def test_the_metrics_agree_with_each_other_and_with_the_checkpoint(tested):
    folder, _ = tested
    metrics = json.loads((folder / "metrics.json").read_text())
    checkpoint = utils.load_checkpoint(folder / "LeNet5.pt")
    assert set(metrics) == {
        *("accuracy", "interval", "last_accuracy", "loss", "errors", "classes", "confusion_matrix"),
        *("weights", "dataset", "recipe", "seed", "device", "versions"),
    }
    matrix = np.array(metrics["confusion_matrix"])
    _, labels = utils.load_dataset("digits", None, "test")
    assert matrix.shape == (10, 10) and matrix.sum(1).tolist() == labels.bincount().tolist()
    assert metrics["errors"] == matrix.sum() - matrix.trace() > 0
    assert metrics["accuracy"] == pytest.approx(matrix.trace() / 360, abs=1e-12)
    assert metrics["interval"] == list(ClassifyTask_test.wilson_interval(int(matrix.trace()), 360))
    last = checkpoint["history"][-1]
    assert metrics["accuracy"] == pytest.approx(last["test_accuracy"], abs=1e-12)
    assert metrics["loss"] == pytest.approx(last["test_loss"], rel=1e-5)
    test_set = utils.load_dataset("digits", None, "test")
    assert metrics["last_accuracy"] == utils.accuracy(checkpoint, "last", test_set)
    for digit, row in enumerate(metrics["classes"]):
        assert set(row) == {"precision", "recall", "f1", "support"}
        assert row["support"] == matrix[digit].sum()
        assert row["recall"] == pytest.approx(matrix[digit, digit] / matrix[digit].sum())
        assert row["precision"] == pytest.approx(matrix[digit, digit] / max(1, matrix[:, digit].sum()))
    assert (metrics["weights"], metrics["dataset"], metrics["seed"]) == ("model", "digits", 0)
    assert metrics["recipe"] == checkpoint["recipe"] and set(checkpoint["versions"]) < set(metrics["versions"])


def test_the_interval_is_wilsons():
    """Newcombe, Statistics in Medicine 17 (1998), table I, method 3."""
    for right, count, low, high in (81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0, 0.1611):
        assert ClassifyTask_test.wilson_interval(right, count) == pytest.approx((low, high), abs=5e-5)
    low, high = ClassifyTask_test.wilson_interval(9902, 10_000)
    assert (round(low, 4), round(high, 4)) == (0.9881, 0.9920)
    low, high = ClassifyTask_test.wilson_interval(10, 10)
    assert low < 1 and high == pytest.approx(1)


def test_the_last_weights_are_tested_on_request(call, run):
    metrics = []
    for weights in "model", "last":
        call(TEST, "--checkpoint", run / "LeNet5.pt", "--weights", weights).succeeded()
        metrics.append(json.loads((run / "metrics.json").read_text()))
    model, last = metrics
    assert (model["weights"], last["weights"]) == ("model", "last")
    assert last["accuracy"] == last["last_accuracy"] == model["last_accuracy"] != model["accuracy"]


def test_the_recipe_and_the_data_set_lead_to_the_folder(call, trained, tmp_path, tiny_mnist, monkeypatch):
    monkeypatch.setattr(ClassifyTask_test, "draw", lambda *arguments: None)
    for recipe in "adam", "1998":
        folder = utils.record_dir(recipe, "digits")
        shutil.copytree(trained[0], folder)
        call(TEST, *DIGITS, "--recipe", recipe).succeeded()
        assert {path.name for path in folder.iterdir() if path.is_file()} == {"LeNet5.pt", "metrics.json"}
    call(TEST, "--data-dir", tiny_mnist).refused("no checkpoint at", "Record")
    call(TEST, *DIGITS, "--record-dir", "elsewhere").refused("no checkpoint at", "elsewhere")
    call(TEST, "--checkpoint", trained[0] / "LeNet5.pt", "--record-dir", "elsewhere").succeeded()
    assert [path.name for path in (tmp_path / "elsewhere").iterdir()] == ["metrics.json"]


def test_a_run_of_1998_is_tested_by_its_own_loss(call, tmp_path, monkeypatch, few_digits):
    monkeypatch.setattr(ClassifyTask_test, "draw", lambda *arguments: None)
    flags = (*DIGITS, "--recipe", "1998")
    call(TRAIN, *flags, "--epochs", 1).succeeded()
    call(TEST, *flags).succeeded()
    folder = tmp_path / "Record" / "1998" / "digits"
    metrics = json.loads((folder / "metrics.json").read_text())
    history = utils.load_checkpoint(folder / "LeNet5.pt")["history"]
    assert metrics["loss"] == pytest.approx(history[-1]["test_loss"], rel=1e-5) and metrics["loss"] > math.log(10)


# ---------------------------------------------------------------------------------------------- bad input


BAD_FLAGS = {
    TRAIN: [
        *([flag, value] for flag in ("--epochs", "--batch-size", "--lr") for value in ("0", "-1", "x", "nan", "")),
        *(["--epochs", "1.5"], ["--epochs", "5001"], ["--lr", "1e9"], ["--lr", "inf"], ["--batch-size", "1e2"]),
        *(["--seed", value] for value in ("-1", "x", "1.5", str(2**63))),
        *(["--recipe", "2024"], ["--dataset", "cifar"], ["--dataset"], ["--nonsense"], ["stray"], ["--resume=yes"]),
        *(["--device", value] for value in ("cuda:99", "gpu", "", "meta")),
    ],
    TEST: [
        *(["--weights", "best"], ["--recipe", "2024"], ["--dataset", "cifar"], ["--checkpoint"], ["--nonsense"]),
        *(["--epochs", "2"], ["stray"], ["--device", "cuda:99"], ["--device", "tpu"], ["--checkpoint", "missing.pt"]),
    ],
}  # fmt: skip
BAD_CALLS = [(script, flags) for script, calls in BAD_FLAGS.items() for flags in calls]


@pytest.mark.parametrize(("script", "flags"), BAD_CALLS, ids=[" ".join([s[13:-3], *f]) for s, f in BAD_CALLS])
def test_a_bad_flag_is_refused_in_one_line(script, flags, call, tmp_path):
    result = call(script, *DIGITS, *flags).refused(script)
    assert result.out == "" and contents(tmp_path) == {}
    if flags[0].startswith("--"):
        assert flags[0].split("=")[0] in result.err or flags[-1] in result.err


@pytest.mark.parametrize(("script", "flags"), [(TRAIN, ["--epochs", "0"]), (TEST, ["--checkpoint", "no.pt"])])
def test_a_bad_flag_is_refused_by_the_command_too(script, flags, command, tmp_path):
    command(script, *DIGITS, *flags).refused(script)
    assert contents(tmp_path) == {}


@pytest.mark.parametrize("script", [TRAIN, TEST])
def test_help_names_every_flag(script, call):
    result = call(script, "--help").succeeded()
    flags = "dataset data-dir record-dir device recipe " + (
        "epochs batch-size lr seed resume plain" if script == TRAIN else "checkpoint weights"
    )
    for flag in flags.split():
        assert f"--{flag}" in result.out


BAD_CHECKPOINTS = {
    "empty": lambda content: b"",
    "text": lambda content: b"not a checkpoint",
    "half": lambda content: content[: len(content) // 2],
    "one bit": lambda content: content[:5000] + bytes([content[5000] ^ 4]) + content[5001:],
    "an archive": lambda content: b"PK\x05\x06" + bytes(18),
}


@pytest.mark.parametrize("damage", BAD_CHECKPOINTS.values(), ids=BAD_CHECKPOINTS)
def test_a_bad_checkpoint_is_refused_by_both_and_stays(damage, call, run):
    path = run / "LeNet5.pt"
    path.write_bytes(damage(path.read_bytes()))
    before = contents(run)
    call(TEST, "--checkpoint", path).refused(path)
    call(TRAIN, *DIGITS, "--record-dir", run, "--resume").refused(path)
    assert contents(run) == before


def test_a_checkpoint_of_another_data_set_is_refused(call, run, tiny_mnist):
    before = contents(run)
    arguments = ("--checkpoint", run / "LeNet5.pt", "--data-dir", tiny_mnist)
    call(TEST, *arguments, "--dataset", "mnist").refused("trained on digits, not mnist")
    assert contents(run) == before


def test_a_checkpoint_of_another_network_is_refused(call, run):
    checkpoint = utils.load_checkpoint(run / "LeNet5.pt")
    checkpoint["arguments"] = checkpoint["recipe"]["network"] = {"connection": "full"}
    utils.save_checkpoint(run / "LeNet5.pt", checkpoint)
    call(TEST, "--checkpoint", run / "LeNet5.pt").refused("model is another")


@pytest.mark.parametrize("script", [TRAIN, TEST])
def test_a_record_folder_that_is_a_file_is_refused(script, call, run, tmp_path):
    (tmp_path / "file").write_text("mine")
    before = contents(tmp_path)
    flags = (*DIGITS, "--epochs", 1) if script == TRAIN else ("--checkpoint", run / "LeNet5.pt")
    call(script, *flags, "--record-dir", tmp_path / "file").refused(tmp_path / "file")
    call(script, *flags, "--record-dir", tmp_path / "file" / "below").refused(tmp_path / "file")
    assert contents(tmp_path) == before


def test_a_folder_in_the_place_of_the_checkpoint_is_refused(call, tmp_path):
    (tmp_path / "run" / "LeNet5.pt").mkdir(parents=True)
    call(TRAIN, *DIGITS, "--epochs", 1, "--record-dir", "run").refused("LeNet5.pt")
    call(TRAIN, *DIGITS, "--epochs", 1, "--record-dir", "run", "--resume").refused("LeNet5.pt")
    call(TEST, "--checkpoint", "run").refused("no checkpoint at run")
    assert [path.name for path in tmp_path.rglob("*")] == ["run", "LeNet5.pt"]


def test_too_large_a_batch_for_the_memory_is_told(call, tmp_path, monkeypatch):
    def exhausted(*arguments):
        torch.empty(2**60)

    monkeypatch.setattr(ClassifyTask_train, "make_gradient", exhausted)
    call(TRAIN, *DIGITS, "--record-dir", "run").refused("out of memory", "--batch-size")
    assert contents(tmp_path) == {}


def test_without_mnist_and_network_the_digits_do_and_this_is_said(command, tmp_path):
    result = command(TRAIN, "--epochs", 1, "--batch-size", 200).succeeded()
    assert result.err.count("WARNING") == 2 and "INSTEAD OF MNIST" in result.err
    assert "LeNet-5 on digits" in result.out and "LeNet-5 on mnist" not in result.out
    assert [path.relative_to(tmp_path).as_posix() for path in contents(tmp_path)] == ["Record/digits/LeNet5.pt"]


def test_without_mnist_and_network_mnist_is_refused(call, tmp_path):
    for script in TRAIN, TEST:
        call(script, "--dataset", "mnist").refused("train-images-idx3-ubyte.gz is missing", "MNIST's four .gz files")
        assert contents(tmp_path) == {}


@pytest.mark.parametrize("choice", ["auto", "mnist"])
def test_damaged_data_never_lead_to_the_digits(choice, call, tiny_mnist, tmp_path):
    raw = tiny_mnist / "MNIST" / "raw"
    archive, unpacked = raw / "t10k-labels-idx1-ubyte.gz", raw / "t10k-labels-idx1-ubyte"
    arguments = ("--dataset", choice, "--data-dir", tiny_mnist, "--epochs", 1, "--batch-size", 200)
    call(TRAIN, *arguments).succeeded()
    good = unpacked.read_bytes()
    unpacked.write_bytes(good[:-1])
    call(TRAIN, *arguments).succeeded()
    assert unpacked.read_bytes() == good  # mended from the archive
    unpacked.write_bytes(good[:-1])
    archive.write_bytes(archive.read_bytes()[:-1])
    before = contents(tmp_path)
    for script in TRAIN, TEST:
        call(script, *arguments[:4]).refused(archive, "damaged", "delete it")
    archive.unlink()
    call(TRAIN, *arguments).refused(unpacked, "damaged", "delete it")
    assert contents(tmp_path).items() < before.items()


# ---------------------------------------------------------------------------------------------- output


@pytest.mark.skipif(sys.platform == "win32", reason="pipes end otherwise there")
def test_epochs_are_told_while_they_happen_and_a_reader_that_goes_away_is_one_line(start):
    process = start(TRAIN, *DIGITS, "--epochs", 5000, "--record-dir", "run")
    lines = [process.stdout.readline() for _ in range(3)]
    assert process.poll() is None and lines[2].startswith("epoch  2/5000")
    process.stdout.close()
    err = process.stderr.read()
    assert process.wait() == 2 and err.count("\n") == 1 and "pipe" in err


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="there is no /dev/full")
def test_a_full_disk_under_the_log_is_one_line(command):
    with open("/dev/full", "w") as log:
        command(TRAIN, *DIGITS, "--epochs", 1, "--record-dir", "run", stdout=log).refused("No space left")


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="names are not bytes there")
def test_any_name_of_a_folder_does(call, tmp_path):
    for name in b"caf\xe9", b"two\nlines", "学 生".encode(), b"%s {0}":
        folder = name.decode("utf-8", "surrogateescape")
        call(TRAIN, *DIGITS, "--epochs", 1, "--batch-size", 500, "--record-dir", folder).succeeded()
        assert [path.name for path in (tmp_path / folder).iterdir()] == ["LeNet5.pt"]
        call(TEST, "--checkpoint", f"{folder}/missing.pt").refused("missing.pt")
