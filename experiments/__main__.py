"""python -m experiments NAME [options]"""

import sys

import utils
from experiments import runner

if __name__ == "__main__":
    sys.argv[0] = "python -m experiments"  # as messages name it
    utils.run_script(runner.main, "what was finished is on disk, and the same command goes on from there")
