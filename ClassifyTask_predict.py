"""Read digits in pictures of one's own: picture files in, digits out.

python ClassifyTask_predict.py seven.jpg             file, digit, probability, runner-up
python ClassifyTask_predict.py seven.jpg --csv       the same as comma-separated values
python ClassifyTask_predict.py seven.jpg --figure    and what every layer saw: Record/prediction-1.png

One digit a picture, on a plain ground: a scan, a photo, a drawing; dark on light, or light on dark.
"""

import csv
import sys
from pathlib import Path

import torch

import checkpoint
import diagrams
import utils
from model import pad, scale
from pictures import prepare, read_grey


def main() -> int:
    args = parse_arguments()
    device = utils.pick_device(args.device)
    folder = args.record_dir or (args.checkpoint.parent if args.checkpoint else utils.RECORD)
    model = checkpoint.network(checkpoint.load(args.checkpoint or folder / checkpoint.FILE)).to(device)
    rows = csv.writer(sys.stdout, lineterminator="\n")
    if args.csv:
        rows.writerow(["file", "digit", "probability", "runner_up"])
    status = 0
    for number, path in enumerate(args.pictures, 1):
        try:
            grey = read_grey(path)  # (H, W)
            image = prepare(grey)  # (28, 28)
        except ValueError as error:  # the other pictures are read all the same
            print(f"{Path(sys.argv[0]).name}: {printable(path)} {' '.join(str(error).split())}", file=sys.stderr)
            status = 2
            continue
        with torch.inference_mode():
            states = model.states(scale(pad(torch.from_numpy(image)[None].to(device))))
        probabilities = states["output"][0].softmax(0)  # (10,)
        digit, runner_up = probabilities.topk(2).indices.tolist()
        if args.csv:
            rows.writerow([path, digit, f"{probabilities[digit]:.4f}", runner_up])
        else:
            print(f"{printable(path)}: {digit}, probability {probabilities[digit]:.1%}, runner-up {runner_up}")
        if args.figure:
            with utils.whole_files(folder / f"prediction-{number}.png") as temporary:
                file = temporary / f"prediction-{number}.png"
                diagrams.layer_states(file, printable(Path(path.name)), grey, image, model, states)
    return status


def parse_arguments():
    parser = utils.Parser(description=__doc__.splitlines()[0])
    parser.add_argument("pictures", type=Path, nargs="+", metavar="PICTURE", help="a picture file with one digit in it")
    parser.add_argument("--csv", action="store_true", help="print file,digit,probability,runner_up")
    parser.add_argument("--figure", action="store_true", help="draw what each layer saw: prediction-1.png, -2.png, ...")
    where = f"default: {checkpoint.FILE} in the record folder"
    parser.add_argument("--checkpoint", type=Path, metavar="FILE", help=where)
    where = "of the figures and the checkpoint; default: the folder of FILE, or Record"
    parser.add_argument("--record-dir", type=Path, metavar="DIR", help=where)
    parser.add_argument("--device", default="auto", help="cuda if there is one, else cpu; or any torch device")
    return parser.parse_args()


def printable(path: Path) -> str:
    """A file's name for a line of text: without control characters."""
    return str(path) if str(path).isprintable() else ascii(str(path))


if __name__ == "__main__":
    utils.run_script(main)
