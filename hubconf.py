"""LeNet-5 for torch.hub:

    network = torch.hub.load("OWNER/REPOSITORY", "lenet5", pretrained=True)
    logits = network(images)

images are float32 (N, 1, 32, 32), background -0.1 and ink 1.175; `preprocess` makes them of grey levels. logits are
(N, 10); higher means more likely. The networks can be copied, pickled and sent to other processes. A pickle names this
folder: to keep a network, save its state_dict().
"""

import functools
import importlib.util
import pathlib
import sys

import torch

dependencies = ["torch", "safetensors"]

ROOT = pathlib.Path(__file__).resolve().parent
NAME = "lenet5_model"  # under a name of its own: whoever calls may have another module `model`


def _import_model():
    """model.py, imported once a process."""
    if NAME not in sys.modules:
        spec = importlib.util.spec_from_file_location(NAME, ROOT / "model.py")
        sys.modules[NAME] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[NAME])
        sys.modules[NAME].LeNet5.__reduce_ex__ = _reduce_network
    return sys.modules[NAME]


def _reduce_network(network, protocol):
    # A process that unpickles calls torch.hub.load, which imports model.py, and then finds the classes of the layers.
    return functools.partial(torch.hub.load, str(ROOT), "_empty_network", source="local"), (), vars(network)


def _empty_network():
    """A network without anything in it; for pickle's use."""
    return model.LeNet5.__new__(model.LeNet5)


model = _import_model()


def lenet5(pretrained=False):
    """The published network up to F6 with ten linear outputs (60,850 parameters), trained with Adam.

    Takes images float32 (N, 1, 32, 32), background -0.1 and ink 1.175, and returns logits (N, 10). Without
    pretrained=True its weights are random. Raises FileNotFoundError if the trained weights are not in Record/reference.
    """
    return _load("LeNet5.safetensors", pretrained)


def lenet5_1998(pretrained=False):
    """The network as published, with RBF outputs (60,000 parameters), trained by recipe 1998; otherwise as `lenet5`."""
    return _load("1998/LeNet5.safetensors", pretrained, output="rbf")


def lenet5_best(pretrained=False):
    """As `lenet5` with ReLU in place of the squashing function (60,850 parameters), by the most accurate recipe."""
    return _load("best/LeNet5.safetensors", pretrained, activation="relu")


def lenet5_fast(pretrained=False):
    """As `lenet5_best`, by the recipe of a few seconds."""
    return _load("fast/LeNet5.safetensors", pretrained, activation="relu")


def lenet5_numbers(pretrained=False):
    """The network that is swept over lines of digits: as `lenet5_best` with an eleventh class, "no digit here".

    Images may be wider than 32: (N, 1, 32, W) -> (N, T, 11), T = (W - 32) // 4 + 1 places.
    """
    return _load("numbers/LeNet5.safetensors", pretrained, activation="relu", classes=11)


def preprocess(images):
    """Grey levels, uint8 (N, 28, 28), 0 background to 255 ink -> float32 (N, 1, 32, 32), as the networks take them.

    Raises ValueError on images of another type or shape.
    """
    return model.normalize(model.pad(images))


def _load(file, pretrained, **arguments):
    network = model.LeNet5(**arguments)
    if pretrained:
        import safetensors.torch

        tensors = safetensors.torch.load_file(ROOT / "Record" / "reference" / file)
        network.load_state_dict({name: tensors[name] for name in network.state_dict()})
    return network.eval()
