"""Reading numbers: LeNet-5 swept over a line, and its training by CTC."""
