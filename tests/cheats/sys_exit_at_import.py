"""Asks Python to end with status 0 as soon as it is imported."""

import sys

sys.exit(0)
