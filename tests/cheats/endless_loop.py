"""Never answers."""


def forever(*args, **params):
    while True:
        pass


for one in (relu, leaky_relu, sigmoid, gelu, softmax, log_softmax):
    one.forward = one.vjp = forever
