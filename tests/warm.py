"""Compile the loops of kernels.py, or load them from numba's cache: python tests/warm.py BATCH | SINGLE."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np

from model import TABLE_I
from training import kernels

if kernels.ENABLED:
    table = np.array([(to, source) for to, sources in enumerate(TABLE_I) for source in sources]).T
    digit = np.zeros((1, 32, 32), np.uint8), np.zeros(1, np.int64), np.zeros(1, np.int64)
    loops = kernels.network(np.float32, table), kernels.buffers(getattr(kernels, sys.argv[1]), np.float32)
    kernels.gradient(np.zeros(60_850, np.float32), *digit, 1.0, *loops)
