"""The experiments: `python -m experiments NAME` makes what the figures and tables of the docs show."""

import sys

NAMES = (
    "seeds", "ladder", "ladder_seconds", "best_choice", "committee", "choices", "augmentation", "codes", "passes",
    "set_size", "errors", "robustness", "left_open", "left_open_tested", "paper_curve", "paper_errors",
    "paper_augmentation", "section_3", "section_7", "rejection", "writers", "comparison", "elsewhere", "numbers",
    "numbers_choice", "writing_choice", "preparation", "rendered", "handwriting", "exercises", "benchmark",
    "profile", "speedrun", "cuda",
)  # fmt: skip
RENAMED = {"distortions": "augmentation", "own_pictures": "rendered", "study": "--list", "runner": "--list"}


def refuse_old_form(words: list[str]):
    """Exit with one line if Python was started as `python -m experiments.NAME`, which would do nothing."""
    given = words[words.index("-m") + 1 :][:1] if "-m" in words else []
    if given and given[0].startswith("experiments.") and given[0] != "experiments.__main__":
        name = given[0].split(".")[1]
        new = f"python -m experiments {RENAMED.get(name, name)}"
        print(f"python -m {given[0]} is started as {new} now; {new} --help lists the options", file=sys.stderr)
        sys.exit(2)


refuse_old_form(sys.orig_argv)
