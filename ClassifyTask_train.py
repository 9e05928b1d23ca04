"""Train LeNet-5: a recipe in, a checkpoint out.

python ClassifyTask_train.py                  the recipe of today: Adam, 20 epochs, batches of 32
python ClassifyTask_train.py --recipe 1998    the network, loss and method as published
"""

import copy
import math
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

import utils
from fast import Gradient, flatten, supports
from model import LeNet5, map_loss, pad, scale
from optimizer import DiagonalLM, curvature
from utils import UserError

# All that a recipe decides; flags override epochs, batch_size and lr.
RECIPES = {
    "adam": {
        "network": {},  # keyword arguments of LeNet5
        "start": {"bound": "1/sqrt(F)", "coefficient": 1.0},  # keyword arguments of LeNet5.reset_parameters
        "j": None,  # of eq. 9; without it, the loss is cross-entropy
        "factor": None,  # on the sum of a batch's losses; None: one over the batch size, the mean
        "optimizer": "adam",
        "lr": [0.0005],  # of the first epochs, the last one from there on
        "batch_size": 32,
        "epochs": 20,
        "average": True,  # report the weights' running average, of time constant one epoch, beside the last weights
    },
    "1998": {
        "network": {"output": "rbf"},
        "start": {"bound": "1/sqrt(F)", "coefficient": 1.0},
        "j": 1.0,
        "factor": 0.05,  # on the losses' sum: without it, F6 saturates
        "optimizer": "diagonal-lm",
        "lr": [0.0005] * 2 + [0.0002] * 3 + [0.0001] * 3 + [0.00005] * 4 + [0.00001],
        "batch_size": 1,
        "epochs": 20,
        "average": False,
    },
}

THREADS = torch.get_num_threads()  # what the machine, or OMP_NUM_THREADS, allows
CURVATURE_PATTERNS = 500  # on which the curvature is estimated before each pass (appendix C)
DIVERGED = 1.5  # times the untrained network's loss: squashing keeps even a diverging loss finite
CHUNK = 25  # steps between two looks at the progress bar, and in one graph
GRAPHS = ("cuda",)  # the types of device whose work can be recorded as a graph


def main():
    parser = utils.Parser(description=__doc__.splitlines()[0])
    parser.add_argument("--dataset", choices=("auto", "mnist", "digits"), default="auto", help="auto: MNIST if any")
    parser.add_argument("--data-dir", type=Path, default=Path("data"), metavar="DIR", help="default: data")
    parser.add_argument("--record-dir", type=Path, metavar="DIR", help="where the checkpoint is written")
    parser.add_argument("--device", default="auto", help="cuda if there is one, else cpu; or any torch device")
    parser.add_argument("--recipe", choices=RECIPES, default="adam", help="of today, or as published")
    parser.add_argument("--epochs", type=utils.positive(int, most=5_000), metavar="N", help="default: the recipe's")
    parser.add_argument("--batch-size", type=utils.positive(int), metavar="N", help="default: the recipe's")
    parser.add_argument("--lr", type=utils.positive(float), metavar="X", help="the first epoch's learning rate")
    parser.add_argument("--seed", type=utils.seed, metavar="N", help="default: 0")
    parser.add_argument("--resume", action="store_true", help="go on from the checkpoint, if there is one")
    parser.add_argument("--plain", action="store_true", help="the readable path of model.py, not the fast one")
    args = parser.parse_args()

    device = utils.pick_device(args.device)
    dataset = utils.find_dataset(args.dataset, args.data_dir)
    path = (args.record_dir or utils.record_dir(args.recipe, dataset)) / "LeNet5.pt"
    with utils.sole_writer(path):
        train_to(path, args, dataset, device)


