"""What the scripts share: one-line errors, whole files, verified data, checkpoints that are what they say."""

import errno
import io
import json
import os
import pickle
import socket
import sys
import threading
import zipfile

import pytest
import torch

import utils
from model import LeNet5, pad, scale
from utils import UserError

# ---------------------------------------------------------------------------------------------- command line


@pytest.mark.parametrize(("text", "value"), [("1", 1), ("20", 20), ("100000", 100_000)])
def test_a_positive_number_is_taken(text, value):
    assert utils.positive(int)(text) == value
    assert utils.positive(float)(text) == value


@pytest.mark.parametrize("text", ["0", "-1", "1000001", "nan", "inf", "-inf", "x", "", "1e", "9" * 5000])
def test_another_number_is_not(text):
    for kind in (int, float):
        with pytest.raises(ValueError):
            utils.positive(kind)(text)


def test_a_seed_is_what_torch_takes():
    assert [utils.seed(text) for text in ("0", "7", str(2**63 - 1))] == [0, 7, 2**63 - 1]
    torch.Generator().manual_seed(2**63 - 1)
    for text in ("-1", str(2**63), "1.5", "x"):
        with pytest.raises(ValueError):
            utils.seed(text)


def fail(error):
    raise error


ERRORS = [
    (UserError("this is\nwrong"), 2, "this is wrong"),
    (OSError(errno.ENOSPC, "No space left on device", "Record/LeNet5.pt"), 2, "Record/LeNet5.pt: No space left"),
    (OSError(errno.EISDIR, "Is a directory", ".a.tmp", None, "Record/a"), 2, "Record/a: Is a directory"),
    (OSError("encoder error"), 2, "encoder error"),
    (MemoryError(), 2, "out of memory"),
    (RuntimeError("DefaultCPUAllocator: can't allocate memory"), 2, "out of memory"),
    (KeyboardInterrupt(), 130, "--resume"),
    (SystemExit(143), 143, "--resume"),
]


@pytest.mark.parametrize(("error", "status", "words"), ERRORS, ids=[repr(error[0]) for error in ERRORS])
def test_an_error_is_one_line_and_a_status(error, status, words, monkeypatch, capfd):
    monkeypatch.setattr(sys, "argv", ["/some/where/ClassifyTask_train.py"])
    with pytest.raises(SystemExit) as stop:
        utils.run_script(lambda: fail(error))
    assert stop.value.code == status
    out, err = capfd.readouterr()
    assert out == "" and err.startswith("ClassifyTask_train.py: ") and err.count("\n") == 1 and words in err


def test_what_is_nobodys_mistake_is_not_hidden():
    with pytest.raises(RuntimeError, match="shapes"):
        utils.run_script(lambda: fail(RuntimeError("shapes cannot be multiplied")))


@pytest.mark.parametrize(("returned", "status"), [(None, None), (0, 0), (1, 1)])
def test_a_script_ends_with_the_status_of_its_main(returned, status):
    with pytest.raises(SystemExit) as stop:
        utils.run_script(lambda: returned)
    assert stop.value.code == status


def test_the_device_is_found_or_named():
    assert utils.pick_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")
    assert utils.pick_device("cpu") == torch.device("cpu")


@pytest.mark.parametrize("name", ["", "meta", "gpu", "cuda:99", "cpu:-1", "mkldnn", "opengl", "xla", "privateuseone"])
def test_a_device_that_cannot_be_used_is_refused(name, capfd, recwarn):
    with pytest.raises(UserError, match="--device"):
        utils.pick_device(name)
    assert capfd.readouterr() == ("", "") and not recwarn


@pytest.mark.parametrize(
    ("recipe", "dataset", "folder"),
    [
        ("adam", "mnist", "Record"),
        ("1998", "mnist", "Record/1998"),
        ("adam", "digits", "Record/digits"),
        ("1998", "digits", "Record/1998/digits"),
    ],
)
def test_each_recipe_and_data_set_has_its_own_folder(recipe, dataset, folder):
    assert utils.record_dir(recipe, dataset).as_posix() == folder


# ---------------------------------------------------------------------------------------------- whole files


