"""Takes memory as long as it is let, up to a bound that keeps a machine without limits alive."""

HELD = []
while len(HELD) < 30:
    HELD.append(bytearray(b"x") * (100 << 20))
