"""The reference beside PyTorch and beside naive versions: `python -m benchmarks.NAME`."""

from dojo.threads import use_one_thread

use_one_thread()  # like PyTorch here
