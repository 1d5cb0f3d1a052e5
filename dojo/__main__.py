"""`python -m dojo` is the same as `dojo`."""

import sys

from dojo.cli import main

sys.exit(main())
