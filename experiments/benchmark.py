"""How long a training step takes: the usual script, faster ways to write it, and this repository.

All train the default LeNet5 by the default recipe without augmentation (float32, Adam, batches of 32, each digit once
an epoch), on one thread. They run in turn, round after round; a figure is the median over rounds, a ratio the median of
the rounds' ratios. Also: the floor, a pass of the 1998 recipe with its curvature, a whole run, start-up and memory.
Nothing else should run on the machine meanwhile.
"""

import dataclasses
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
import torch.nn.functional as F
from threadpoolctl import threadpool_limits  # comes with scikit-learn
from torch.utils.data import DataLoader, Subset
from torchvision import datasets, transforms
from tqdm import tqdm

import utils
from digits import mnist
from digits.mnist import Data
from experiments import results, runner
from figures import plots
from model import BACKGROUND, INK, LeNet5, layer_table, normalize, pad
from training import loop, provenance, steps
from training.compiled import compiled
from training.recipes import RECIPES, Recipe
from training.state import State
from utils import UserError

DIGITS = 9600  # 300 steps
BATCH = 32
DEFAULT = dataclasses.replace(RECIPES["default"], augment=False)


def main(name: str, words: list[str]):
    options = runner.parser(name).share("--data-dir")
    options.add_argument("--rounds", type=utils.positive(int, 100), default=7, metavar="N", help="default: 7")
    args = options.parse_args(words)
    mnist.find_dataset("mnist", args.data_dir)
    path, data = runner.folder(args.reference) / f"{name}.json", mnist.load("mnist", args.data_dir)
    print(f"{args.rounds} rounds and whole runs: about a quarter of an hour")
    torch.set_num_threads(1)
    result = {"command": f"python -m experiments {name}", "rounds": args.rounds, "threads": 1}
    result["versions"] = {**provenance.versions(), "system": f"{platform.system()} {platform.machine()}"}
    result["devices"] = {
        "cpu": {"machine": cpu(), **measure(utils.pick_device("cpu"), data, args.data_dir, args.rounds)}
    }
    result["program"] = whole_program(result["devices"]["cpu"]["floor"], data, args.data_dir)
    provenance.save_json(path, result)  # so that a failure on CUDA does not lose it
    if torch.cuda.is_available():
        device = utils.pick_device("cuda")
        result["devices"]["cuda"] = {
            "machine": torch.cuda.get_device_name(),
            **measure(device, data, args.data_dir, args.rounds),
        }
        provenance.save_json(path, result)
    draw(path.with_suffix(".png"), result["devices"], args.rounds)
    runner.report(name, tables(result), path, beside_reference=not args.reference)


# ---------------------------------------------------------------------------------------------- the variants
# Each takes a device and returns a function that trains two epochs and returns the second one's milliseconds a step.


def new_model(device: torch.device) -> LeNet5:
    torch.manual_seed(0)
    return LeNet5().to(device).train()


def usual_batches(device: torch.device, data_dir: Path, digits: int):
    """Batches as tutorials make them: torchvision's MNIST with transforms, a DataLoader."""
    contrast = INK - BACKGROUND
    transform = transforms.Compose(
        [transforms.Pad(2), transforms.ToTensor(), transforms.Normalize((-BACKGROUND / contrast,), (1 / contrast,))]
    )
    dataset = Subset(datasets.MNIST(str(data_dir), train=True, transform=transform), range(digits))
    workers = {"num_workers": 1, "persistent_workers": True, "pin_memory": True} if device.type == "cuda" else {}
    loader = DataLoader(dataset, batch_size=BATCH, shuffle=True, **workers)

    def batches():
        for images, labels in loader:
            yield images.to(device), labels.to(device)

    return batches


def usual(device: torch.device, data_dir: Path):
    """The script that tutorials teach, with torch.optim.Adam."""
    batches = usual_batches(device, data_dir, DIGITS)

    def run() -> float:
        model = new_model(device)
        return second_epoch(model, torch.optim.Adam(model.parameters(), DEFAULT.learning_rates[0]), batches)

    return run


