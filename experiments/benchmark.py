"""How long a training step takes: the usual script, the same with the data set as one tensor, and this project.

python -m experiments.benchmark

All train the default LeNet5 by the default recipe (float32, Adam, batches of 32, each digit once an epoch). They run in
turn, round after round; a figure is the median over rounds, a ratio the median of the rounds' ratios. Also: where the
time of a step goes, what was tried instead, a whole run, start-up and memory. Nothing else should run on the machine
meanwhile. Writes Record/study/benchmark.json and benchmark.png.
"""

import platform
import statistics
import subprocess
import sys
import time
import unittest.mock
from pathlib import Path

import torch
import torch.nn.functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.data import DataLoader, Subset
from torchvision import datasets, transforms
from tqdm import tqdm

import ClassifyTask_train
import fast
import plots
import utils
from model import BACKGROUND, INK, LeNet5, layer_table, pad, scale
from utils import UserError

PATH = utils.RECORD / "study" / "benchmark.json"
DATA = Path("data")
ROUNDS = 7
DIGITS = 9600  # 300 steps
BATCH = 32
FARTHEST = 1e-3  # that the weights of the fast and the plain path may be apart, relative to their norm
RECIPE = {"name": "adam", **ClassifyTask_train.RECIPES["adam"]}


def new_model(device: torch.device) -> LeNet5:
    torch.manual_seed(0)
    return LeNet5().to(device)


def usual(device: torch.device) -> float:
    """Milliseconds a step of the script that tutorials teach: torchvision's MNIST with transforms, a DataLoader."""
    contrast = INK - BACKGROUND
    transform = transforms.Compose(
        [transforms.Pad(2), transforms.ToTensor(), transforms.Normalize((-BACKGROUND / contrast,), (1 / contrast,))]
    )
    dataset = Subset(datasets.MNIST(str(DATA), train=True, transform=transform), range(DIGITS))
    workers = {"num_workers": 1, "persistent_workers": True, "pin_memory": True} if device.type == "cuda" else {}
    loader = DataLoader(dataset, batch_size=BATCH, shuffle=True, **workers)
    model = new_model(device).train()
    optimizer = torch.optim.Adam(model.parameters(), lr=RECIPE["lr"][0])
    for _ in range(2):  # the second epoch is timed, as of this project
        start = time.perf_counter()
        for step, (images, labels) in enumerate(loader):
            images, labels = images.to(device), labels.to(device)
            optimizer.zero_grad()
            loss = F.cross_entropy(model(images), labels)
            loss.backward()
            optimizer.step()
            if step % 10 == 0:
                loss.item()
        loss.item()
    return 1000 * (time.perf_counter() - start) / len(loader)


def resident(device: torch.device) -> float:
    """Milliseconds a step of the same script with the data set as one tensor on the device, padded and scaled once."""
    images, labels = (tensor[:DIGITS].to(device) for tensor in utils.load_dataset("mnist", DATA, "train"))
    images = scale(pad(images))
    model = new_model(device).train()
    optimizer = torch.optim.Adam(model.parameters(), lr=RECIPE["lr"][0])
    for _ in range(2):
        start = time.perf_counter()
        for step, chosen in enumerate(torch.randperm(DIGITS, device=device).split(BATCH)):
            optimizer.zero_grad()
            loss = F.cross_entropy(model(images[chosen]), labels[chosen])
            loss.backward()
            optimizer.step()
            if step % 10 == 0:
                loss.item()
        loss.item()
    return 1000 * (time.perf_counter() - start) / (step + 1)