def train_to(path: Path, args, dataset: str, device: torch.device):
    """Train as the flags say, from the checkpoint at path on or from the start, and save each epoch's there."""
    checkpoint = utils.load_checkpoint(path) if args.resume and path.exists() else None
    run = {"recipe": choose_recipe(args, checkpoint), "dataset": dataset, "seed": args.seed or 0}
    if checkpoint:
        if args.seed is None:
            run["seed"] = checkpoint["seed"]
        for asked, found in ((run, checkpoint), (run["recipe"], checkpoint["recipe"])):
            for key in asked:
                if key != "recipe" and asked[key] != found.get(key):
                    what = "recipe" if key == "name" else key
                    raise UserError(
                        f"{path} was trained with {what} {found.get(key)}, not {asked[key]}; leave the flag out to go "
                        "on with it, or leave --resume out to start anew"
                    )
    epochs = run["recipe"]["epochs"]
    if checkpoint and checkpoint["epoch"] == epochs:
        print(f"{path} has finished its {epochs} epochs; nothing is left to do.")
        return

    train_set, test_set = (
        [tensor.to(device) for tensor in utils.load_dataset(dataset, args.data_dir, subset)]
        for subset in ("train", "test")
    )
    print(f"LeNet-5 on {dataset}, recipe {args.recipe}, seed {run['seed']}, device {device}")
    batches = math.ceil(len(train_set[1]) / run["recipe"]["batch_size"])
    done = checkpoint["epoch"] if checkpoint else 0
    with tqdm(total=epochs * batches, initial=done * batches, unit="step", disable=None) as bar:
        passes = train(run, train_set, test_set, checkpoint, args.plain, bar)
        for checkpoint in passes:
            utils.save_checkpoint(path, checkpoint)
            bar.write(epoch_line(checkpoint, batches))

    seconds = sum(epoch["seconds"] for epoch in checkpoint["history"])
    print(f"trained in {seconds:.0f} s; of the {len(test_set[1]):,} test digits are right:")
    if run["recipe"]["average"]:
        print(f"  {utils.accuracy(checkpoint, 'model', test_set):.2%} with the running average of the weights")
    print(f"  {utils.accuracy(checkpoint, 'last', test_set):.2%} with the weights of the last step")
    print(f"checkpoint: {path}; for the figures: python ClassifyTask_test.py --checkpoint {path}")


def epoch_line(checkpoint: dict, batches: int) -> str:
    """What the last epoch came to."""
    last, epochs = checkpoint["history"][-1], checkpoint["recipe"]["epochs"]
    step_range = "  effective steps {:.1e} to {:.1e}".format(*last["step_range"]) if "step_range" in last else ""
    return (
        f"epoch {last['epoch']:2}/{epochs}  train loss {last['train_loss']:.4f}, accuracy {last['train_accuracy']:.2%}"
        f"  test accuracy {last['test_accuracy']:.2%}"
        f"  {last['seconds']:.1f} s, {batches / last['seconds']:,.0f} steps/s{step_range}"
    )


def show_progress(bar: tqdm, epoch: int, steps: int, totals: Tensor, digits: int):
    """Move the bar on by some steps; with loss and accuracy over the epoch's digits so far, where looking is free."""
    bar.set_description(f"epoch {epoch}", refresh=False)
    if totals.device.type == "cpu":
        loss, right = (totals.sum(1) / digits).tolist()
        bar.set_postfix_str(f"loss {loss:.4f}, accuracy {right:.2%}", refresh=False)
    bar.update(steps)


def choose_recipe(args, checkpoint: dict | None) -> dict:
    """The recipe that --recipe names, with what the other flags, or else the checkpoint of --resume, override."""
    recipe = RECIPES[args.recipe]
    flags = {
        "epochs": args.epochs,
        "batch_size": args.batch_size,
        "lr": args.lr and [args.lr * (lr / recipe["lr"][0]) for lr in recipe["lr"]],
    }
    found = checkpoint["recipe"] if checkpoint else recipe
    chosen = {key: value or found[key] for key, value in flags.items()}
    return copy.deepcopy({"name": args.recipe, **recipe, **chosen})


