"""Every run of pytest in this repository goes through dojo.plugin."""

from dojo.threads import use_one_thread

use_one_thread()  # so that speed compares like with like

pytest_plugins = ["dojo.plugin"]
