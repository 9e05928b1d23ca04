"""LeNet-5 for torch.hub:

    network = torch.hub.load("OWNER/REPOSITORY", "lenet5", pretrained=True)
    scores = network(images)

images are float32 (N, 1, 32, 32), background -0.1 and ink 1.175; `preprocess` makes them of grey levels. scores are
(N, 10); higher means more likely.
"""

import importlib.util
from pathlib import Path

dependencies = ["torch", "safetensors"]

# Under a name of its own: whoever calls may have another module `model`.
ROOT = Path(__file__).parent
spec = importlib.util.spec_from_file_location("lenet5_model", ROOT / "model.py")
model = importlib.util.module_from_spec(spec)
spec.loader.exec_module(model)


def lenet5(pretrained=False):
    """The published network up to F6 with ten linear outputs (60,850 parameters), trained with Adam.

    Takes images float32 (N, 1, 32, 32), background -0.1 and ink 1.175, and returns class scores (N, 10). Without
    pretrained=True its weights are random. Raises FileNotFoundError if the trained weights are not in Record/.
    """
    return load(model.LeNet5(), "LeNet5.safetensors", pretrained)


def lenet5_1998(pretrained=False):
    """The network as published, with RBF outputs (60,000 parameters), trained as published; otherwise as `lenet5`."""
    return load(model.LeNet5(output="rbf"), "1998/LeNet5.safetensors", pretrained)


def lenet5_best(pretrained=False):
    """As `lenet5` with ReLU in place of the squashing function (60,850 parameters), by the most accurate recipe."""
    return load(model.LeNet5(activation="relu"), "best/LeNet5.safetensors", pretrained)


def preprocess(images):
    """Grey levels, uint8 (N, 28, 28), 0 background to 255 ink -> float32 (N, 1, 32, 32), as the networks take them."""
    return model.scale(model.pad(images))


def load(network, file, pretrained):
    if pretrained:
        import safetensors.torch

        tensors = safetensors.torch.load_file(ROOT / "Record" / file)
        network.load_state_dict({name: tensors[f"reported.{name}"] for name in network.state_dict()})
    return network.eval()
