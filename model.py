"""LeNet-5 as published, layer by layer.

Y. LeCun, L. Bottou, Y. Bengio, P. Haffner, "Gradient-Based Learning Applied to Document Recognition",
Proceedings of the IEEE 86(11):2278-2324, November 1998. Sections named in this file are that paper's.

Run it to compare the network with the paper: `python model.py`.

On the CPU training takes its steps in training/kernels.py, the same steps in compiled loops. A breakpoint in this file
is hit with `python ClassifyTask_train.py --plain`, where the network itself takes them.
"""

import math
import sys

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# Table I: the maps of S2 that each of C3's sixteen maps reads.
TABLE_I = (
    (0, 1, 2), (1, 2, 3), (2, 3, 4), (3, 4, 5), (0, 4, 5), (0, 1, 5),
    (0, 1, 2, 3), (1, 2, 3, 4), (2, 3, 4, 5), (0, 3, 4, 5), (0, 1, 4, 5), (0, 1, 2, 5),
    (0, 1, 3, 4), (1, 2, 4, 5), (0, 2, 3, 5), (0, 1, 2, 3, 4, 5),
)  # fmt: skip

# Figure 3: the codes of 0 to 9, 7 wide and 12 high. Bars tell 0, 2, 4 and 5 from letters such as O, Z and S.
BITMAPS = """
.#####. ...##.. .#####. ####### .#####. .#####. ..####. ####### .#####. .#####.
....... ..###.. ....... .....## ....... ....... .##.... .....## ##...## ##..###
..###.. .####.. .#####. ....##. ....... ####### ##..... .....## ##...## ##...##
.##.##. ...##.. ##...## ...##.. .##..## ##..... ##..... ....##. ##...## ##...##
##...## ...##.. #....## ..####. .##..## ##..... ######. ...##.. .#####. ##..###
##...## ...##.. ....##. .....## ###..## .####.. ###..## ...##.. ##...## .######
##...## ...##.. ..###.. .....## ##...## ..####. ##...## ..##... ##...## .....##
##...## ...##.. .##.... .....## ##...## .....## ##...## ..##... ##...## .....##
.##.##. ...##.. ##..... ##...## ##..### ##...## ###..## ..##... ##...## ....##.
..###.. .###### ####### .#####. .###### .#####. .#####. ..##... .#####. .####..
....... ....... ....... ....... .....## ....... ....... ....... ....... .......
....... ....... ....... ....... .....## ....... ....... ....... ....... .......
"""


def digit_codes() -> Tensor:
    """The target codes of the ten digits (section II.B): (10, 84), ink +1, background -1."""
    rows = [row.split() for row in BITMAPS.split("\n") if row]
    return torch.tensor([[1.0 if dot == "#" else -1.0 for row in rows for dot in row[digit]] for digit in range(10)])


# The grey levels of the input (section II.B): "the mean input roughly 0, and the variance roughly 1".
BACKGROUND, INK = -0.1, 1.175


def not_images(what: str, images: Tensor) -> str:
    """What to say of images that are not of the type and shape wanted."""
    found = f"{str(images.dtype).removeprefix('torch.')} {tuple(images.shape)}"
    return f"images must be {what}, but are {found}"


LEVELS = "grey levels 0 (background) to 255 (ink)"


def pad(images: Tensor) -> Tensor:
    """Centre 28x28 images in the input layer: uint8 (N, 28, 28) -> uint8 (N, 32, 32).

    Raises ValueError unless the images are uint8 and have this shape: grey levels 0 to 1 would be read, and read wrong.
    """
    if images.dtype != torch.uint8 or images.ndim != 3 or images.shape[1:] != (28, 28):
        raise ValueError(not_images(f"uint8 (N, 28, 28), {LEVELS}", images))
    return F.pad(images, (2, 2, 2, 2))


