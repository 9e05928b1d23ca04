"""The other networks of the paper's section III, trained by its method: LeNet-1, LeNet-4 and boosted LeNet-4.

As recipe 1998: stochastic diagonal Levenberg-Marquardt, 20 passes, the curvature estimated before each. But they learn
in batches of 32, by autograd: the loss is a factor times the sum over the batch, not its mean, so that a pass moves the
weights as far as single digits would. The factor is chosen on 5,000 training digits held out for validation.

The paper describes these networks in a few sentences. What they leave open is assumed:

- Ten linear outputs and cross-entropy. Initial weights as LeNet-5's.
- LeNet-1: MNIST's digit at 16/20 of its size, centred in 28x28. The twelve maps of C3 read one or two of the four
  maps before them. The authors' network of 1990 has 2,578 parameters and 98,442 connections, which means 20 kernels.
- LeNet-4: 4 maps, 8 subsampling maps (a pair for each), 16 maps, 16 subsampling maps, 120 units. The paper has the
  units fully connected, but that alone takes 48,120 parameters, and the whole network has about 17,000, with 260,000
  connections. Here C3 has 60 kernels, as LeNet-5's, and a unit reads four or five maps: 16,998 and 258,306.
- Boosted LeNet-4: all digits are augmented, at the strength of recipe 1998. The first network learns on the training
  set augmented anew in each pass. Of 600,000 augmented digits, as many as the paper had, those that it misclassifies
  and as many others are the second one's set; of 600,000 more, those on which the two disagree are the third one's.
  For each of them a pass is 60,000 digits. The logits of the three are added.
"""

import statistics
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import utils
from digits.augmentation import augment, warp
from digits.mnist import Digits
from experiments import results, runner
from experiments.runner import Context, Experiment
from model import LeNet5, Squash, Subsampling, TableConvolution, normalize, pad
from training.optimizer import RULES, DiagonalLM, propagate_back, weighted_sum
from training.recipes import RECIPES
from training.state import CURVATURE_PATTERNS
from utils import UserError, shown

TITLES = {"lenet-1": "LeNet-1", "lenet-4": "LeNet-4", "boosted-lenet-4": "boosted LeNet-4"}
PAPER = {"lenet-1": 1.7, "lenet-4": 1.1, "boosted-lenet-4": 0.7}  # test error, %
FACTORS = (0.1, 0.2, 0.5, 1.0)  # what is tried, from seed 0
BATCH, ROUNDS = 32, 10  # digits a step; how often the training set is augmented to find the next network's digits
RECIPE = RECIPES["1998"]


# ---------------------------------------------------------------------------------------------- the networks


class Pairs(nn.Module):
    """Each map twice: (N, C, H, W) -> (N, 2C, H, W)."""

    def forward(self, maps: Tensor) -> Tensor:
        return maps.repeat_interleave(2, 1)


class SparseConvolution(TableConvolution):
    """TableConvolution for many maps, where the product that places the kernels would take most of the time."""

    def forward(self, maps: Tensor) -> Tensor:
        kernels = self.weight.new_zeros(self.shape).index_put(tuple(self.connections), self.weight)
        return F.conv2d(maps, kernels, self.bias)


# An output of Pairs, of a crop or of a flattening is one input times 1.
RULES.update(dict.fromkeys((Pairs, SparseConvolution, nn.ZeroPad2d, nn.Flatten), weighted_sum))

