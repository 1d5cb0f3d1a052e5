"""Takes no processor time, and never answers. (Right otherwise: it begins with the reference.)"""

# on: reference
import time


def sleepy(x, **params):
    time.sleep(600)
    return x


relu.forward = relu.vjp = relu_.forward = softmax.vjp = dropout.vjp = sleepy
