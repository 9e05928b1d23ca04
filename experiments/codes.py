"""The codes of the RBF units, drawn: the paper's figure 3 in this project's hand.

python -m experiments.codes                            Record/study/codes.png and codes.json
"""

import torch

import plots
import utils
from model import digit_codes

PATH = utils.RECORD / "study" / "codes.png"


@plots.style()
def main():
    utils.Parser(description=__doc__.splitlines()[0]).parse_args()
    codes = digit_codes()
    distances = (codes.unsqueeze(1) != codes).sum(2)  # (10, 10) pixels that differ
    least = int(distances[~torch.eye(10, dtype=torch.bool)].min())
    utils.save_json(
        PATH.with_suffix(".json"), {"command": "python -m experiments.codes", "distances": distances.tolist()}
    )
    subtitle = f"7 x 12 pixels, ink +1 and background -1; any two differ in at least {least} of the 84"
    figure = plots.new_figure("The target codes of the ten output units", subtitle, height=2.3)
    for digit, (axes, code) in enumerate(zip(figure.subplots(1, 10), codes.view(10, 12, 7))):
        axes.imshow(-code, cmap="gray", vmin=-1, vmax=1)
        axes.set(title=digit, xticks=[], yticks=[])
        axes.grid(visible=False)
        for spine in axes.spines.values():
            spine.set_visible(True)
    plots.save(figure, PATH)
    print(f"written: {PATH}")


if __name__ == "__main__":
    utils.run_script(main)