def test_files_take_their_places_together(tmp_path):
    path = tmp_path / "new" / "a.json"
    with utils.whole_files(path) as folder:
        (folder / "a.json").write_bytes(b"a")
        (folder / "b.png").write_bytes(b"b")
        assert not path.exists() and folder.parent == path.parent
    assert {file.name: file.read_bytes() for file in path.parent.iterdir()} == {"a.json": b"a", "b.png": b"b"}


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "full"), KeyboardInterrupt(), UserError("no")])
def test_files_that_fail_leave_the_old_ones_and_nothing_else(error, tmp_path):
    path = tmp_path / "a.json"
    path.write_bytes(b"old")
    with pytest.raises(type(error)), utils.whole_files(path) as folder:
        (folder / "a.json").write_bytes(b"new")
        raise error
    assert path.read_bytes() == b"old" and os.listdir(tmp_path) == ["a.json"]


def test_a_file_that_cannot_take_its_place_is_named(tmp_path):
    path = tmp_path / "a.json"
    path.mkdir()
    with pytest.raises(OSError) as error, utils.whole_files(path) as folder:
        (folder / "a.json").write_bytes(b"new")
    assert error.value.filename == str(path)
    assert os.listdir(tmp_path) == ["a.json"] and path.is_dir()


def test_json_is_written_whole(tmp_path):
    path = tmp_path / "Record" / "study" / "a.json"
    utils.save_json(path, {"a": [1, "é"]})
    assert json.loads(path.read_text(encoding="utf-8")) == {"a": [1, "é"]}
    assert path.read_text(encoding="utf-8").endswith("}\n") and os.listdir(path.parent) == ["a.json"]


def test_one_process_writes_at_a_time(tmp_path):
    path = tmp_path / "new" / "LeNet5.pt"
    with utils.sole_writer(path):
        with pytest.raises(UserError, match="another process is writing .*LeNet5.pt"), utils.sole_writer(path):
            pass
        with utils.sole_writer(path.with_name("metrics.json")), utils.sole_writer(tmp_path / "LeNet5.pt"):
            pass  # others are free
    with utils.sole_writer(path), pytest.raises(UserError), utils.sole_writer(path):
        pass
    assert os.listdir(path.parent) == []


def test_what_a_killed_writer_left_is_removed_by_the_next(tmp_path):
    path = tmp_path / "LeNet5.pt"
    for name in (".LeNet5.pt.abc.tmp", ".metrics.json.abc.tmp", "mine.tmp"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "LeNet5.pt").write_bytes(b"half")
    (tmp_path / ".LeNet5.pt.lock").write_bytes(b"")
    path.write_bytes(b"whole")
    with utils.sole_writer(path):
        pass
    assert sorted(os.listdir(tmp_path)) == [".metrics.json.abc.tmp", "LeNet5.pt", "mine.tmp"]


# ---------------------------------------------------------------------------------------------- data sets


def test_real_mnist_is_whole(mnist):
    assert utils.find_dataset("mnist", mnist) == utils.find_dataset("auto", mnist) == "mnist"
    for subset, count, first in ("train", 60_000, [5, 0, 4, 1, 9]), ("test", 10_000, [7, 2, 1, 0, 4]):
        images, labels = utils.load_dataset("mnist", mnist, subset)
        assert images.shape == (count, 28, 28) and images.dtype == torch.uint8
        assert labels.shape == (count,) and labels.dtype == torch.int64
        assert labels[:5].tolist() == first and labels.unique().tolist() == list(range(10))
        assert images.min() == 0 and images.max() == 255


def test_the_digits_have_mnists_geometry():
    (images, labels), (test_images, test_labels) = (
        utils.load_dataset("digits", None, subset) for subset in ("train", "test")
    )
    assert images.shape == (1437, 28, 28) and test_images.shape == (360, 28, 28)
    assert labels.shape == (1437,) and test_labels.shape == (360,)
    for tensor, dtype in (images, torch.uint8), (labels, torch.int64):
        assert tensor.dtype == dtype
    assert torch.cat([labels, test_labels]).bincount().min() > 170
    ink = torch.cat([images, test_images]).amax(0) > 0
    assert images.max() == 255 and ink.sum() == ink[4:-4, 4:-4].sum() > 300  # 20x20 in 28x28