def project(device: torch.device, plain: bool = False, digits: int = DIGITS) -> float:
    """Milliseconds a step of ClassifyTask_train.py, as its history has them: the second epoch."""
    return 1000 * train(device, plain, digits=digits)["history"][-1]["seconds"] / (digits // BATCH)


def train(device: torch.device, plain: bool, recipe: dict = RECIPE, digits: int = DIGITS) -> dict:
    train_set = [tensor[:digits].to(device) for tensor in utils.load_dataset("mnist", DATA, "train")]
    test_set = [tensor[:100].to(device) for tensor in utils.load_dataset("mnist", DATA, "test")]
    run = {"recipe": {**recipe, "epochs": 2}, "dataset": "mnist", "seed": 0}
    return list(ClassifyTask_train.train(run, train_set, test_set, plain=plain))[-1]


def steps_1998() -> float:
    """Steps per second of the 1998 recipe on the CPU, one pattern a step."""
    recipe = {"name": "1998", **ClassifyTask_train.RECIPES["1998"]}
    epochs = [train(torch.device("cpu"), False, recipe)["history"] for _ in range(3)]
    return DIGITS / statistics.median(epoch["seconds"] for history in epochs for epoch in history)


VARIANTS = {
    "usual script": usual,
    "usual script, data set as one tensor": resident,
    "this project, --plain": lambda device: project(device, plain=True),
    "this project": project,
}


def cpu() -> str:
    """The model of the CPU, where Linux tells it."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    models = [line.split(": ")[1] for line in lines if line.startswith("model name")]
    return models[0] if models else platform.processor()


def set_threads(threads: int):
    """How many threads PyTorch, and the training script, may take."""
    ClassifyTask_train.THREADS = threads
    torch.set_num_threads(threads)


def measure(device: torch.device, threads: int) -> dict:
    """Run the variants in turn; medians, and the ratios of each to this project."""
    times = {name: [] for name in VARIANTS}
    for round_ in tqdm(range(ROUNDS + 1), desc=f"rounds on {device}, threads: {threads}", disable=None):
        for name, variant in VARIANTS.items():
            set_threads(threads)
            if device.type == "cuda":  # the usual script does not ask for them
                torch.use_deterministic_algorithms(name.startswith("this project"))
            milliseconds = variant(device)
            if round_:  # the first is the warm-up
                times[name].append(milliseconds)
    rows = {}
    for name, own in times.items():
        ratios = [other / this for other, this in zip(own, times["this project"])]
        rows[name] = {
            "milliseconds": statistics.median(own),
            "ratio": statistics.median(ratios),
            "ratio_range": [min(ratios), max(ratios)],
        }
    return rows


def whole_run(device: torch.device) -> float:
    """Seconds of all epochs of the recipe on MNIST, with the test after each."""
    sets = [[tensor.to(device) for tensor in utils.load_dataset("mnist", DATA, name)] for name in ("train", "test")]
    start = time.perf_counter()
    for _ in ClassifyTask_train.train({"recipe": RECIPE, "dataset": "mnist", "seed": 0}, *sets):
        pass
    return time.perf_counter() - start


def floor(device: torch.device) -> float:
    """Milliseconds that a step's arithmetic alone would take at the speed of a large matrix product."""
    connections = {name: row[2] for name, row in layer_table(LeNet5()).items()}
    # forward, gradient of the weights, gradient of the input (not for C1): a multiplication and an addition each
    operations = 2 * BATCH * (3 * sum(connections.values()) - connections["c1"])
    a, b = torch.rand(2, 2048, 2048, device=device)
    seconds = []
    for _ in range(5):
        start = time.perf_counter()
        fast.product(a, b).sum().item()
        seconds.append(time.perf_counter() - start)
    return 1000 * operations / (2 * 2048**3 / min(seconds))


def check(device: torch.device) -> float:
    """How far, relative to their norm, the weights of both paths are apart after 600 steps from the same start."""
    own, plain = (
        torch.cat([tensor.flatten() for tensor in train(device, plain)["last"].values()]) for plain in (False, True)
    )
    return ((own - plain).norm() / plain.norm()).item()


GROUPS = {
    "matrix products": ("_linear_pointwise", "mm", "addmm"),
    "squashing and its slope": ("tanh_", "sigmoid_", "tanh_backward"),
    "patches and batches copied": ("copy_", "index_select", "cat"),
    "additions and scaling": ("add_", "sub", "sub_", "mul", "mul_", "zero_"),
    "sums": ("sum", "argmax", "log_softmax"),
    "Adam and the running average": ("_fused_adam_", "_foreach_add_", "lerp_"),
}


class Profiler(TorchDispatchMode):
    """Adds up the seconds of each operation of PyTorch. (torch.profiler's own records change what is measured.)"""

    def __init__(self):
        super().__init__()
        self.seconds = {}

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        start = time.perf_counter()
        result = operation(*args, **(kwargs or {}))
        name = operation.overloadpacket.__name__
        self.seconds[name] = self.seconds.get(name, 0) + time.perf_counter() - start
        return result


def profile_step() -> dict[str, float]:
    """The share of each kind of operation in what a training step spends in PyTorch's operations, on the CPU."""
    profiler = Profiler()

    def profiled(steps, chunk, changed):
        def run(chunk):
            with profiler:
                steps(chunk)

        return run

    with unittest.mock.patch.object(ClassifyTask_train, "as_graph", profiled):
        train(torch.device("cpu"), plain=False)
    total = sum(profiler.seconds.values())
    shares = {group: sum(profiler.seconds.get(name, 0) for name in names) / total for group, names in GROUPS.items()}
    return {**shares, "the rest": 1 - sum(shares.values())}


def milliseconds(function, repeats: int = 200) -> float:
    """The least time of a call, in several series of calls."""
    series = []
    for _ in range(ROUNDS):
        start = time.perf_counter()
        for _ in range(repeats):
            function()
        series.append(1000 * (time.perf_counter() - start) / repeats)
    return min(series)


def alternatives() -> dict[str, float]:
    """What was tried instead, on the CPU: how many times as long it takes."""

    def squashing():
        a, b = torch.randn(2, 24, 196 * BATCH)
        return milliseconds(lambda: fast.tanh_(b.copy_(a))) - milliseconds(lambda: b.copy_(a))

    def products(rows, inputs, columns):
        w, x, e = torch.randn(rows, inputs), torch.randn(inputs, columns), torch.randn(rows, columns)
        return milliseconds(lambda: (fast.product(w, x), fast.product(x, e.T), fast.product(w.T, e)))

    tanh, c3, unit_by_unit = squashing(), products(64, 217, 25 * BATCH), products(16, 150, 100 * BATCH)
    with unittest.mock.patch.object(fast, "AMD", not fast.AMD):
        other_tanh, other_c3 = squashing(), products(64, 217, 25 * BATCH)
    return {
        "C1 squashed as on the other make of CPU": other_tanh / tanh,
        "C3's products as on the other make of CPU": other_c3 / c3,
        "C3 unit by unit, its products alone": unit_by_unit / c3,
    }


def by_set_size(sizes=(DIGITS, 60_000)) -> dict[int, float]:
    """Milliseconds a step by the number of digits in the training set."""
    rounds = [[project(torch.device("cpu"), digits=digits) for digits in sizes] for _ in range(ROUNDS)]
    return {digits: statistics.median(times) for digits, times in zip(sizes, zip(*rounds))}


IMPORT = "import time; start = time.perf_counter(); import torch, torchvision; seconds = time.perf_counter() - start\n"
FIRST_STEP = """
import sys, tempfile, time
start = time.perf_counter()
import ClassifyTask_train

def note_time(steps, chunk, changed):
    global seconds
    steps(chunk[:1])
    seconds = time.perf_counter() - start
    return steps

ClassifyTask_train.as_graph = note_time
with tempfile.TemporaryDirectory() as folder:
    sys.argv = ["", "--dataset", "mnist", "--device", "cpu", "--epochs", "1", "--record-dir", folder]
    ClassifyTask_train.main()
"""
REPORT = """
try:
    peak = next(line for line in open("/proc/self/status") if line.startswith("VmHWM")).split()[1]
except OSError:
    peak = "nan"  # not told here
print(seconds, peak)
"""


def child(code: str) -> tuple[float, float]:
    """Seconds, and peak memory in MiB, of a Python of its own."""
    result = subprocess.run([sys.executable, "-c", code + REPORT], capture_output=True, text=True, check=True)
    seconds, peak = map(float, result.stdout.split()[-2:])
    return seconds, peak / 1024


def whole_program() -> dict[str, float]:
    """Of ClassifyTask_train.py: seconds to the first step and MiB of memory, beside those of importing torch and
    torchvision alone; and seconds to classify the 10,000 test digits. All on the CPU."""
    imports, trainings = zip(*[(child(IMPORT), child(FIRST_STEP)) for _ in range(ROUNDS)])
    images, model, evaluations = pad(utils.load_dataset("mnist", DATA, "test")[0]), LeNet5(), []
    for _ in range(ROUNDS):
        start = time.perf_counter()
        utils.class_scores(model, images)
        evaluations.append(time.perf_counter() - start)
    return {
        "import_seconds": statistics.median(seconds for seconds, _ in imports),
        "first_step_seconds": statistics.median(seconds for seconds, _ in trainings),
        "import_mib": statistics.median(mib for _, mib in imports),
        "training_mib": statistics.median(mib for _, mib in trainings),
        "evaluation_seconds": statistics.median(evaluations),
    }


@plots.style()
def draw(path: Path, devices: dict):
    """Milliseconds a step of each variant, a panel a device, the floor as a line."""
    figure = plots.new_figure(
        "How long a training step takes",
        f"medians of {ROUNDS} interleaved rounds; batch 32, float32; dotted: the floor, its arithmetic alone",
        1 + 2 * len(devices),
    )
    panels = figure.subplots(len(devices), 1, squeeze=False)[:, 0]
    for axes, (device, result) in zip(panels, devices.items()):
        names = list(result["variants"])[::-1]
        times = [result["variants"][name]["milliseconds"] for name in names]
        colours = [plots.VERMILLION if name == "this project" else plots.BLUE for name in names]
        axes.barh(names, times, color=colours, height=0.6)
        for row, (name, milliseconds) in enumerate(zip(names, times)):
            ratio = result["variants"][name]["ratio"]
            text = f"{milliseconds:.2f} ms" + (f"  ({ratio:.1f} times as long)" if ratio != 1 else "")
            axes.annotate(text, (milliseconds, row), (4, 0), textcoords="offset points", va="center")
        axes.axvline(result["floor"], color=plots.INK, linestyle=":")
        axes.set(title=f"{result['machine']}, {device}", xlabel="milliseconds a step", xlim=(0, 1.55 * max(times)))
        axes.grid(axis="y", visible=False)
    plots.save(figure, path)


def main():
    utils.find_dataset("mnist", DATA)
    result = {"command": "python -m experiments.benchmark", "rounds": ROUNDS, "devices": {}}
    most = min(2, ClassifyTask_train.THREADS)  # that the training script takes
    settings = [("cpu", threads) for threads in sorted({1, most})] + [("cuda", most)] * torch.cuda.is_available()
    for name, threads in settings:
        device = utils.pick_device(name)
        set_threads(threads)
        distance = check(device)
        if not distance < FARTHEST:
            raise UserError(f"after 600 steps the weights of both paths are {distance:.1e} apart; nothing was written")
        result["devices"][f"{name}, threads: {threads}"] = {
            "machine": torch.cuda.get_device_name() if name == "cuda" else cpu(),
            "variants": measure(device, threads),
            "floor": floor(device),
            "run_seconds": whole_run(device),
            "distance_after_600_steps": distance,
        }
    set_threads(most)
    result["program"] = {"threads": most, **whole_program()}
    set_threads(1)
    result["profile"] = profile_step()
    result["alternatives"] = alternatives()
    result["milliseconds_by_set_size"] = by_set_size()
    result["steps_per_second_1998"] = steps_1998()
    result["versions"] = {**utils.versions(), "system": f"{platform.system()} {platform.machine()}"}
    utils.save_json(PATH, result)
    draw(PATH.with_suffix(".png"), result["devices"])
    for name, device in result["devices"].items():
        print(f"{name}: {device['machine']}, floor {device['floor']:.2f} ms a step")
        print(f"  weights of both paths after 600 steps: {device['distance_after_600_steps']:.1e} apart")
        for variant, row in device["variants"].items():
            low, high = row["ratio_range"]
            print(f"  {variant:38} {row['milliseconds']:7.2f} ms  {row['ratio']:5.2f} ({low:.2f} to {high:.2f})")
    print(f"written: {PATH} and {PATH.with_suffix('.png').name}")


if __name__ == "__main__":
    utils.run_script(main)