def resident(device: torch.device, data: Data, compiled: bool = False):
    """The same script with the data set as one tensor on the device, padded and normalized once, and fused Adam."""
    images, labels = (tensor[:DIGITS].to(device) for tensor in data.train)
    images = normalize(pad(images))
    model = new_model(device)
    network = torch.compile(model) if compiled else model

    def batches():
        for chosen in torch.randperm(DIGITS, device=device).split(BATCH):
            yield images[chosen], labels[chosen]

    def run() -> float:
        optimizer = torch.optim.Adam(model.parameters(), DEFAULT.learning_rates[0], fused=True)
        return second_epoch(network, optimizer, batches)

    return run


def one_epoch(model, optimizer: torch.optim.Optimizer, batches) -> float:
    """Train for an epoch by the textbook loop; milliseconds a step."""
    start = time.perf_counter()
    for step, (images, labels) in enumerate(batches()):
        optimizer.zero_grad()
        loss = F.cross_entropy(model(images), labels)
        loss.backward()
        optimizer.step()
        if step % 10 == 0:
            loss.item()
    loss.item()
    return 1000 * (time.perf_counter() - start) / (step + 1)


def second_epoch(model, optimizer: torch.optim.Optimizer, batches) -> float:
    one_epoch(model, optimizer, batches)
    return one_epoch(model, optimizer, batches)