@pytest.fixture
def refused_connections(monkeypatch):
    """Mirrors where nobody answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    mirrors(monkeypatch, port)


def mirrors(monkeypatch, port):
    datasets = pytest.importorskip("torchvision.datasets")
    monkeypatch.setattr(datasets.MNIST, "mirrors", [f"http://127.0.0.1:{port}/mnist/"])
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.setenv(name, "127.0.0.1")


def test_auto_falls_back_to_the_digits_only_without_any_mnist_and_says_so(tmp_path, refused_connections, capfd):
    assert utils.find_dataset("auto", tmp_path) == "digits"
    err = capfd.readouterr().err
    assert "WARNING" in err and "INSTEAD OF MNIST" in err and "train-images-idx3-ubyte.gz is missing" in err
    assert not any(path.is_file() for path in tmp_path.rglob("*"))
    with pytest.raises(UserError, match="missing and could not be fetched"):
        utils.find_dataset("mnist", tmp_path)
    assert utils.find_dataset("digits", tmp_path) == "digits"
    assert "WARNING" not in capfd.readouterr().err


def test_an_incomplete_mnist_is_no_reason_to_fall_back(tiny_mnist, refused_connections):
    missing = tiny_mnist / "MNIST" / "raw" / "t10k-labels-idx1-ubyte.gz"
    missing.unlink()
    for choice in ("auto", "mnist"):
        with pytest.raises(UserError, match="t10k-labels-idx1-ubyte.gz is missing"):
            utils.find_dataset(choice, tiny_mnist)


def test_archives_are_unpacked_and_only_the_unpacked_are_needed(tiny_mnist, refused_connections):
    raw = tiny_mnist / "MNIST" / "raw"
    archives = list(raw.iterdir())
    assert utils.find_dataset("auto", tiny_mnist) == "mnist"
    first = utils.load_dataset("mnist", tiny_mnist, "train")
    assert len(list(raw.iterdir())) == 8
    for archive in archives:
        archive.unlink()
    assert utils.find_dataset("auto", tiny_mnist) == "mnist"
    again = utils.load_dataset("mnist", tiny_mnist, "train")
    assert torch.equal(first[0], again[0]) and torch.equal(first[1], again[1])


def test_archives_are_enough_where_nothing_can_be_written(tiny_mnist, monkeypatch):
    monkeypatch.setattr(os, "replace", lambda *paths: fail(PermissionError(errno.EACCES, "Permission denied", *paths)))
    assert utils.find_dataset("mnist", tiny_mnist) == "mnist"
    assert utils.load_dataset("mnist", tiny_mnist, "test")[0].shape == (200, 28, 28)
    assert len(list((tiny_mnist / "MNIST" / "raw").iterdir())) == 4


@pytest.fixture
def serve(monkeypatch):
    """A mirror that answers each request with these bytes, and then closes the connection, or, given None, never."""
    servers = []

    def serve(answer):
        server = socket.create_server(("127.0.0.1", 0))
        servers.append(server)
        mirrors(monkeypatch, server.getsockname()[1])
        open_connections = []

        def loop():
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                open_connections.append(connection)
                if answer is not None:
                    name = connection.recv(65536).split()[1].decode().rpartition("/")[2]
                    connection.sendall(answer(name))
                    connection.close()

        threading.Thread(target=loop, daemon=True).start()

    yield serve
    for server in servers:
        server.close()


def http(content):
    return b"HTTP/1.0 200 OK\r\nContent-Length: %d\r\n\r\n" % len(content) + content


def test_mnist_is_fetched(tiny_mnist, tmp_path, serve):
    raw = tiny_mnist / "MNIST" / "raw"
    serve(lambda name: http((raw / name).read_bytes()))
    data = tmp_path / "fetched"
    assert utils.find_dataset("auto", data) == "mnist"
    fetched = {path.name: path.read_bytes() for path in (data / "MNIST" / "raw").iterdir()}
    assert len(fetched) == 8
    for archive in raw.glob("*.gz"):
        assert fetched[archive.name] == archive.read_bytes()


ANSWERS = {
    "nothing": lambda name: b"",
    "rubbish": lambda name: b"\x00\xff rubbish\n" * 100,
    "another page": lambda name: http(b"<html>Please log in</html>"),
    "not found": lambda name: b"HTTP/1.0 404 Not Found\r\n\r\n",
    "half": lambda name: http(b"\x1f\x8b" * 100)[:-50],
    "a redirection without end": lambda name: b"HTTP/1.0 302 Found\r\nLocation: /mnist/" + name.encode() + b"\r\n\r\n",
    "never": None,
}


@pytest.mark.parametrize("answer", ANSWERS.values(), ids=ANSWERS)
def test_a_download_that_fails_is_told_and_leaves_nothing(answer, tmp_path, serve, monkeypatch):
    monkeypatch.setattr(utils, "DOWNLOAD_TIMEOUT", 0.5)
    before = socket.getdefaulttimeout()
    serve(answer)
    with pytest.raises(UserError, match="train-images-idx3-ubyte.gz is missing and could not be fetched"):
        utils.find_dataset("mnist", tmp_path)
    assert socket.getdefaulttimeout() == before
    assert not any(path.is_file() for path in tmp_path.rglob("*"))


def test_a_torchvision_that_cannot_be_loaded_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torchvision.datasets", None)
    with pytest.raises(UserError, match="torchvision does not go with torch"):
        utils.find_dataset("auto", tmp_path)


# ---------------------------------------------------------------------------------------------- checkpoints


@pytest.fixture
def checkpoint(trained):
    return utils.load_checkpoint(trained[0] / "LeNet5.pt")


def test_a_checkpoint_comes_back_as_it_was(checkpoint, tmp_path):
    path = tmp_path / "new" / "LeNet5.pt"
    utils.save_checkpoint(path, checkpoint)
    utils.save_checkpoint(path, checkpoint)
    again = utils.load_checkpoint(path)
    assert again.keys() == checkpoint.keys() and os.listdir(path.parent) == ["LeNet5.pt"]
    for key in checkpoint.keys() - {"model", "last", "optimizer", "random_state"}:
        assert again[key] == checkpoint[key]
    for key in ("model", "last"):
        assert all(torch.equal(again[key][name], checkpoint[key][name]) for name in checkpoint[key])
    plain = torch.load(path, weights_only=True)  # as the design promises
    assert type(plain) is dict and plain.keys() == checkpoint.keys()


def test_a_checkpoint_of_every_network_is_taken(checkpoint, tmp_path):
    options = {"subsampling": "average", "connection": "full", "activation": "relu", "output": "rbf"}
    state = dict(LeNet5(**options).state_dict())
    checkpoint["recipe"]["network"] = options
    utils.save_checkpoint(tmp_path / "a.pt", {**checkpoint, "arguments": options, "model": state, "last": state})
    model = utils.load_model(utils.load_checkpoint(tmp_path / "a.pt"))
    assert all(torch.equal(model.state_dict()[name], state[name]) for name in state) and not model.training


def test_the_reference_run_is_taken():
    path = utils.Path(utils.__file__).parent / utils.RECORD / "LeNet5.pt"
    if not path.exists():
        pytest.skip(f"no reference run at {path}")
    assert utils.load_checkpoint(path)["dataset"] == "mnist"


def change(checkpoint, *keys, value):
    """Put a value, or what a function makes of the old one, at this place."""
    *path, last = keys
    for key in path:
        checkpoint = checkpoint[key]
    checkpoint[last] = value(checkpoint[last]) if callable(value) else value


CHANGES = {
    "format": (("format",), 2),
    "no weights": (("model",), {}),
    "a weight too many": (("model",), lambda state: {**state, "more": torch.zeros(1)}),
    "a list of weights": (("model",), list),
    "NaN": (("model", "c1.weight"), lambda weight: weight * float("nan")),
    "infinite": (("last", "f6.bias"), lambda bias: bias / 0),
    "half precision": (("last", "f6.bias"), lambda bias: bias.half()),
    "transposed": (("last", "f6.weight"), lambda weight: weight.T),
    "another network": (("arguments",), {"output": "rbf"}),
    "no network": (("arguments",), {"output": "none"}),
    "no arguments": (("arguments",), None),
    "data set": (("dataset",), "../../etc"),
    "seed": (("seed",), 2**70),
    "epoch": (("epoch",), 3),
    "history": (("history",), []),
    "accuracy": (("history", 0, "test_accuracy"), 5.0),
    "accuracy in words": (("history", 0, "test_accuracy"), "high"),
    "loss": (("history", 1, "train_loss"), float("nan")),
    "huge loss": (("history", 1, "train_loss"), 10**400),
    "row": (("history", 1), 7),
    "recipe without a loss": (("recipe",), lambda recipe: {k: v for k, v in recipe.items() if k != "j"}),
    "recipe of objects": (("recipe", "more"), {1, 2}),
    "recipe without end": (("recipe", "more"), lambda _: endless()),
    "batch size": (("recipe", "batch_size"), 32.5),
    "epochs": (("recipe", "epochs"), 1),
    "learning rate": (("recipe", "lr"), []),
    "negative learning rate": (("recipe", "lr"), [-1.0]),
    "random state": (("random_state",), lambda state: state[:-1]),
    "random state of another type": (("random_state",), lambda state: state.float()),
}


def endless():
    circle = []
    circle.append(circle)
    return circle


@pytest.mark.parametrize(("keys", "value"), CHANGES.values(), ids=CHANGES)
def test_a_checkpoint_with_anything_else_in_it_is_refused(keys, value, checkpoint, tmp_path):
    checkpoint["recipe"].setdefault("more", None)
    change(checkpoint, *keys, value=value)
    path = tmp_path / "LeNet5.pt"
    utils.save_checkpoint(path, checkpoint)
    with pytest.raises(UserError, match="is no checkpoint of this project, or damaged"):
        utils.load_checkpoint(path)


@pytest.mark.parametrize("key", utils.KEYS)
def test_every_key_is_needed(key, checkpoint, tmp_path):
    del checkpoint[key]
    utils.save_checkpoint(tmp_path / "LeNet5.pt", checkpoint)
    with pytest.raises(UserError, match=f"{key} is missing"):
        utils.load_checkpoint(tmp_path / "LeNet5.pt")


def test_a_checkpoint_before_the_first_epoch_is_refused(checkpoint, tmp_path):
    utils.save_checkpoint(tmp_path / "LeNet5.pt", {**checkpoint, "epoch": 0, "history": []})
    with pytest.raises(UserError, match="epoch"):
        utils.load_checkpoint(tmp_path / "LeNet5.pt")


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"runs": 1}', "\xff"])
def test_a_damaged_study_is_named(content, tmp_path):
    assert utils.read_study(tmp_path / "study.json")["runs"] == []
    (tmp_path / "study.json").write_text(content, encoding="latin-1")
    with pytest.raises(UserError, match="study.json is no study's file"):
        utils.read_study(tmp_path / "study.json")


class Payload:
    """What a pickle would do that the tests want never to happen."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


