"""What the tables of all experiments are made of: means and deviations over seeds, and Markdown."""

import json
import statistics
from pathlib import Path

# What the paper's figures show, read from its drawings: errors and shares in %.
PAPER = json.loads(Path(__file__).with_name("paper.json").read_text(encoding="utf-8"))


def beside(here: str, there: str) -> str:
    """A table in Markdown with the cells of another one behind its own, where both have the row and the column."""
    own, other = ([line.strip("|").split("|") for line in table.splitlines()] for table in (here, there))
    labels = max(1, next((i for i, cell in enumerate(own[1]) if cell.endswith(":")), len(own[1])))
    heads = [[(head, row[:i].count(head)) for i, head in enumerate(row)] for row in (own[0], other[0])]  # some recur
    known = {(*row[:labels], head): cell.strip() for row in other[2:] for head, cell in zip(heads[1], row)}
    for row in own[2:]:
        for column in range(labels, len(row)):
            if cell := known.get((*row[:labels], heads[0][column])):
                row[column] = f" {row[column].strip()} [{cell}] "
    return "\n".join(f"|{'|'.join(row)}|" for row in own)


def markdown(header: list, rows: list[list], labels: int = 1) -> str:
    """A table; all but the first columns, the labels, have numbers."""
    head, *lines = (f"| {' | '.join(map(str, cells))} |" for cells in (header, *rows))
    return "\n".join([head, "|---" * labels + "|---:" * (len(header) - labels) + "|", *lines])


def error(row: dict, prefix: str = "") -> str:
    """What mean_and_deviation gives, as an error: mean ± deviation in %."""
    return f"{100 - 100 * row[f'{prefix}mean']:.2f} ± {100 * row[f'{prefix}deviation']:.2f}"


def mean_and_deviation(runs: list[dict]) -> dict[str, float]:
    """mean and deviation of the runs' accuracy, last_mean and last_deviation of their last_accuracy, and so on.

    The deviation is the sample's, 0 for a single run. Runs whose accuracy is None (the training diverged) are left out.
    """
    found = {}
    for key in dict.fromkeys(key for run in runs for key in run if key.endswith("accuracy")):
        values = [run[key] for run in runs if run.get(key) is not None]
        if values:
            prefix = key.removesuffix("accuracy")
            found[f"{prefix}mean"] = statistics.mean(values)
            found[f"{prefix}deviation"] = statistics.stdev(values) if len(values) > 1 else 0.0
    return found


def group(runs: list[dict], key: str = "variant") -> dict[str, list[dict]]:
    """The runs of each variant, in the order of their seeds."""
    found = {}
    for run in sorted(runs, key=lambda run: run.get("seed", 0)):
        found.setdefault(run[key], []).append(run)
    return {name: found[name] for name in dict.fromkeys(run[key] for run in runs)}


def by_variant(runs: list[dict]) -> dict[str, dict]:
    """Of each variant the seeds, how many of them diverged, and mean and deviation of the others."""
    return {
        name: {"seeds": len(own), "diverged": sum(run["accuracy"] is None for run in own), **mean_and_deviation(own)}
        for name, own in group(runs).items()
    }


def validation_table(content: dict) -> dict[str, str]:
    """What by_variant gives, of a validation set."""
    rows = []
    for name, row in content["variants"].items():
        errors = [error(row, prefix) if f"{prefix}mean" in row else "" for prefix in ("", "last_")]
        if row["diverged"]:
            errors = [f"{row['diverged']} of {row['seeds']} diverged", ""]
        rows.append([name, row["seeds"], *errors])
    return {"results": markdown(["variant", "seeds", "validation error, %", "last weights, %"], rows)}
