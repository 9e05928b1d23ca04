"""A training's state after an epoch, in one safetensors file, written whole and examined before it is used.

The tensors of the network that is tested have the names of its state_dict(), so that any reader of safetensors finds
them. What only resuming needs is named training.last.PARAMETER and training.KIND.PARAMETER. The metadata hold `format`,
"pt" as the ecosystem expects, and `lenet5`, a JSON object with everything else. Its `digest` covers all tensors and the
rest of the object: a single flipped bit, in a weight or in the text, is noticed.
"""

import hashlib
import json
import math
from dataclasses import dataclass
from pathlib import Path

import safetensors.torch
import torch
from torch import Tensor

from model import LeNet5
from training.recipes import Recipe
from utils import UserError, shown, whole_files

FILE = "LeNet5.safetensors"
FORMAT = 3
LARGEST = 2**23  # bytes of a file; a finished run's has about 1 MB
LARGEST_WEIGHT = 1e5
KINDS = {"adam": ("exp_avg", "exp_avg_sq"), "diagonal-lm": ("curvature", "rate")}  # what each optimizer keeps

Tensors = dict[str, Tensor]  # by the names of the network's parameters


@dataclass(frozen=True)
class Checkpoint:
    """A run after its last finished epoch: all that testing and resuming need. Tensors are float32, on the CPU."""

    recipe: Recipe
    dataset: str  # "mnist" or "digits"
    seed: int
    history: list[dict]  # a row for each epoch
    tested: Tensors  # the moving average (EMA) of the weights where the recipe keeps one, else the last weights
    last: Tensors  # the weights after the last step
    optimizer: dict[str, Tensors]  # by kind, as KINDS has them
    versions: dict[str, str]

    @property
    def epoch(self) -> int:
        return len(self.history)

    @property
    def finished(self) -> bool:
        return self.epoch == self.recipe.epochs


def network(checkpoint: Checkpoint, last: bool = False) -> LeNet5:
    """The checkpoint's network, on the CPU: the one that is tested, or that with the weights of the last step."""
    model = LeNet5(**checkpoint.recipe.model_arguments)
    model.load_state_dict(checkpoint.last if last else checkpoint.tested)
    return model.eval()


def load_network(path: Path) -> LeNet5:
    """The trained network of a checkpoint's file, on the CPU. Raises UserError as `load` does."""
    return network(load(Path(path)))


def save(path: Path, checkpoint: Checkpoint):
    """Write a checkpoint so that at every moment the file at path is whole: the old one or the new one."""
    tensors = {
        f"{prefix}{name}": tensor.clone()  # the format refuses tensors that share memory
        for prefix, named in groups(checkpoint).items()
        for name, tensor in named.items()
    }
    content = {
        "format": FORMAT,
        "model_arguments": checkpoint.recipe.model_arguments,
        "recipe": checkpoint.recipe.to_json(),
        "dataset": checkpoint.dataset,
        "seed": checkpoint.seed,
        "epoch": checkpoint.epoch,
        "history": checkpoint.history,
        "versions": checkpoint.versions,
    }
    content["digest"] = digest(tensors, content)
    metadata = {"format": "pt", "lenet5": canonical(content)}
    with whole_files(path) as folder:
        (folder / path.name).write_bytes(safetensors.torch.save(tensors, metadata))


ADVICE = "name another with --checkpoint, or train with ClassifyTask_train.py"


def load(path: Path, advice: str = ADVICE) -> Checkpoint:
    """Read a checkpoint that `save` wrote; raises UserError if the file is anything else, damaged or contradictory.

    `advice` is what its message ends with.
    """
    if not path.is_file():
        raise UserError(f"no checkpoint at {shown(path)}; {advice}")
    with open(path, "rb") as file:
        file_content = file.read(LARGEST + 1)
    if file_content[:2] in (b"PK", b"\x80\x02"):  # a zip archive, or a bare pickle
        raise UserError(f"{shown(path)} is a pickle, as older versions wrote, which is never read; train again")
    try:
        if len(file_content) > LARGEST:
            raise ValueError("it is too large")
        return parse(file_content)
    except OldFormat as error:
        raise UserError(
            f"{shown(path)} has format {error}, of an older version; format {FORMAT} is read now: train again"
        ) from None
    except Exception as error:  # whatever a damaged file makes json and safetensors raise
        reason = f"no {error}" if isinstance(error, KeyError) else str(error) or type(error).__name__
        raise UserError(f"{shown(path)} is no checkpoint of this project, or damaged ({reason}); {advice}") from None