# The maps that each map of C3 reads, and that each of LeNet-4's 120 units reads.
LENET_1 = (
    (0,), (0, 1), (0, 1), (1,), (0, 1), (0, 1),
    (2,), (2, 3), (2, 3), (3,), (2, 3), (2, 3),
)  # fmt: skip
LENET_4 = (
    (0, 1, 2, 3), (1, 2, 3, 4), (2, 3, 4, 5), (3, 4, 5, 6), (4, 5, 6, 7), (0, 5, 6, 7), (0, 1, 6, 7), (0, 1, 2, 7),
    (0, 2, 4, 5), (1, 3, 5), (2, 4, 6, 7), (3, 5, 7), (0, 1, 4, 6), (1, 5, 7), (0, 2, 3, 6), (1, 3, 7),
)  # fmt: skip
UNITS = tuple(
    tuple(sorted((i + (1 + 2 * (i // 16 % 4)) * k) % 16 for k in range(5 if i % 3 else 4))) for i in range(120)
)


def build(variant: str) -> nn.Sequential:
    """A network with its initial weights: (N, 1, 32, 32) -> logits (N, 10)."""
    if variant == "lenet-1":
        first = [nn.ZeroPad2d(-2), nn.Conv2d(1, 4, 5), Squash(), Subsampling(4, Squash())]  # (N, 4, 12, 12)
        third = [TableConvolution(4, LENET_1), Squash(), Subsampling(12, Squash())]  # (N, 12, 4, 4)
        last = [nn.Conv2d(12, 10, 4)]
    else:
        first = [nn.Conv2d(1, 4, 5), Squash(), Pairs(), Subsampling(8, Squash())]  # (N, 8, 14, 14)
        third = [TableConvolution(8, LENET_4), Squash(), Subsampling(16, Squash())]  # (N, 16, 5, 5)
        last = [SparseConvolution(16, UNITS), Squash(), nn.Conv2d(120, 10, 1)]
    network = nn.Sequential(*first, *third, *last, nn.Flatten())
    LeNet5.reset_parameters(network)  # which asks a network for its layers only
    return network


def prepared(variant: str, images: Tensor) -> Tensor:
    """Digits as the input layer has them: uint8 (N, 28, 28) -> uint8 (N, 32, 32)."""
    images = pad(images)
    if variant != "lenet-1":
        return images
    smaller = torch.tensor([[20 / 16, 0, 0], [0, 20 / 16, 0]])
    return torch.cat([warp(part, smaller.expand(len(part), 2, 3)) for part in images.split(500)])


# ---------------------------------------------------------------------------------------------- the training


def train(variant: str, digits: Digits, size: int, rates: list[float], factor: float, draws, strength=0.0):
    """A network trained on digits, uint8 (N, 32, 32) and labels, `size` of them a pass, augmented with this strength.

    `draws` is numpy's generator; it gives the order of the digits, the 500 for the curvature, and the augmentation.
    """
    network, (images, labels) = build(variant), digits
    optimizer = DiagonalLM(network.parameters(), rates[0])

    def curvature(logits: Tensor) -> Tensor:
        p = logits.softmax(1)
        return factor * p * (1 - p)

    for rate in rates:
        seen = augment(images, draws, strength) if strength else images
        optimizer.param_groups[0]["lr"] = rate
        chosen = torch.from_numpy(draws.permutation(len(labels))[:CURVATURE_PATTERNS])
        optimizer.set_curvature(propagate_back(list(network), normalize(seen[chosen]), curvature))
        orders = [draws.permutation(len(labels)) for _ in range(0, size, len(labels))]
        for batch in torch.from_numpy(np.concatenate(orders)[:size]).split(BATCH):
            logits = network(normalize(seen[batch]))
            optimizer.zero_grad()
            (factor * F.cross_entropy(logits, labels[batch], reduction="sum")).backward()
            optimizer.step()
    return network


def boost(digits: Digits, rates: list[float], factor: float, draws) -> tuple[list[nn.Sequential], list[int]]:
    """The three networks of boosted LeNet-4, and the number of digits in the set of each."""
    size = len(digits[1])
    networks, sizes = [train("lenet-4", digits, size, rates, factor, draws, RECIPE.strength)], [size]
    while len(networks) < 3:
        found = []
        for _ in range(ROUNDS):
            images, labels = augment(digits[0], draws, RECIPE.strength), digits[1]
            first, *second = (utils.class_logits(network, images).argmax(1) for network in networks)
            chosen = (first != (second[0] if second else labels)).nonzero().flatten()
            if not second:  # half of its digits are to be right ones
                right = (first == labels).nonzero().flatten()
                chosen = torch.cat([chosen, right[draws.permutation(len(right))[: len(chosen)]]])
            found.append((images[chosen], labels[chosen]))
        images, labels = map(torch.cat, zip(*found))
        networks.append(train("lenet-4", (images, labels), size, rates, factor, draws))
        sizes.append(len(labels))
    return networks, sizes


# ---------------------------------------------------------------------------------------------- the experiment


def tasks(context: Context, runs: list[dict]) -> list[dict]:
    """All factors without the validation set; then the best of them on all digits."""
    found = [
        {"variant": f"{network}, factor {factor}", "network": network, "factor": factor, "seed": 0}
        for network in ("lenet-1", "lenet-4")
        for factor in FACTORS[: 2 if context.tiny else None]
    ]
    if len([run for run in runs if run["variant"] not in TITLES]) < len(found):
        return found
    best = best_factors(runs)
    return found + [
        {"variant": name, "network": name, "factor": best[name], "seed": seed}
        for seed in context.seeds
        for name in TITLES
    ]


def best_factors(runs: list[dict]) -> dict[str, float]:
    """Of each network the factor with the least validation error; boosted LeNet-4 has LeNet-4's."""
    best = {}
    for network, own in results.group([run for run in runs if run["variant"] not in TITLES], "network").items():
        factors = results.group(own, "factor")
        best[network] = max(factors, key=lambda f: statistics.mean(run["accuracy"] for run in factors[f]))
    return best | ({"boosted-lenet-4": best["lenet-4"]} if "lenet-4" in best else {})


def measure(context: Context, task: dict) -> dict:
    """Train, and test on the validation set; or, on all digits, on the test set, whose logits are kept."""
    network, whole, start = task["network"], task["variant"] in TITLES, time.perf_counter()
    data = context.load() if whole else context.validation()
    torch.manual_seed(task["seed"])
    draws, rates = np.random.default_rng(task["seed"]), list(context.shorten(RECIPE).learning_rates)
    digits = prepared(network, data.train[0]), data.train[1]
    if network == "boosted-lenet-4":
        networks, sizes = boost(digits, rates, task["factor"], draws)
    else:
        networks, sizes = [train(network, digits, len(digits[1]), rates, task["factor"], draws)], [len(digits[1])]
    seconds, images, labels = time.perf_counter() - start, prepared(network, data.test[0]), data.test[1]
    logits = [utils.class_logits(each, images) for each in networks]
    if whole:
        path = logits_file(context, network, task["seed"])
        with utils.whole_files(path) as folder:
            np.save(folder / path.name, sum(logits).numpy())
    accuracy, *members = (int((each.argmax(1) == labels).sum()) / len(labels) for each in (sum(logits), *logits))
    parameters = sum(p.numel() for each in networks for p in each.parameters())
    return {"accuracy": accuracy, "members": members, "sizes": sizes, "parameters": parameters, "seconds": seconds}


def summarize(context: Context, runs: list[dict]) -> dict:
    """The factors chosen; of each variant errors, parameters, seconds."""
    found = results.by_variant(runs)
    for name, own in results.group(runs).items():
        found[name] |= {key: statistics.mean(run[key] for run in own) for key in ("parameters", "seconds")}
    return {"factors": best_factors(runs), "variants": found}


def tables(content: dict) -> dict[str, str]:
    """Errors in %, beside the paper's; what the choice tried; the networks of boosted LeNet-4, seed by seed."""
    header = ["network", "seeds", "test error, %", "the paper's", "parameters", "the paper's, thousand", "seconds"]
    rows, choice = [], []
    for name, row in content["variants"].items():
        cells = [row["seeds"], results.error(row)]
        if name in TITLES:
            cells += [PAPER[name], f"{row['parameters']:,.0f}", results.PAPER["figure 12"][TITLES[name]]]
            rows.append([TITLES[name], *cells, f"{row['seconds']:.0f}"])
        else:
            choice.append([name, *cells])
    members = [
        [run["seed"], *(f"{100 - 100 * a:.2f} ({size:,})" for a, size in zip(run["members"], run["sizes"]))]
        for run in results.group(content["runs"]).get("boosted-lenet-4", [])
    ]
    return {
        "results": results.markdown(header, rows),
        "choice": results.markdown(["network and factor", "seeds", "validation error, %"], choice),
        "members": results.markdown(["seed: test error, % (digits of the set)", "first", "second", "third"], members),
    }


EXPERIMENT = Experiment(
    tables=tables,
    summarize=summarize,
    tasks=tasks,
    measure=measure,
    facts=lambda context: {"recipe": context.shorten(RECIPE).to_json()},
    seeds=(0, 1, 2),
    seconds=250,
)


# ------------------------------------------------------------------------------------- for those that read its runs


def logits_file(context: Context, variant: str, seed: int) -> Path:
    """Where the logits of the test digits are kept, (N, 10) float32."""
    return runner.folder(tiny=context.tiny) / "networks" / f"{variant}-{seed}.npy"


def logits(context: Context, variant: str, seed: int) -> Tensor:
    """The logits of a run, (N, 10); trained now if they are not there, with the factor that was chosen."""
    path, own = logits_file(context, variant, seed), context.folder / "section_3.json"
    if not path.exists():
        known = own if own.exists() or context.tiny else runner.folder(reference=True) / own.name
        factor = best_factors(runner.read(known)["runs"])[variant]
        measure(context, {"variant": variant, "network": variant, "factor": factor, "seed": seed})
    try:
        return torch.from_numpy(np.load(path))
    except (ValueError, EOFError):
        raise UserError(f"{shown(path)} is damaged; delete it, and it is made again") from None
