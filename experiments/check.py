"""Does today's code still give what a file holds? python -m experiments NAME --check

Repeats the shortest run of the file. If it gives the same, to the last digit, the file's digests become those of
today's code, and --list calls it up to date. On another processor the last digits may differ.
"""

import json

from experiments import runner
from experiments.runner import Experiment, Study
from training import provenance
from utils import UserError, shown


def check(experiment: Experiment, study: Study):
    """Raises UserError if there is no run to repeat, or if it gives something else now."""
    tasks = json.loads(json.dumps(experiment.tasks(study.context, study.runs)))
    pairs = [(task, run) for task in tasks for run in study.runs if task.items() <= run.items()]
    if not pairs:
        raise UserError(f"{shown(study.path)} holds no run to repeat; leave --check out")
    task, kept = min(pairs, key=lambda pair: pair[1].get("seconds", 0))
    named = ", ".join(f"{key} {value}" for key, value in task.items() if not isinstance(value, dict | list))
    print(f"repeating the shortest run: {named}", flush=True)
    result, modules = runner.measured(study.context, task)
    again = untimed(json.loads(json.dumps({**task, **result})))
    changed = [key for key, value in untimed(kept).items() if again.get(key) != value]
    if changed:
        raise UserError(f"{shown(study.path)}: today's code gives another {', '.join(changed)} for {named}")
    study.modules = modules
    provenance.save_json(study.path, study.content())
    print("it gives the same")


def untimed(value):
    """Without seconds, which are never the same."""
    if isinstance(value, dict):
        return {key: untimed(part) for key, part in value.items() if "seconds" not in key}
    return [untimed(part) for part in value] if isinstance(value, list) else value
