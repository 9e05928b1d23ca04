"""The classifiers of the paper's section III.C, each written from its definition, for `comparison`.

Each takes training digits, images uint8 (N, 28, 28) and labels (N,), and gives back a function from images to classes,
and how many numbers it stores. Where the paper is silent, this is assumed:

- Deslanted digits: sheared until the covariance of x and y vanishes, ink counted as 1 where it is above half, then cut
  to 20x20 pixels.
- Linear, quadratic, and the layer behind RBF units: least squares with targets +-1. Softmax is what one would take
  today.
- Pairwise linear: least squares, too, but regularized as if inputs had noise of a tenth of their size, and a class adds
  up its units' outputs squashed: each unit also answers to eight classes that it has never seen.
- Nearest neighbours: the majority of three, or the nearest where there is none.
- Quadratic: the 820 products of 40 principal components, and a bias.
- RBF: 100 units a class, by k-means. Their width is the mean squared distance of the digits to their centres.
- SVM: (gamma x.y + 1)^4 and C = 10, with scikit-learn's gamma "scale".
- Fully connected: the paper's squashing function, cross-entropy, Adam (0.0005), batches of 32, 20 epochs, the weights
  of the last step, augmentation of recipe default's strength. The paper has the squared error and an older method.
"""

import itertools
from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from sklearn.cluster import KMeans
from sklearn.svm import SVC
from torch import Tensor, nn

from digits.augmentation import augment, warp
from model import Squash, normalize, pad
from training.recipes import RECIPES

DEFAULT = RECIPES["default"]
NEIGHBOURS, COMPONENTS, CENTRES = 3, 40, 100
Fitted = tuple[Callable[[Tensor], Tensor], int]  # images uint8 (N, 28, 28) -> classes (N,); how many numbers it stores


# ---------------------------------------------------------------------------------------------- the inputs


def pixels(images: Tensor) -> Tensor:
    """uint8 (N, 28, 28) -> (N, 784), 0 to 1."""
    return images.flatten(1) / 255


def deslanted(images: Tensor) -> Tensor:
    """uint8 (N, 28, 28) -> (N, 400), 0 to 1."""
    return deslant(images).flatten(1) / 255


def deslant(images: Tensor) -> Tensor:
    """Digits whose x and y have no covariance: uint8 (N, 28, 28) -> uint8 (N, 20, 20)."""
    slope, y = slant(images)
    maps = torch.eye(2, 3).repeat(len(images), 1, 1)
    maps[:, 0, 1], maps[:, 0, 2] = slope, -slope * y  # a pixel comes from x' + slope (y' - mean of y)
    parts = zip(pad(images).split(500), maps.split(500))
    return torch.cat([warp(*part) for part in parts])[:, 6:26, 6:26]


def slant(images: Tensor) -> tuple[Tensor, Tensor]:
    """cov(x, y) / var(y) of the ink of each digit, and its mean y, from the centre: uint8 (N, 28, 28) -> (N,) each."""
    ink = (images > 127).double()
    places, count = torch.arange(28.0, dtype=torch.double) - 13.5, ink.sum((1, 2)).clamp(min=1)
    x, y = (ink.sum(axis) @ places / count for axis in (1, 2))
    covariance = torch.einsum("nyx,y,x->n", ink, places, places) / count - x * y
    variance = ink.sum(2) @ places**2 / count - y**2
    return covariance / variance.clamp(min=0.1), y


# ---------------------------------------------------------------------------------------------- the classifiers


def products(x: Tensor) -> Tensor:
    """(N, D) -> (N, D (D + 1) / 2): all products of two, squares among them."""
    first, second = torch.triu_indices(x.shape[1], x.shape[1])
    return x[:, first] * x[:, second]


def with_bias(x: Tensor) -> Tensor:
    return F.pad(x, (0, 1), value=1.0)


def least_squares(square: Tensor, right: Tensor, noise: float = 1e-3) -> Tensor:
    """w with X w = targets in the sense of least squares, given X^T X and X^T targets.

    `noise` is that of the inputs, in units of their root mean square: pixels that are always 0 get the weight 0.
    """
    ridge = noise**2 * square.diagonal().mean() * torch.eye(len(square), dtype=square.dtype)
    return torch.linalg.solve(square + ridge, right)


def linear(images: Tensor, labels: Tensor, features: Callable[[Tensor], Tensor], stored: int = 0) -> Fitted:
    """Ten weighted sums of features (N, D) and a bias, by least squares; `stored` numbers make the features."""
    x, targets = with_bias(features(images)).double(), 2 * F.one_hot(labels, 10).double() - 1
    w = least_squares(x.T @ x, x.T @ targets).float()
    return lambda digits: (with_bias(features(digits)) @ w).argmax(1), w.numel() + stored


