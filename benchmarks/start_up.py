"""What it costs to begin: processor seconds and peak memory of whole processes.

`couette --help`, `import couette`, one picture from a saved model, beside importing torch and
diffusers. Processes run in turn; the medians are given.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys

from benchmarks.networks import scratch
from benchmarks.timing import report

ROUNDS = int(os.environ.get("ROUNDS", "5"))


_LAUNCH = """
import os, sys
quiet = (os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0)
pid = os.posix_spawn(sys.argv[1], sys.argv[1:], os.environ, file_actions=[quiet])
_, status, used = os.wait4(pid, 0)
print(used.ru_utime + used.ru_stime, used.ru_maxrss / 1024)
sys.exit(os.waitstatus_to_exitcode(status))
"""


def spent(command: list[str]) -> tuple[float, float]:
    """Processor seconds, and MB of peak resident memory, of one process.

    It is begun by a small one: a process's peak begins at that of the one which began it.
    """
    launched = [sys.executable, "-S", "-c", _LAUNCH, *command]
    done = subprocess.run(launched, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} failed: {done.stderr}")
    seconds, memory = map(float, done.stdout.split())
    return seconds, memory


def run() -> None:
    """Measure all, print the table."""
    folder = scratch()
    couette = [sys.executable, "-m", "couette"]
    spent([*couette, "train", "digits", "--out", str(folder / "run"), "--steps", "20"])
    sample = ["sample", str(folder / "run"), "--count", "1", "--out", str(folder / "one.png")]
    commands = {
        "couette --help": [*couette, "--help"],
        "import couette": [sys.executable, "-c", "import couette"],
        "couette sample, one picture": [*couette, *sample],
        "import torch": [sys.executable, "-c", "import torch"],
        "import diffusers' UNet and pipeline": [
            sys.executable,
            "-c",
            "from diffusers import DDPMPipeline, UNet2DModel",
        ],
    }
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in commands}
    for number in range(ROUNDS + 1):
        for name, command in commands.items():
            one = spent(command)
            if number:  # the first round fills the system's caches
                found[name].append(one)
    theirs = statistics.median(
        seconds for seconds, _ in found["import diffusers' UNet and pipeline"]
    )
    rows = [
        {
            "process": name,
            "processor s": statistics.median(seconds for seconds, _ in values),
            "peak MB": statistics.median(memory for _, memory in values),
            "of importing diffusers": statistics.median(s for s, _ in values) / theirs,
        }
        for name, values in found.items()
    ]
    report("start_up", rows, {"rounds": ROUNDS})