def archive(members, **options):
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", **options) as file:
        for name, member in members:
            file.writestr(name, member)
    return content.getvalue()


def members(path):
    with zipfile.ZipFile(path) as file:
        return [(name, file.read(name)) for name in file.namelist()]


def rewritten(path, change, **options):
    """The file at path with its members changed."""
    return archive(change(members(path)), **options)


def test_no_code_of_a_checkpoint_runs(trained, tmp_path):
    path, victim = tmp_path / "LeNet5.pt", tmp_path / "written"
    attacks = [
        pickle.dumps(Payload(victim)),
        rewritten(
            trained[0] / "LeNet5.pt",
            lambda m: [(n, pickle.dumps(Payload(victim), 2) if "pkl" in n else c) for n, c in m],
        ),
    ]
    torch.save(Payload(victim), path)
    for attack in (path.read_bytes(), *attacks):
        path.write_bytes(attack)
        with pytest.raises(UserError, match="is no checkpoint"):
            utils.load_checkpoint(path)
        assert not victim.exists()


def test_a_pickle_of_another_protocol_is_refused(trained, tmp_path):
    """torch.load would take it, but warn."""
    path = tmp_path / "LeNet5.pt"
    parts = members(trained[0] / "LeNet5.pt")
    for protocol, right in ((2, True), (0, False), (5, False)):
        path.write_bytes(archive([(n, bytes([128, protocol]) + c[2:] if "pkl" in n else c) for n, c in parts]))
        if right:
            assert utils.load_checkpoint(path)
        else:
            with pytest.raises(UserError, match="is no checkpoint"):
                utils.load_checkpoint(path)


