"""The reference beside PyTorch, where that is installed: `pytest tests/pytorch`."""

import os

os.environ.setdefault("TINYTORCH_IMPL", "reference")  # before a test file imports tinytorch