def normalize(images: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """Grey levels 0 (background) to 255 (ink) as the network sees them: uint8 (N, 32, W) -> float (N, 1, 32, W).

    W is 32, or more for a line of digits. Raises ValueError unless the images are uint8 and have this shape.
    """
    if images.dtype != torch.uint8 or images.ndim != 3 or images.shape[1] != 32 or images.shape[2] < 32:
        raise ValueError(not_images(f"uint8 (N, 32, W), {LEVELS}", images))
    return images.to(dtype).mul_((INK - BACKGROUND) / 255).add_(BACKGROUND).unsqueeze(1)


class Squash(nn.Module):
    """The squashing function f(a) = A tanh(S a), with f(1) = 1 and f(-1) = -1 (appendix A). Any shape."""

    A, S = 1.7159, 2 / 3

    def forward(self, a: Tensor) -> Tensor:
        return self.A * torch.tanh(self.S * a)


class Subsampling(nn.Module):
    """Each 2x2 patch: summed, times the map's coefficient, plus the map's bias, then squashed (section II.B).

    (N, C, 2H, 2W) -> (N, C, H, W), with 2C parameters.
    """

    def __init__(self, maps: int, squash: nn.Module):
        super().__init__()
        self.coefficient = nn.Parameter(torch.empty(maps))
        self.bias = nn.Parameter(torch.empty(maps))
        self.squash = squash

    def forward(self, maps: Tensor, stride: int | tuple[int, int] = 2) -> Tensor:
        sums = F.avg_pool2d(maps, 2, stride, divisor_override=1)
        return self.squash(self.coefficient.view(-1, 1, 1) * sums + self.bias.view(-1, 1, 1))


class TableConvolution(nn.Module):
    """A 5x5 convolution in which output map i reads only the input maps table[i] (table I).

    (N, in_maps, H, W) -> (N, len(table), H-4, W-4). One kernel a connection, in the table's order, and one bias a map:
    a connection that the table leaves out is no parameter.
    """

    def __init__(self, in_maps: int, table: tuple[tuple[int, ...], ...]):
        super().__init__()
        pairs = [(out_map, in_map) for out_map, in_maps in enumerate(table) for in_map in in_maps]
        self.weight = nn.Parameter(torch.empty(len(pairs), 5, 5))
        self.bias = nn.Parameter(torch.empty(len(table)))
        self.shape = (len(table), in_maps, 5, 5)
        to_map, from_map = torch.tensor(pairs).T
        place = F.one_hot(to_map * in_maps + from_map, len(table) * in_maps).float()  # (kernels, all pairs of maps)
        self.register_buffer("connections", torch.stack([to_map, from_map]), persistent=False)  # (2, kernels)
        self.register_buffer("place", place, persistent=False)

    def forward(self, maps: Tensor) -> Tensor:
        # Table I is applied here: each kernel goes to its place, and where there is no connection stay zeros. It is a
        # product because that is one launch on a GPU, where indexing has a dozen.
        kernels = self.place.T @ self.weight.flatten(1)
        return F.conv2d(maps, kernels.view(self.shape), self.bias)


class RBF(nn.Module):
    """Euclidean radial basis units with fixed codes (section II.B): y_i = factor * sum_j (x_j - w_ij)^2.

    (..., 84) -> (..., 10). Returns -y_i, the paper's penalty with its sign turned: higher means more likely. The paper
    has no factor; with a smaller one the classes of eq. 9 compete more softly.
    """

    def __init__(self, factor: float = 1.0):
        super().__init__()
        self.factor = factor
        self.register_buffer("codes", digit_codes(), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        return -self.factor * (x.unsqueeze(-2) - self.codes).square().sum(-1)


def eq9_loss(scores: Tensor, labels: Tensor, j: float | None) -> Tensor:
    """The paper's criterion, eq. 9, of each pattern: scores (N, 10) and labels (N,) -> (N,).

    E = y_D + log(exp(-j) + sum_i exp(-y_i)), with D the correct class and y = -scores the penalties; exp(-j) stands for
    a "rubbish" class. Without it, j = None, E is the cross-entropy of softmax. Safe for scores of any finite size.
    """
    rubbish = -math.inf if j is None else -j
    return F.cross_entropy(F.pad(scores, (0, 1), value=rubbish), labels, reduction="none")


def eq8_loss(scores: Tensor, labels: Tensor) -> Tensor:
    """Eq. 8 of each pattern, the penalty y_D of the correct class: scores (N, 10) and labels (N,) -> (N,).

    With RBF units, the squared distance between F6 and the code of the class. It knows no competition between classes.
    """
    return -scores.gather(1, labels.unsqueeze(1)).squeeze(1)


class Places(nn.Module):
    """The T places of a wide image, one after the other: C5's maps (N, C, 1, T) -> (N, T, C)."""

    def forward(self, maps: Tensor) -> Tensor:
        return maps.squeeze(2).transpose(1, 2)


# What each keyword argument of LeNet5 offers; the first of each is the default.
SUBSAMPLING = {
    "trainable": Subsampling,
    "average": lambda maps, squash: nn.AvgPool2d(2),
}
CONNECTION = {
    "table": lambda: TableConvolution(6, TABLE_I),
    "full": lambda: nn.Conv2d(6, 16, 5),
}
ACTIVATION = {"squash": Squash, "tanh": nn.Tanh, "sigmoid": nn.Sigmoid, "relu": nn.ReLU}
OUTPUT = {"linear": lambda classes, factor: nn.Linear(84, classes), "rbf": lambda classes, factor: RBF(factor)}


def choose(what: str, options: dict, name: str):
    """options[name]; raises ValueError that names the choices."""
    if name not in options:
        raise ValueError(f"{what} is {name!r}, but must be one of: {', '.join(options)}")
    return options[name]


# Initial weights are uniform within +- a bound that depends on the fan-in F, the number of inputs of their unit.
BOUNDS = {
    "2.4/F": lambda fan_in: 2.4 / fan_in,
    "1/sqrt(F)": lambda fan_in: fan_in**-0.5,
    "sqrt(3/F)": lambda fan_in: (3 / fan_in) ** 0.5,
}


class LeNet5(nn.Module):
    """LeNet-5 (section II.B, figure 2): images (N, 1, 32, 32) -> logits (N, 10); higher means more likely.

    The default is the published network up to F6 with ten linear outputs in place of the RBF units: 60,850 parameters.
    `output="rbf"` is the published network (60,000). `subsampling="average", connection="full", activation="tanh"`
    (or "sigmoid", "relu") is the simplified network that most repositories call LeNet-5 (61,706).

    `classes` is the number of linear outputs: reading/ has an eleventh, for "no digit here". `rbf_factor` is that of
    the RBF units' squared distances.

    C5 is a convolution, so the network takes wide images, too: (N, 1, 32, W) with W > 32 -> (N, T, 10), the logits at
    T = (W - 32) // 4 + 1 places, 4 pixels apart (section VII). Raises ValueError on images of another form or height or
    narrower than 32, on an option that does not exist, on RBF units for other than ten classes, and on a factor that is
    not positive. Weights are initialized as reset_parameters says.
    """

    def __init__(
        self,
        subsampling="trainable",
        connection="table",
        activation="squash",
        output="linear",
        classes=10,
        rbf_factor=1.0,
    ):
        super().__init__()
        if not 0 < rbf_factor < math.inf:
            raise ValueError(f"rbf_factor is {rbf_factor}, but must be positive")
        if output == "rbf" and classes != 10:
            raise ValueError(f"there are codes for ten classes, not for {classes}")
        subsample = choose("subsampling", SUBSAMPLING, subsampling)
        self.squash = choose("activation", ACTIVATION, activation)()
        self.c1 = nn.Conv2d(1, 6, 5)
        self.s2 = subsample(6, self.squash)
        self.c3 = choose("connection", CONNECTION, connection)()
        self.s4 = subsample(16, self.squash)
        self.c5 = nn.Conv2d(16, 120, 5)
        self.places = Places()
        self.f6 = nn.Linear(120, 84)
        self.output = choose("output", OUTPUT, output)(classes, rbf_factor)
        self.reset_parameters()

    def layers(self) -> dict[str, list[nn.Module]]:
        """The chain of layers: the name of each, and the modules that compute it from the one before."""
        return {
            "c1": [self.c1, self.squash],  # (N, 6, 28, 28)
            "s2": [self.s2],  # (N, 6, 14, 14)
            "c3": [self.c3, self.squash],  # (N, 16, 10, 10)
            "s4": [self.s4],  # (N, 16, 5, 5)
            "c5": [self.c5, self.squash],  # (N, 120, 1, T)
            "f6": [self.places, self.f6, self.squash],  # (N, T, 84)
            "output": [self.output],  # (N, T, 10)
        }

    def states(self, images: Tensor) -> dict[str, Tensor]:
        """The state of every layer, by name, the input's first; an image 32 wide is one place, and has no T."""
        if images.ndim != 4 or images.shape[1] != 1 or not images.is_floating_point():
            raise ValueError(not_images("float (N, 1, 32, W), as `normalize` makes them", images))
        height, width = images.shape[2:]
        if height != 32 or width < 32:
            raise ValueError(f"images are {height}x{width}, but must be 32 high and at least 32 wide")
        states = {"input": images}
        for name, modules in self.layers().items():
            for module in modules:
                images = module(images)
            states[name] = images
        if width == 32:
            states["f6"], states["output"] = states["f6"].squeeze(1), states["output"].squeeze(1)
        return states

    def forward(self, images: Tensor) -> Tensor:
        return self.states(images)["output"]

    @torch.no_grad()
    def reset_parameters(self, bound: str = "1/sqrt(F)", coefficient: float = 1.0, zero_biases: bool = False):
        """Draw the initial weights from torch's default generator, uniform within +-BOUNDS[bound].

        The paper has 2.4/F (section III), and is silent on S2 and S4: they start with this coefficient and bias 0. With
        `zero_biases` all other biases start at 0, too.
        """
        bound_of = choose("bound", BOUNDS, bound)
        for layer in self.children():
            if isinstance(layer, Subsampling):
                layer.coefficient.fill_(coefficient)
                layer.bias.zero_()
            elif isinstance(layer, TableConvolution):
                limit = bound_of(25 * layer.connections[0].bincount())
                layer.weight.uniform_(-1, 1).mul_(limit[layer.connections[0]].view(-1, 1, 1))
                layer.bias.uniform_(-1, 1).mul_(limit)
            elif isinstance(layer, (nn.Conv2d, nn.Linear)):
                limit = bound_of(layer.weight[0].numel())
                layer.weight.uniform_(-limit, limit)
                layer.bias.uniform_(-limit, limit)
            if zero_biases and hasattr(layer, "bias"):
                layer.bias.zero_()


@torch.no_grad()
def layer_table(model: LeNet5) -> dict[str, tuple[tuple[int, ...], int, int]]:
    """Of each layer, measured on one 32x32 image: output shape, trainable parameters, connections.

    A connection is one weight or bias at work at one place: a shared weight counts as often as it is used.
    """
    states, table = model.states(torch.zeros(1, 1, 32, 32)), {}
    for name in model.layers():
        shape, layer = tuple(states[name].shape[1:]), getattr(model, name)
        parameters = sum(p.numel() for p in layer.parameters())
        if isinstance(layer, Subsampling):  # four inputs and a bias a unit
            connections = 5 * states[name].numel()
        elif isinstance(layer, RBF):
            connections = layer.codes.numel()
        else:  # a convolution uses all its parameters once a position
            connections = parameters * math.prod(shape[1:])
        table[name] = (shape, parameters, connections)
    return table


# The paper's own figures (section II.B), and docs/network.md's for the default network: only its output differs.
PAPER = {
    "c1": ((6, 28, 28), 156, 122_304),
    "s2": ((6, 14, 14), 12, 5_880),
    "c3": ((16, 10, 10), 1_516, 151_600),
    "s4": ((16, 5, 5), 32, 2_000),
    "c5": ((120, 1, 1), 48_120, 48_120),
    "f6": ((84,), 10_164, 10_164),
    "output": ((10,), 0, 840),
}
NETWORK_MD = {**PAPER, "output": ((10,), 850, 850)}


def print_comparison(title: str, model: LeNet5, source: str, expected: dict) -> bool:
    """Print a network's layers beside the figures expected of it; returns whether all agree."""
    print(f"{title}\n{'':8}{'output':>12}{'parameters':>12}{'connections':>13}   {source}")
    measured = layer_table(model)
    for name, row in measured.items():
        shape = "x".join(map(str, row[0]))
        verdict = "the same" if row == expected[name] else f"differs: {expected[name]}"
        print(f"{name.upper() if len(name) == 2 else name:8}{shape:>12}{row[1]:>12,}{row[2]:>13,}   {verdict}")
    totals = [[sum(row[i] for row in rows.values()) for i in (1, 2)] for rows in (measured, expected)]
    print("{:8}{:>12}{:>12,}{:>13,}   {:,} and {:,}\n".format("total", "", *totals[0], *totals[1]))
    return measured == expected


if __name__ == "__main__":
    published = print_comparison('As published: LeNet5(output="rbf")', LeNet5(output="rbf"), "paper", PAPER)
    default = print_comparison("The default: LeNet5()", LeNet5(), "docs/network.md", NETWORK_MD)
    sys.exit(0 if published and default else 1)
