"""LeNet-5 on MNIST on one page: python minimal.py

The network of model.py, Adam and one loop. ClassifyTask_train.py --no-distort takes the same steps, faster, keeps
what it does, and also averages the weights; this prints the accuracy of the last ones.
"""

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

import mnist
from model import LeNet5, pad, scale


def train(images, labels, epochs):
    """Train on images uint8 (N, 28, 28) and labels int64 (N,), and return the network."""
    torch.manual_seed(0)
    model = LeNet5()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.0005)
    for epoch in range(1, epochs + 1):
        order = np.random.default_rng([0, epoch, 0]).permutation(len(labels))
        for batch in torch.from_numpy(order).split(32):
            scores = model(scale(pad(images[batch])))  # (32, 10)
            loss = F.cross_entropy(scores, labels[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return model


@torch.no_grad()
def accuracy(model, images, labels):
    """The share of digits that the network reads correctly."""
    return (model(scale(pad(images))).argmax(1) == labels).float().mean().item()


if __name__ == "__main__":
    data = Path("data")
    name = mnist.find_dataset("auto", data)
    model = train(*mnist.load_dataset(name, data, "train"), epochs=20)
    print(f"{100 * accuracy(model, *mnist.load_dataset(name, data, 'test')):.2f} %")