def train(run: dict, train_set, test_set, checkpoint: dict | None = None, plain=False, bar=None) -> Iterator[dict]:
    """Train and yield a checkpoint after each epoch; from `checkpoint` on, bit for bit as if it had never stopped.

    run: recipe, dataset and seed. train_set, test_set: images uint8 (N, 28, 28) and labels int64 (N,), on the device.
    Raises UserError, and yields nothing, for an epoch that leaves weights that are not finite or has a loss above
    DIVERGED times that of the initial weights.
    """
    recipe, device = run["recipe"], train_set[0].device
    threads = 1 if recipe["batch_size"] == 1 else 2  # more cost more than they give, and one number suits all machines
    torch.set_num_threads(min(threads, THREADS))
    images, labels, test_images, test_labels = pad(train_set[0]), train_set[1], pad(test_set[0]), test_set[1]
    model = LeNet5(**recipe["network"])
    torch.manual_seed(run["seed"])
    model.reset_parameters(**recipe["start"])
    generator = torch.Generator()  # of the shuffles; on the CPU, so that a seed means the same on every device
    generator.set_state(torch.get_rng_state())
    model.to(device)
    weights = flatten(model)
    reported = copy.deepcopy(model) if recipe["average"] else model
    average = flatten(reported).data if recipe["average"] else None
    optimizer = make_optimizer(recipe, weights)
    untrained_loss = map_loss(utils.class_scores(model, images[:500]), labels[:500], recipe["j"]).mean()
    history = []
    if checkpoint:
        reported.load_state_dict(checkpoint["model"])
        model.load_state_dict(checkpoint["last"])
        fresh, state = optimizer.state_dict(), checkpoint["optimizer"]["state"][0]
        utils.require_like(state, fresh["state"][0], "the checkpoint's optimizer")
        optimizer.load_state_dict({**fresh, "state": {0: state}})
        generator.set_state(checkpoint["random_state"])
        history = list(checkpoint["history"])

    count, size = len(labels), min(recipe["batch_size"], len(labels))
    batches = math.ceil(count / size)
    sizes = {size, count % size} - {0}
    gradients = {size: make_gradient(recipe, model, weights, size, plain) for size in sizes}
    steps_taken = torch.full((), float(len(history) * batches), device=device)
    totals = torch.zeros(2, size, device=device)  # losses and correct answers, by place in the batch

    def step(chosen: Tensor):
        """One step, on the patterns with these numbers."""
        answers = labels.index_select(0, chosen)
        losses, scores = gradients[len(chosen)](images.index_select(0, chosen), answers)
        optimizer.step()
        if average is not None:  # of all steps in the first epoch, exponential from then on
            average.lerp_(weights.detach(), steps_taken.add_(1).clamp(max=batches).reciprocal())
        totals[0, : len(chosen)].add_(losses)
        totals[1, : len(chosen)].add_(scores.argmax(1) == answers)

    def eager(chunk: Tensor):
        for chosen in chunk:
            step(chosen)

    changed = [weights.data, weights.grad, steps_taken, totals, *optimizer.state[weights].values()]
    if average is not None:
        changed.append(average)
    run_chunk, rate = eager, None
    for epoch in range(len(history) + 1, recipe["epochs"] + 1):
        start = time.perf_counter()
        order = torch.randperm(count, generator=generator).to(device)
        order, rest = order.split([count - count % size, count % size])
        chunks = [*order.view(-1, size).split(CHUNK), *([rest.unsqueeze(0)] if len(rest) else [])]
        totals.zero_()
        seen = 0
        if rate != (rate := recipe["lr"][min(epoch, len(recipe["lr"])) - 1]):
            optimizer.param_groups[0]["lr"] = rate
            run_chunk = as_graph(eager, chunks[0], changed)
        if recipe["optimizer"] == "diagonal-lm":
            sample = scale(images[torch.randperm(count, generator=generator)[:CURVATURE_PATTERNS].to(device)])
            h = curvature(model, sample, recipe["factor"])
            optimizer.set_curvature([torch.cat([h_layer.flatten() for h_layer in h])])
        for chunk in chunks:
            (run_chunk if chunk.shape == chunks[0].shape else eager)(chunk)
            seen += chunk.numel()
            if bar is not None and not bar.disable:
                show_progress(bar, epoch, len(chunk), totals, seen)
        train_loss, train_accuracy = (totals.sum(1) / count).tolist()
        seconds = time.perf_counter() - start

        if not (train_loss < DIVERGED * untrained_loss and weights.isfinite().all()):
            raise UserError(
                f"the training diverged in epoch {epoch}: its loss is {train_loss:.4g}, that of the untrained network "
                f"{untrained_loss:.4g}; take a smaller --lr than {rate:g}. What was saved before is kept"
            )
        scores = utils.class_scores(reported, test_images)
        history.append(
            {
                "epoch": epoch,
                "train_loss": train_loss,
                "train_accuracy": train_accuracy,
                "test_loss": map_loss(scores, test_labels, recipe["j"]).mean().item(),
                "test_accuracy": int((scores.argmax(1) == test_labels).sum()) / len(test_labels),
                "seconds": seconds,
            }
        )
        if recipe["optimizer"] == "diagonal-lm":
            history[-1]["step_range"] = optimizer.effective_steps()
        yield {
            "format": utils.FORMAT,
            "arguments": recipe["network"],
            "model": copy_to_cpu(reported.state_dict()),
            "last": copy_to_cpu(model.state_dict()),
            "optimizer": copy_to_cpu(optimizer.state_dict()),
            "epoch": epoch,
            "random_state": generator.get_state(),
            "history": list(history),
            **run,
            "versions": utils.versions(),
        }