def project(device: torch.device, data: Data, make_steps=loop.fastest, recipe: Recipe = DEFAULT, digits: int = DIGITS):
    """ClassifyTask_train.py's steps, as its history has them."""
    train, test = ([t[:count].to(device) for t in part] for part, count in ((data.train, digits), (data.test, 100)))
    path = "plain" if make_steps is steps.plain else "cuda_graph" if device.type == "cuda" else "compiled"
    recipe = recipe.override(epochs=2)

    def run() -> float:
        *_, trained = loop.train(recipe, Data("mnist", train, test), 0, make_steps=make_steps)
        if trained.history[-1]["path"] != path:
            raise UserError(f"the steps were {trained.history[-1]['path']}, not {path}; nothing was written")
        return 1000 * trained.history[-1]["seconds"] / (digits // recipe.batch_size)

    return run


def variants(device: torch.device, data: Data, data_dir: Path) -> dict:
    found = {"usual script": usual(device, data_dir), "data set as one tensor, fused Adam": resident(device, data)}
    if any(map(shutil.which, ("g++", "clang++", "cl"))):  # which torch.compile needs
        found["the same with torch.compile"] = resident(device, data, compiled=True)
    found["this repository, --plain"] = project(device, data, steps.plain)
    found["this repository"] = project(device, data)
    if device.type == "cpu":
        found["this repository, recipe 1998"] = project(device, data, recipe=RECIPES["1998"], digits=60_000)
    return found


# ---------------------------------------------------------------------------------------------- measuring


def measure(device: torch.device, data: Data, data_dir: Path, rounds: int) -> dict:
    """Run the variants in turn: medians, and the ratios of each to this repository; and the floor."""
    runs = variants(device, data, data_dir)
    times = {name: [] for name in runs}
    for round_ in tqdm(range(rounds + 1), desc=f"rounds on {device}", disable=None):
        for name, run in runs.items():
            if device.type == "cuda":  # the usual script asks for neither
                torch.use_deterministic_algorithms(name.startswith("this repository"))
                torch.backends.cudnn.allow_tf32 = not name.startswith("this repository")
            milliseconds = run()
            if round_:  # the first is the warm-up
                times[name].append(milliseconds)
    rows = {}
    for name, own in times.items():
        ratios = [other / this for other, this in zip(own, times["this repository"])]
        rows[name] = {
            "milliseconds": statistics.median(own),
            "ratio": statistics.median(ratios),
            "ratio_range": [min(ratios), max(ratios)],
        }
    found = {"variants": rows, "floor": floor(device)}
    if "this repository, recipe 1998" in times:
        pairs = zip(times["usual script"], times["this repository, recipe 1998"])
        found["steps_per_second_1998"] = 1000 / rows["this repository, recipe 1998"]["milliseconds"]
        found["steps_1998_a_usual_step"] = statistics.median(usual / own for usual, own in pairs)
    return found


@threadpool_limits.wrap(limits=1)  # numpy's products have threads of their own
def floor(device: torch.device) -> float:
    """Milliseconds that a step's arithmetic alone would take at the speed of the fastest of several large products."""
    connections = {name: row[2] for name, row in layer_table(LeNet5()).items()}
    # forward, gradient of the weights, gradient of the input (not for C1): a multiplication and an addition each
    operations = 2 * BATCH * (3 * sum(connections.values()) - connections["c1"])
    fastest = 0
    for size in (512, 1024, 2048, 4096 if device.type == "cuda" else 1536):
        a, b = torch.rand(2, size, size, device=device)
        products = {"torch.mm": lambda a=a, b=b: torch.mm(a, b), "linear": lambda a=a, b=b: F.linear(a, b)}
        if device.type == "cpu":
            x, y = a.numpy(), b.numpy()
            products["numpy"] = lambda x=x, y=y: x @ y
        for product in products.values():
            for _ in range(8):
                start = time.perf_counter()
                float(product()[0, 0])
                fastest = max(fastest, 2 * size**3 / (time.perf_counter() - start))
    return 1000 * operations / fastest


def cpu() -> str:
    """The model of the CPU, where Linux tells it."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    models = [line.split(": ")[1] for line in lines if line.startswith("model name")]
    widest = torch.backends.cpu.get_cpu_capability()
    return f"{models[0] if models else platform.processor()} ({widest})"


# ---------------------------------------------------------------------------------------------- whole programs

IMPORT = "import time; start = time.perf_counter(); import torch, torchvision; seconds = time.perf_counter() - start\n"
FIRST_STEP = """
import sys, tempfile, time
start = time.perf_counter()
import ClassifyTask_train
from training import loop

fastest = loop.fastest
class Enough(Exception):
    pass

def noted(state, recipe):
    steps = fastest(state, recipe)
    def first(order):
        global seconds
        steps.run(order[:1])
        seconds = time.perf_counter() - start
        raise Enough
    return steps._replace(run=first)

loop.fastest = noted
with tempfile.TemporaryDirectory() as folder:
    sys.argv = ["", "--dataset", "mnist", "--device", "cpu", "--record-dir", folder, "--recipe", "RECIPE"]
    try:
        ClassifyTask_train.main()
    except Enough:
        pass
"""
ONE_EPOCH = """
import sys, tempfile, time
start = time.perf_counter()
import ClassifyTask_train
with tempfile.TemporaryDirectory() as folder:
    sys.argv = ["", "--dataset", "mnist", "--device", "cpu", "--epochs", "1", "--record-dir", folder]
    ClassifyTask_train.main()
seconds = time.perf_counter() - start
"""
REPORT = """
try:
    peak = next(line for line in open("/proc/self/status") if line.startswith("VmHWM")).split()[1]
except OSError:
    peak = "nan"  # not told here
print(seconds, peak)
"""


def child(code: str, **environment) -> tuple[float, float]:
    """Seconds, and peak memory in MiB, of a Python of its own."""
    result = subprocess.run(
        [sys.executable, "-c", code + REPORT],
        capture_output=True, text=True, check=True, cwd=utils.ROOT, env={**os.environ, **environment}
    )  # fmt: skip
    seconds, peak = map(float, result.stdout.split()[-2:])
    return seconds, peak / 1024


def evaluation_seconds(data: Data) -> dict[str, float]:
    """Seconds to classify the 10,000 test digits, as after each epoch and by model.py."""
    state = State(DEFAULT, 0, data.train)
    found = {}
    for made in compiled(state, DEFAULT), steps.plain(state, DEFAULT):
        seconds = []
        for _ in range(8):
            start = time.perf_counter()
            made.evaluate(data.test)
            seconds.append(time.perf_counter() - start)
        found[made.path] = statistics.median(seconds[1:])
    return found


def whole_program(floor_milliseconds: float, data: Data, data_dir: Path) -> dict:
    """Of ClassifyTask_train.py on the CPU: seconds to the first step, with and without compiling, and of a whole run;
    MiB of memory, beside those of importing torch and torchvision alone."""
    flags = ["--data-dir", str(data_dir.resolve())]
    first, one_epoch = (code.replace('"--dataset"', f'*{flags}, "--dataset"') for code in (FIRST_STEP, ONE_EPOCH))
    first = {name: first.replace("RECIPE", name) for name in ("default", "1998")}
    compiling = {}
    for name, code in first.items():
        with tempfile.TemporaryDirectory() as cache:
            cold, warm = (child(code, NUMBA_CACHE_DIR=cache)[0] for _ in range(2))
        compiling[name] = cold - warm
    imports, starts, epochs = zip(*[(child(IMPORT), child(first["default"]), child(one_epoch)) for _ in range(3)])
    with tempfile.TemporaryDirectory() as folder:
        flags += ["--no-augment", "--dataset", "mnist", "--record-dir", folder]
        start = time.perf_counter()
        script = str(utils.ROOT / "ClassifyTask_train.py")
        subprocess.run([sys.executable, script, *flags], check=True, capture_output=True)
        run_seconds = time.perf_counter() - start
    count = DEFAULT.epochs * 60_000 // BATCH
    return {
        "compile_seconds": compiling,
        "import_seconds": statistics.median(seconds for seconds, _ in imports),
        "first_step_seconds": statistics.median(seconds for seconds, _ in starts),
        "import_mib": statistics.median(mib for _, mib in imports),
        "training_mib": statistics.median(mib for _, mib in epochs),
        "run_seconds": run_seconds,
        "run_floors": 1000 * run_seconds / (count * floor_milliseconds),
        "evaluation_seconds": evaluation_seconds(data),
    }


@plots.style()
def draw(path: Path, devices: dict, rounds: int):
    """Milliseconds a step of each variant, a panel a device, the floor as a line."""
    figure = plots.new_figure(
        "How long a training step takes",
        f"medians of {rounds} interleaved rounds; batches of 32, one thread; dotted: the floor",
        1 + 2.5 * len(devices),
    )
    panels = figure.subplots(len(devices), 1, squeeze=False)[:, 0]
    for axes, (device, result) in zip(panels, devices.items()):
        names = [name for name in result["variants"] if "1998" not in name][::-1]
        times = [result["variants"][name]["milliseconds"] for name in names]
        colours = [plots.HUES["default"] if name == "this repository" else plots.GREY for name in names]
        axes.barh(names, times, color=colours, height=0.6)
        for row, (name, milliseconds) in enumerate(zip(names, times)):
            ratio = result["variants"][name]["ratio"]
            text = f"{milliseconds:.2f} ms" + (f", {ratio:.1f} times as long" if ratio != 1 else "")
            axes.annotate(text, (milliseconds, row), (4, 0), textcoords="offset points", va="center")
        axes.axvline(result["floor"], color=plots.INK, linestyle=":")
        axes.set(title=f"{result['machine']}, {device}", xlabel="milliseconds a step", xlim=(0, 2 * max(times)))
        axes.grid(axis="y", visible=False)
    plots.save(figure, path)


def tables(content: dict) -> dict[str, str]:
    rows = []
    for device, found in content["devices"].items():
        for variant, row in found["variants"].items():
            low, high = row["ratio_range"]
            ratio = f"{row['ratio']:.2f} ({low:.2f} to {high:.2f})"
            rows.append([f"{variant}, {device}", f"{row['milliseconds']:.3f}", ratio])
        rows.append([f"the floor, {device}", f"{found['floor']:.4f}", ""])
    program = content["program"]
    amounts = {f"compiling, recipe {name}, s": seconds for name, seconds in program["compile_seconds"].items()}
    amounts |= {
        "import of torch and torchvision, s": program["import_seconds"],
        "start to the first step, s": program["first_step_seconds"],
        "the same import, MiB": program["import_mib"],
        "training, MiB": program["training_mib"],
        "whole run, s": program["run_seconds"],
        "whole run, floors": program["run_floors"],
    }
    amounts |= {f"test after an epoch, {path}, s": seconds for path, seconds in program["evaluation_seconds"].items()}
    cells = [[what, f"{amount:.2f}"] for what, amount in amounts.items()]
    return {
        "steps": results.markdown(["a step of 32 digits", "milliseconds", "times this repository"], rows),
        "program": results.markdown(["ClassifyTask_train.py", "measured"], cells),
    }