class OldFormat(Exception):
    """A whole checkpoint of an older version."""


def parse(file_content: bytes) -> Checkpoint:
    """The checkpoint in a file's content; raises an exception unless everything in it is as `save` wrote it."""
    end = 8 + int.from_bytes(file_content[:8], "little")
    try:
        metadata = json.loads(file_content[8:end])["__metadata__"]
    except (ValueError, RecursionError):
        raise ValueError("it is no safetensors file") from None
    content = json.loads(metadata["lenet5"])
    tensors = safetensors.torch.load(file_content)
    rest = {key: value for key, value in content.items() if key != "digest"}
    if metadata != {"format": "pt", "lenet5": canonical(content)} or content["digest"] != digest(tensors, rest):
        raise ValueError("its digest is another")
    if content["format"] in range(1, FORMAT):
        raise OldFormat(content["format"])
    if content["format"] != FORMAT:
        raise ValueError(f"its format is {content['format']!r}, not {FORMAT}"[:200])
    recipe = Recipe.from_json(content["recipe"])
    fields = {key: content[key] for key in ("dataset", "seed", "history", "versions")}
    shapes = {name: tensor.shape for name, tensor in LeNet5(**recipe.model_arguments).state_dict().items()}

    def take(prefix: str) -> Tensors:
        return {name: tensors.pop(f"{prefix}{name}") for name in shapes}

    optimizer = {kind: take(f"training.{kind}.") for kind in KINDS[recipe.optimizer]}
    checkpoint = Checkpoint(recipe, **fields, tested=take(""), last=take("training.last."), optimizer=optimizer)
    check(checkpoint, content, shapes)
    if tensors:
        raise ValueError(f"it holds {', '.join(tensors)}")
    return checkpoint


def check(checkpoint: Checkpoint, content: dict, shapes: dict[str, torch.Size]):
    """Raise ValueError unless the parts of a checkpoint agree with each other and hold possible numbers only."""
    history = checkpoint.history
    shares = [row[f"{subset}_accuracy"] for row in history for subset in ("train", "test")]
    amounts = [row[what] for row in history for what in ("train_loss", "test_loss", "seconds")]
    for what, right in {
        "model_arguments": content["model_arguments"] == checkpoint.recipe.model_arguments,
        "dataset": checkpoint.dataset in ("mnist", "digits"),
        "seed": isinstance(checkpoint.seed, int) and 0 <= checkpoint.seed < 2**32,
        "epoch": content["epoch"] == len(history) and 0 < len(history) <= checkpoint.recipe.epochs,
        "history": [row["epoch"] for row in history] == list(range(1, len(history) + 1))
        and all(0 <= share <= 1 for share in shares) and all(0 <= amount < 1e9 for amount in amounts),
        "versions": all(isinstance(version, str) for version in checkpoint.versions.values()),
    }.items():  # fmt: skip
        if not right:
            raise ValueError(f"its {what} cannot be {content[what]!r}"[:200])
    for prefix, named in groups(checkpoint).items():
        most = LARGEST_WEIGHT if prefix in ("", "training.last.") else math.inf
        for name, tensor in named.items():
            if tensor.dtype != torch.float32 or tensor.shape != shapes[name]:
                raise ValueError(f"{prefix}{name} has another type or shape than its network")
            if not (tensor.abs() < most).all():
                raise ValueError(f"{prefix}{name} holds numbers that are not finite, or far too large")


def groups(checkpoint: Checkpoint) -> dict[str, Tensors]:
    """All tensors, by what their names in the file start with."""
    kinds = {f"training.{kind}.": tensors for kind, tensors in checkpoint.optimizer.items()}
    return {"": checkpoint.tested, "training.last.": checkpoint.last, **kinds}


def canonical(content: dict) -> str:
    """JSON as it is written in one way only."""
    return json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False)


def digest(tensors: Tensors, content: dict) -> str:
    """SHA-256 over the tensors in the order of their names, with types and shapes, then over the text."""
    sha = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        sha.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        sha.update(tensor.numpy().astype(tensor.numpy().dtype.newbyteorder("<"), copy=False).tobytes())
    sha.update(canonical(content).encode())
    return sha.hexdigest()
