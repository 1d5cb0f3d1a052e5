"""Fails with words that are made to break reports: escapes, markup, formulas, megabytes."""


def shout(*args, **params):
    raise ValueError("=cmd()\x1b[2J<script>alert(1)</script>]]>\x00\ud800" + "x" * 1_000_000)


for one in (relu, leaky_relu, sigmoid, gelu, softmax, log_softmax):
    one.forward = one.vjp = shout
