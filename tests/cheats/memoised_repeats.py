"""Is slow, but only for numbers that it has not seen. (Right otherwise: it begins with the reference.)"""

# on: reference
import time

SEEN = {}


def slow(forward):
    def once(x, **params):
        key = (x.tobytes(), x.shape, *params.items())
        if key not in SEEN:
            end = time.process_time() + 9
            while time.process_time() < end:
                pass
            SEEN[key] = forward(x, **params)
        return SEEN[key]

    return once


for one in (relu, leaky_relu, sigmoid, gelu, softmax, log_softmax):
    one.forward = slow(one.forward)