def make_optimizer(recipe: dict, weights: torch.nn.Parameter) -> torch.optim.Optimizer:
    """The recipe's optimizer, its state made."""
    if recipe["optimizer"] == "diagonal-lm":
        return DiagonalLM([weights], lr=recipe["lr"][0])
    kind = weights.device.type
    optimizer = torch.optim.Adam(
        [weights], lr=recipe["lr"][0], fused=kind in ("cpu", "cuda"), capturable=kind == "cuda"
    )
    warnings.filterwarnings("ignore", message=".*capturable=True.*")  # single steps, too, are meant to be taken
    optimizer.step()  # along a gradient of zero: it makes the state and moves nothing
    optimizer.state[weights]["step"].zero_()
    return optimizer


def make_gradient(recipe: dict, model: LeNet5, weights: torch.nn.Parameter, size: int, plain: bool):
    """The gradient of the recipe's loss, written out (fast.Gradient) or, as here, by automatic differentiation.

    A function of images uint8 (size, 32, 32) and labels (size,) that fills weights.grad and returns the losses (size,)
    and class scores (size, 10).
    """
    factor = recipe["factor"] or 1 / size
    if supports(model) and not plain and weights.device.type in ("cpu", "cuda"):
        return Gradient(model, size, factor, recipe["j"])

    def gradient(images: Tensor, labels: Tensor):
        weights.grad.zero_()
        scores = model(scale(images))
        losses = map_loss(scores, labels, recipe["j"])
        (factor * losses.sum()).backward()
        return losses.detach(), scores.detach()

    return gradient


def as_graph(steps: Callable[[Tensor], None], chunk: Tensor, changed: list[Tensor]) -> Callable[[Tensor], None]:
    """`steps` for chunks of this shape, recorded as one CUDA graph; off CUDA, or where recording fails, `steps` itself.

    Launching a step's hundred small kernels takes longer than running them; a graph launches them all at once.
    `changed` are the tensors that a step changes: what the warm-up, which CUDA asks for, does to them is undone.
    """
    if chunk.device.type not in GRAPHS:
        return steps
    static = chunk.clone()
    before = [tensor.clone() for tensor in changed]
    graph = torch.cuda.CUDAGraph()
    try:
        with torch.cuda.device(chunk.device):
            stream = torch.cuda.Stream()
            stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(stream):
                steps(static)
            torch.cuda.current_stream().wait_stream(stream)
            with torch.cuda.graph(graph, stream=stream):
                steps(static)
    except RuntimeError as error:
        print(f"no CUDA graph here ({str(error).splitlines()[0]}); going on step by step, slower", file=sys.stderr)
        return steps
    finally:
        for tensor, value in zip(changed, before):
            tensor.copy_(value)

    def replay(chunk: Tensor):
        static.copy_(chunk)
        with torch.cuda.device(chunk.device):
            graph.replay()

    return replay


def copy_to_cpu(value):
    """A state dictionary's tensors copied to the CPU, at any depth."""
    if isinstance(value, Tensor):
        return value.detach().cpu().clone()
    if isinstance(value, dict):
        return {key: copy_to_cpu(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(copy_to_cpu(item) for item in value)
    return value


if __name__ == "__main__":
    utils.run_script(main)
