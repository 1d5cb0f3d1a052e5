"""Leaves threads behind that write into every array they were given."""

import threading
import time

import numpy as np

KEPT = []


def meddle():
    while True:
        for array in list(KEPT):
            if array.flags.writeable:
                array[...] = 0
        time.sleep(0.001)


threading.Thread(target=meddle, daemon=True).start()


def zeros(x, **params):
    KEPT.append(x)
    return np.zeros(np.shape(x))


for one in (relu, leaky_relu, sigmoid, gelu, softmax, log_softmax):
    one.forward = zeros
