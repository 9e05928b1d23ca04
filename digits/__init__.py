"""Digits: the data sets, their augmentation, lines of digits, and image files in MNIST's form."""