FOREIGN = {
    "empty": lambda path: b"",
    "text": lambda path: b"not a checkpoint\n",
    "half": lambda path: path.read_bytes()[: path.stat().st_size // 2],
    "too large": lambda path: bytes(2**24 + 1),
    "an empty archive": lambda path: archive([]),
    "compressed": lambda path: rewritten(path, lambda m: m, compression=zipfile.ZIP_DEFLATED),
    "an absolute name": lambda path: rewritten(path, lambda m: [*m, ("/etc/passwd", b"")]),
    "a name above": lambda path: rewritten(path, lambda m: [*m, ("archive/../../a", b"")]),
    "a name of Windows": lambda path: rewritten(path, lambda m: [*m, ("archive/..\\a", b"")]),
    "a member twice": lambda path: rewritten(path, lambda m: [*m, ("more/version", b"3")]),
    "no pickle": lambda path: rewritten(path, lambda m: m[1:]),
    "a storage too small": lambda path: rewritten(path, lambda m: [(n, c[n[-6:] == "data/0" :]) for n, c in m]),
    "a storage missing": lambda path: rewritten(path, lambda m: [(n, c) for n, c in m if n[-6:] != "data/0"]),
    "a state dictionary alone": lambda path: saved(LeNet5().state_dict()),
    "a list": lambda path: saved([1, 2]),
}  # fmt: skip


def saved(content):
    file = io.BytesIO()
    torch.save(content, file)
    return file.getvalue()


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("make", FOREIGN.values(), ids=FOREIGN)
def test_a_foreign_file_is_refused_in_one_line(make, trained, tmp_path):
    path = tmp_path / "LeNet5.pt"
    path.write_bytes(make(trained[0] / "LeNet5.pt"))
    with pytest.raises(UserError, match="is no checkpoint of this project, or damaged"):
        utils.load_checkpoint(path)


def test_a_missing_checkpoint_is_named(tmp_path):
    for path in (tmp_path / "LeNet5.pt", tmp_path):
        with pytest.raises(UserError, match="no checkpoint at"):
            utils.load_checkpoint(path)


def test_any_weight_that_has_changed_on_disk_is_noticed(trained, tmp_path):
    content = bytearray((trained[0] / "LeNet5.pt").read_bytes())
    content[len(content) // 2] ^= 1  # the lowest bit of one number
    (tmp_path / "LeNet5.pt").write_bytes(content)
    with pytest.raises(UserError, match="Bad CRC-32"):
        utils.load_checkpoint(tmp_path / "LeNet5.pt")


# ---------------------------------------------------------------------------------------------- evaluation


def test_scores_are_the_networks_in_batches_of_any_size(checkpoint):
    images = pad(utils.load_dataset("digits", None, "test")[0])
    for weights in ("model", "last"):
        model = utils.load_model(checkpoint, weights)
        assert all(torch.equal(tensor, checkpoint[weights][name]) for name, tensor in model.state_dict().items())
        expected = model(scale(images))
        for batch_size in (1000, 360, 100, 7):
            torch.testing.assert_close(utils.class_scores(model, images, batch_size), expected)
    assert not torch.equal(checkpoint["model"]["c1.bias"], checkpoint["last"]["c1.bias"])


def test_accuracy_is_the_share_that_is_right(checkpoint):
    images, labels = utils.load_dataset("digits", None, "test")
    predicted = utils.class_scores(utils.load_model(checkpoint, "last"), pad(images)).argmax(1)
    assert utils.accuracy(checkpoint, "last", (images, labels)) == (predicted == labels).sum() / 360
    assert utils.accuracy(checkpoint, "last", (images, predicted)) == 1
    assert utils.accuracy(checkpoint, "last", (images, (predicted + 1) % 10)) == 0