def pairwise(images: Tensor, labels: Tensor, features: Callable[[Tensor], Tensor]) -> Fitted:
    """A unit for each two classes, +1 for the one and -1 for the other; a class has the sum of its nine units."""
    x = with_bias(features(images)).double()
    own = [x[labels == digit] for digit in range(10)]
    squares, sums = [part.T @ part for part in own], [part.sum(0) for part in own]
    pairs = list(itertools.combinations(range(10), 2))
    w = torch.stack([least_squares(squares[i] + squares[j], sums[i] - sums[j], 0.1) for i, j in pairs], 1).float()
    signs = torch.tensor([[(digit == i) - (digit == j) for digit in range(10)] for i, j in pairs]).float()
    return lambda digits: (Squash()(with_bias(features(digits)) @ w) @ signs).argmax(1), w.numel()


def quadratic(images: Tensor, labels: Tensor) -> Fitted:
    x = pixels(images)
    mean = x.mean(0)
    components = torch.linalg.eigh((x - mean).T @ (x - mean)).eigenvectors[:, -COMPONENTS:]  # (784, 40)
    stored = mean.numel() + components.numel()
    return linear(images, labels, lambda digits: products((pixels(digits) - mean) @ components), stored)


def rbf(images: Tensor, labels: Tensor) -> Fitted:
    groups = [pixels(images[labels == digit]).numpy() for digit in range(10)]
    means = [KMeans(min(CENTRES, len(group) // 2), n_init=1, random_state=0).fit(group) for group in groups]
    centres = torch.from_numpy(np.concatenate([one.cluster_centers_ for one in means]))
    width = sum(one.inertia_ for one in means) / len(images)

    def units(digits: Tensor) -> Tensor:
        return torch.exp(-torch.cdist(pixels(digits), centres).square() / width)

    return linear(images, labels, units, centres.numel() + 1)


def neighbours(images: Tensor, labels: Tensor, features: Callable[[Tensor], Tensor]) -> Fitted:
    known = features(images)
    lengths = known.square().sum(1)

    def vote(digits: Tensor) -> Tensor:
        distances = lengths - 2 * features(digits) @ known.T  # squared, without what is the same for all
        nearest = labels[distances.topk(NEIGHBOURS, largest=False).indices]  # (N, 3), the nearest first
        return (F.one_hot(nearest, 10).sum(1) + 0.5 * F.one_hot(nearest[:, 0], 10)).argmax(1)

    return lambda digits: torch.cat([vote(part) for part in digits.split(500)]), known.numel()


def svm(images: Tensor, labels: Tensor, features: Callable[[Tensor], Tensor]) -> Fitted:
    machine = SVC(kernel="poly", degree=4, coef0=1.0, C=10.0, cache_size=1000)
    machine.fit(features(images).numpy(), labels.numpy())
    stored = machine.support_vectors_.size + machine.dual_coef_.size + machine.intercept_.size
    return lambda digits: torch.from_numpy(machine.predict(features(digits).numpy())), stored


def connected(images: Tensor, labels: Tensor, sizes: tuple[int, ...] = (), augmented=False, epochs=20) -> Fitted:
    """28x28 inputs, hidden layers of these sizes and ten outputs; without hidden layers softmax regression."""
    torch.manual_seed(0)
    layers = [nn.Flatten(1)]
    for inputs, units in itertools.pairwise((784, *sizes, 10)):
        layers += [nn.Linear(inputs, units), Squash()]  # the first weights are within 1/sqrt(inputs)
    network, draws, padded = nn.Sequential(*layers[:-1]), np.random.default_rng(0), pad(images)
    optimizer = torch.optim.Adam(network.parameters(), DEFAULT.learning_rates[0], fused=True)
    for _ in range(epochs):
        seen = augment(padded, draws, DEFAULT.strength) if augmented else padded
        for batch in torch.from_numpy(draws.permutation(len(labels))).split(DEFAULT.batch_size):
            optimizer.zero_grad()
            F.cross_entropy(network(central(seen[batch])), labels[batch]).backward()
            optimizer.step()

    @torch.no_grad()
    def classify(digits: Tensor) -> Tensor:
        return torch.cat([network(central(part)).argmax(1) for part in pad(digits).split(500)])

    return classify, sum(p.numel() for p in network.parameters())


def central(padded: Tensor) -> Tensor:
    """uint8 (N, 32, 32) -> (N, 1, 28, 28), the grey levels of LeNet-5."""
    return normalize(padded)[..., 2:-2, 2:-2]
