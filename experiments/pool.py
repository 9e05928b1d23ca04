"""The runs of an experiment, one by one or several at a time."""

import concurrent.futures
import multiprocessing
import signal
from collections.abc import Callable, Iterator
from concurrent.futures.process import BrokenProcessPool

import torch

from training import loop
from utils import UserError


def one_by_one(tasks: list[dict], work: Callable, jobs: int) -> Iterator:
    with loop.one_thread():
        for task in tasks:
            yield task, work(task)


def side_by_side(tasks: list[dict], work: Callable, jobs: int) -> Iterator:
    spawn = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(jobs, spawn, prepare_child) as pool:
        stop = signal.signal(signal.SIGINT, signal.SIG_IGN)  # so start the children: a stop is the parent's to tell
        futures = {pool.submit(work, task): task for task in tasks}
        signal.signal(signal.SIGINT, stop)
        try:
            for future in concurrent.futures.as_completed(futures):
                yield futures[future], future.result()
        except BaseException as error:  # an error, or a stop: the runs under way are given up
            for child in multiprocessing.active_children():
                child.kill()
            pool.shutdown(wait=False, cancel_futures=True)
            if isinstance(error, BrokenProcessPool):
                what = "the process of a run was killed, perhaps for want of memory"
                raise UserError(f"{what}; start again with fewer --jobs: what is finished is kept") from None
            raise


def prepare_child():
    """One thread; a stop is the parent's to tell."""
    torch.set_num_threads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
