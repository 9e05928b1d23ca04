"""ClassifyTask_train.py as a user runs it: what it prints, writes, goes on with and leaves alone."""

import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from conftest import ROOT, contents, few_digits, reference, same
from faults.conftest import DIGITS, FILE, TRAIN, stop_after
from tqdm import tqdm

import ClassifyTask_train
import utils
from digits import mnist as datasets
from reading import ctc
from training import checkpoint


@pytest.fixture
def few(monkeypatch):
    monkeypatch.setattr(datasets, "load_dataset", few_digits)
    monkeypatch.setattr(ctc, "TEST_LINES", 30)


@pytest.fixture
def run(trained, own_folders):
    """A folder of one's own, named run, with a trained checkpoint in it."""
    return shutil.copytree(trained[0], own_folders / "run")


def test_training_says_what_it_does_in_plain_lines(trained):
    """In the form that README shows: tests/docs."""
    folder, (_, out, err) = trained
    assert err == "" and "\r" not in out and "\x1b" not in out
    assert "LeNet-5 on digits, recipe default, seed 0, device cpu" in out
    saved, test_set = checkpoint.load(folder / FILE), datasets.load_dataset("digits", None, "test")
    lines = [ClassifyTask_train.epoch_line(replace(saved, history=saved.history[:epoch])) for epoch in (1, 2)]
    assert [line for line in out.splitlines() if line.startswith("epoch")] == lines
    tested, last = (utils.accuracy(checkpoint.network(saved, last=last), *test_set) for last in (False, True))
    assert tested == saved.history[-1]["test_accuracy"] > 0.5
    assert f"test accuracy {tested:.2%} of 360 digits" in out and f"the last weights alone: {last:.2%}" in out
    assert out.endswith(f"python ClassifyTask_test.py --checkpoint {FILE}\n")


@pytest.mark.skipif(sys.platform == "win32", reason="pipes are other things there")
def test_a_reader_that_goes_away_ends_it_silently(environment, tmp_path):
    command = [sys.executable, ROOT / TRAIN, *DIGITS, "--epochs", "5000", "--record-dir", "run"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(command, cwd=tmp_path, env=environment, encoding="utf-8", **pipes) as process:
        while not process.stdout.readline().startswith("epoch  1"):
            assert process.poll() is None
        process.stdout.close()
        assert process.stderr.read() == ""
    assert process.returncode == 141


CONTRADICTIONS = {
    **{"--epochs=3": "epochs 2, not 3", "--batch-size=64": "batch size 32, not 64", "--seed=1": "seed 0, not 1"},
    **{"--lr=0.1": "learning rate 0.0005, not 0.1", "--recipe=1998": "recipe default, not 1998"},
    **{"--dataset=mnist": "data set digits, not mnist", "--no-augment": "augmentation True, not False"},
    "--initial=any": "leave --initial out",
}


def test_a_finished_run_is_left_alone(call, run, tiny_mnist, few):
    """By a start that would go on, with a flag that contradicts it, and by another training run, which diverges."""
    before, resumed = contents(run), (TRAIN, *DIGITS, "--data-dir", tiny_mnist, "--record-dir", run, "--resume")
    result = call(*resumed, "--epochs", 2, "--lr", 0.0005).succeeded()
    assert "finished" in result.out and result.err == ""
    for flag, words in CONTRADICTIONS.items():
        call(*resumed, flag).refused(words, f"run/{FILE}")
    for recipe in "default", "1998":
        flags = ("--record-dir", run, "--recipe", recipe, "--lr", "1e4")
        result = call(TRAIN, *DIGITS, *flags).refused("diverged in epoch 1", "smaller --lr")
        assert "what was saved" not in result.err  # by this run, nothing
        assert f"this run replaces the one in run/{FILE}, from its first epoch on\n" in result.out
    assert contents(run) == before


def test_the_progress_bar_counts_what_this_process_has_done(call, few, monkeypatch):
    bars = []

    def bar(**options):
        """As a terminal has it."""
        bars.append(tqdm(**{**options, "disable": False}))
        return bars[-1]

    monkeypatch.setattr(ClassifyTask_train, "tqdm", bar)
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "save", checkpoint.save)  # put back afterwards
        stop_after(2)
        assert call(TRAIN, *DIGITS, "--epochs", 3).status == 130
    result = call(TRAIN, *DIGITS, "--resume").succeeded()
    assert [(bar.initial, bar.n, bar.total) for bar in bars] == [(0, 200, 300), (200, 300, 300)]
    assert "\r" in result.err and "epoch 3" in result.err and "\r" not in result.out


def test_teachers_are_trained_first(call, few, own_folders):
    result = call(TRAIN, *DIGITS, "--recipe", "distilled", "--epochs", 1).succeeded()
    taught = [line.split("  ")[0] for line in result.out.splitlines() if line.startswith("teacher")]
    assert taught == [f"teacher {i}/5" for i in (1, 2, 3, 4, 5)]
    assert checkpoint.load(own_folders / "Record/distilled-digits" / FILE).recipe.teachers == 5


def test_numbers_start_from_a_digit_network_of_recipe_best(call, few, own_folders):
    numbers, best = (TRAIN, *DIGITS, "--recipe", "numbers", "--epochs", 2), f"Record/best-digits/{FILE}"
    make = "python ClassifyTask_train.py --recipe best --dataset digits"
    call(*numbers).refused(f"no digit network at {best}", make)
    checkpoint.save(own_folders / "default", reference())
    call(*numbers, "--initial", "default").refused("default is another network than that of --recipe best")
    Path("text").write_text("no checkpoint")
    assert "--checkpoint" not in call(*numbers, "--initial", "text").refused("text is no", "another with --initial").err
    Path("text").rename(FILE)
    assert "--checkpoint" not in call(*numbers, "--record-dir", ".", "--resume").refused(FILE, "leave --resume out").err
    Path(FILE).unlink()
    call(TRAIN, *DIGITS, "--initial", "default").refused("--initial is for --recipe numbers")
    assert list(contents(own_folders)) == [own_folders / "default"]
    call(TRAIN, *DIGITS, "--recipe", "best", "--epochs", 1).succeeded()
    again = call(TRAIN, *DIGITS, "--recipe", "best", "--resume").succeeded().out
    assert again == f"{best} has finished its 1 epoch; nothing is left to do.\n"
    result = call(*numbers).succeeded()
    assert result.out.startswith(f"starting from the weights of {best}\nLeNet-5 on digits, recipe numbers")
    assert "of lines of test digits" in result.out and result.err == ""
    (own_folders / best).rename("mine")
    named = call(*numbers, "--initial", "mine", "--record-dir", "other").succeeded()
    assert named.out.startswith("starting from the weights of mine\n")
    resumed = call(*numbers, "--record-dir", "other", "--resume").succeeded()
    assert "starting" not in resumed.out and "finished its 2 epochs" in resumed.out
    one, other = (checkpoint.load(own_folders / folder / FILE) for folder in ("Record/numbers-digits", "other"))
    assert same(one, other) and one.recipe.model_arguments["classes"] == 11
