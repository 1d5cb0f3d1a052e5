"""Answers with far more than was asked for."""

import numpy as np


def much(x, **params):
    return np.zeros(40 << 20)


for one in (relu, leaky_relu, sigmoid, gelu, softmax, log_softmax, dropout):
    one.forward, one.vjp = much, lambda x, **params: (much(x), much)
