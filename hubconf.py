"""LeNet-5 for torch.hub:

    network = torch.hub.load("OWNER/REPOSITORY", "lenet5", pretrained=True)
    logits = network(images)

images are float32 (N, 1, 32, 32), background -0.1 and ink 1.175; `preprocess` makes them of grey levels. logits are
(N, 10); higher means more likely. The networks can be pickled and sent to other processes.
"""

import functools
import importlib.util
import sys
from pathlib import Path

import torch

dependencies = ["torch", "safetensors"]

ROOT = Path(__file__).resolve().parent
NAME = "lenet5_model"  # under a name of its own: whoever calls may have another module `model`


def import_model():
    """model.py, imported once a process. Its networks are pickled as the call of `restored` that makes them again."""
    if NAME not in sys.modules:
        spec = importlib.util.spec_from_file_location(NAME, ROOT / "model.py")
        sys.modules[NAME] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[NAME])
        sys.modules[NAME].LeNet5.__reduce_ex__ = reduce_network
    return sys.modules[NAME]


def reduce_network(network, protocol):
    # torch.hub.load is what every process can import; this file and model.py are not.
    restore = functools.partial(torch.hub.load, str(ROOT), "restored", source="local")
    return restore, (network.arguments, network.state_dict(), network.training)


def restored(arguments, state_dict, training):
    """A network as it was pickled; for pickle's use."""
    first = next(iter(state_dict.values()))
    network = make(arguments).to(first.device, first.dtype)
    network.load_state_dict(state_dict)
    return network.train(training)


model = import_model()


def lenet5(pretrained=False):
    """The published network up to F6 with ten linear outputs (60,850 parameters), trained with Adam.

    Takes images float32 (N, 1, 32, 32), background -0.1 and ink 1.175, and returns logits (N, 10). Without
    pretrained=True its weights are random. Raises FileNotFoundError if the trained weights are not in Record/reference.
    """
    return load("LeNet5.safetensors", pretrained)


def lenet5_1998(pretrained=False):
    """The network as published, with RBF outputs (60,000 parameters), trained by recipe 1998; otherwise as `lenet5`."""
    return load("1998/LeNet5.safetensors", pretrained, output="rbf")


def lenet5_best(pretrained=False):
    """As `lenet5` with ReLU in place of the squashing function (60,850 parameters), by the most accurate recipe."""
    return load("best/LeNet5.safetensors", pretrained, activation="relu")


def lenet5_fast(pretrained=False):
    """As `lenet5_best`, by the recipe of a few seconds."""
    return load("fast/LeNet5.safetensors", pretrained, activation="relu")


def lenet5_numbers(pretrained=False):
    """The network that is swept over lines of digits: as `lenet5_best` with an eleventh class, "no digit here".

    Images may be wider than 32: (N, 1, 32, W) -> (N, T, 11), T = (W - 32) // 4 + 1 places.
    """
    return load("numbers/LeNet5.safetensors", pretrained, activation="relu", classes=11)


def preprocess(images):
    """Grey levels, uint8 (N, 28, 28), 0 background to 255 ink -> float32 (N, 1, 32, 32), as the networks take them.

    Raises ValueError on images of another type or shape.
    """
    return model.normalize(model.pad(images))


def load(file, pretrained, **arguments):
    network = make(arguments)
    if pretrained:
        import safetensors.torch

        tensors = safetensors.torch.load_file(ROOT / "Record" / "reference" / file)
        network.load_state_dict({name: tensors[name] for name in network.state_dict()})
    return network.eval()


def make(arguments):
    network = model.LeNet5(**arguments)
    network.arguments = arguments  # for pickle
    return network
