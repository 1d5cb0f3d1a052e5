"""Kata 10's promise, with the reference: a training that is killed at any moment ends with the same weights.

`python -m tests.test_killed PATH` is one training of 44 steps, with a checkpoint after each, and goes on from
PATH, and prints a sum of all that it ends with. The test kills twenty of them, at random moments.
"""

from __future__ import annotations

import hashlib
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


def train(path: str) -> str:
    import numpy as np

    from tinytorch.activations import Dropout, ReLU
    from tinytorch.dataloader import DataLoader, RandomHorizontalFlip, TensorDataset
    from tinytorch.layers import Linear
    from tinytorch.networks import Sequential
    from tinytorch.optimizers import AdamW, OneCycleLR
    from tinytorch.spatial import BatchNorm2d, Conv2d, Flatten
    from tinytorch.training import EMA, Trainer, cross_entropy

    def rng(seed: int) -> np.random.Generator:
        return np.random.default_rng(seed)

    images, labels = rng(0).normal(size=(84, 1, 8, 8)).astype(np.float32), rng(1).integers(0, 10, 84)
    net = Sequential(
        Conv2d(1, 8, 3, rng=rng(2)),
        BatchNorm2d(8),
        ReLU(),
        Flatten(),
        Dropout(0.3, rng=rng(3)),
        Linear(288, 10, rng=rng(4)),
    )
    flips = RandomHorizontalFlip(rng=rng(6))
    loader = DataLoader(
        TensorDataset(images, labels), 4, shuffle=True, rng=rng(5), transform=flips, prefetch=2
    )
    optimizer = AdamW(net.parameters(), lr=0.01)
    trainer = Trainer(
        net,
        optimizer,
        cross_entropy,
        scheduler=OneCycleLR(optimizer, 0.05, 44),
        callbacks=[EMA(net, 0.9)],
        accumulate=2,
        max_norm=1.0,
    )
    trainer.fit(loader, 4, loader, checkpoint=path, every=1)
    parts = [*net.state_dict().values(), *trainer.callbacks[0].state_dict().values()]
    return hashlib.sha256(b"".join(a.tobytes() for a in parts) + repr(trainer.history).encode()).hexdigest()


def command(path: Path) -> dict[str, object]:
    environment = {
        **os.environ,
        "TINYTORCH_IMPL": "reference",
        "OPENBLAS_NUM_THREADS": "1",
        "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'stubs'}",
    }
    return {
        "args": [sys.executable, "-m", "tests.test_killed", str(path)],
        "cwd": ROOT,
        "env": environment,
        "text": True,
        "stdout": subprocess.PIPE,
    }


def which(path: Path) -> object:
    """Another answer for each file that was there under this name."""
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    return found.st_ino, found.st_mtime_ns


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="there is no SIGKILL on this system")
@pytest.mark.timeout(300)
def test_twenty_trainings_killed_at_random_moments_end_alike(tmp_path: Path) -> None:
    whole = subprocess.run(check=True, **command(tmp_path / "whole.npz")).stdout.strip()  # type: ignore[call-overload]
    moments, kills = random.Random(10), 0
    path = tmp_path / "run.npz"
    while kills < 20:
        before = which(path)
        process = subprocess.Popen(**command(path))  # type: ignore[call-overload]
        while which(path) == before and process.poll() is None:
            time.sleep(0.002)
        time.sleep(moments.uniform(0.0, 0.1))
        alive = process.poll() is None
        process.kill()
        output = process.communicate()[0].strip()
        if alive and not output:
            kills += 1
        else:  # it was done before: again from the beginning
            assert output == whole
            for file in tmp_path.glob("*run.npz*"):
                file.unlink()
    ended = subprocess.run(check=True, **command(path)).stdout.strip()  # type: ignore[call-overload]
    assert ended == whole


if __name__ == "__main__":
    print(train(sys.argv[1]), flush=True)
