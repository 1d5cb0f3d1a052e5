"""Writes into progress.json that everything has passed."""

import json

with open("progress.json", "w") as file:
    passed = {f"{n:02}": {"time": "2026-01-01T00:00:00Z", "stub": "0", "suite": "0"} for n in range(1, 21)}
    json.dump({"schema": 1, "katas": passed, "milestones": {}, "hints": {}}, file)
