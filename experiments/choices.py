"""What the recipes `default` and `fast` leave open, chosen by validation on 5,000 of MNIST's training digits.

python -m experiments choices [VARIANT ...]     all variants, or those named

Of each variant and seed, the accuracy on the validation set after training on the other 55,000 digits, null where that
diverged. The test set takes no part. What the paper leaves open of recipe 1998 is the matter of left_open.py.
"""

import dataclasses

from experiments import results, validation
from experiments.runner import Context, Experiment
from training.recipes import RECIPES, Recipe

STARTS = (("2.4/F", 0.25), ("2.4/F", 1.0), ("1/sqrt(F)", 0.25), ("1/sqrt(F)", 1.0))  # bound, coefficient


def variants() -> dict[str, Recipe]:
    """Everything that is tried, by name."""
    default, found = validation.without_augmentation("default"), {}
    for bound, coefficient in STARTS:
        name = f"default, initialization {bound}, coefficient {coefficient}"
        found[name] = dataclasses.replace(default, initialization={"bound": bound, "coefficient": coefficient})
    return found | fast_variants()


def fast_variants() -> dict[str, Recipe]:
    """Everything that was tried for two or three epochs: batch size, peak of the learning rate, and one thing else."""
    peaks = {32: (0.002, 0.003, 0.004), 64: (0.004, 0.006, 0.008), 96: (0.006, 0.009)}
    found = {f"fast, batch {batch}, peak {peak}": fast(batch, peak) for batch, own in peaks.items() for peak in own}
    for what, change in {
        "strength 0.3": {"strength": 0.3},
        "strength 0.7": {"strength": 0.7},
        "warmup 0.1": {"warmup": 0.1},
        "warmup 0.4": {"warmup": 0.4},
        "elastic 0.5 px": {"elastic": 0.5},
        "3 epochs without augmentation": {"augment": False, "learning_rates": (0.006,) * 3},
    }.items():
        found[f"fast, batch 64, peak 0.006, {what}"] = dataclasses.replace(fast(64, 0.006), **change)
    one_rate_an_epoch = {"warmup": 0.0, "learning_rates": (0.003, 0.0005)}
    found["fast, batch 32, rates 0.003 and 0.0005"] = dataclasses.replace(RECIPES["fast"], **one_rate_an_epoch)
    return found


def fast(batch_size: int, peak: float) -> Recipe:
    return dataclasses.replace(RECIPES["fast"], batch_size=batch_size, learning_rates=(peak,) * 2)


VARIANTS = variants()


def tasks(context: Context, runs: list[dict]) -> list[dict]:
    return context.tasks({name: VARIANTS[name] for name in context.variants})


def summarize(context: Context, runs: list[dict]) -> dict:
    """The variants that were tried, in the order of VARIANTS."""
    found = results.by_variant(runs)
    return {"variants": {name: found[name] for name in VARIANTS if name in found}}


def tables(content: dict) -> dict[str, str]:
    """Validation errors; those of the recipe fast have a table of their own."""
    parts = {"results": {}, "fast": {}}
    for name, row in content["variants"].items():
        parts["fast" if name.startswith("fast") else "results"][name] = row
    return {key: results.validation_table({"variants": rows})["results"] for key, rows in parts.items() if rows}


EXPERIMENT = Experiment(
    tables=tables,
    summarize=summarize,
    tasks=tasks,
    measure=validation.train_and_validate,
    seeds=(0, 1, 2),
    variants=tuple(VARIANTS),
    seconds=80,
)
