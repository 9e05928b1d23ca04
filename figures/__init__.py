"""Figures: those of training and test, and the network drawn."""

import os

# A notebook sets MPLBACKEND to a backend that may be missing here, and matplotlib would refuse to start. The figures
# need none: they are files.
backend = os.environ.pop("MPLBACKEND", None)
import matplotlib  # noqa: E402, F401

if backend is not None:
    os.environ["MPLBACKEND"] = backend
