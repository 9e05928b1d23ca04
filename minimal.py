"""LeNet-5 on MNIST on one page: the network of model.py, Adam and one loop.

    $ python minimal.py
    epoch  1  test accuracy 97.66 %
    ...
    epoch 20  test accuracy 98.69 %

About five minutes on one core. `ClassifyTask_train.py --no-augment` takes the same steps eight times as fast, writes
checkpoints, and also averages the weights.
"""

import numpy as np
import torch
import torch.nn.functional as F

from digits import mnist
from model import LeNet5, normalize, pad
from utils import DATA, run_script


def train(images, labels, epochs):
    """Train on images uint8 (N, 28, 28) and labels int64 (N,); yields the network after each epoch."""
    torch.manual_seed(0)
    model = LeNet5()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.0005)
    for epoch in range(1, epochs + 1):
        order = np.random.default_rng([0, epoch, 0]).permutation(len(labels))  # as training/loop.py shuffles
        for batch in torch.from_numpy(order).split(32):
            logits = model(normalize(pad(images[batch])))  # (32, 10)
            loss = F.cross_entropy(logits, labels[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        yield model


@torch.no_grad()
def accuracy(model, images, labels):
    """The share of digits that the network classifies correctly."""
    return (model(normalize(pad(images))).argmax(1) == labels).float().mean().item()


def main():
    torch.set_num_threads(1)  # the network is too small for two threads to gain anything
    data = mnist.load(mnist.find_dataset("auto", DATA), DATA)
    for epoch, model in enumerate(train(*data.train, epochs=20), 1):
        print(f"epoch {epoch:2}  test accuracy {100 * accuracy(model, *data.test):.2f} %")


if __name__ == "__main__":
    run_script(main)  # an error, or Ctrl-C, is one line
