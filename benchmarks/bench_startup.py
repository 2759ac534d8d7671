"""`nlbound report` as a whole process: without any compiled program, and with the cache warm."""

import os
import re
import subprocess
import sys
import tempfile
import time

ENTRY = [sys.executable, "-c", "from nlbound_jax.cli import main; main()"]
VARIABLES = ("JAX_COMPILATION_CACHE_DIR", "JAX_ENABLE_COMPILATION_CACHE", "NPROC")


def clean(folder, **more):
    kept = {k: v for k, v in os.environ.items() if k not in VARIABLES}
    return {**kept, "XDG_CACHE_HOME": str(folder), **more}


def report(out, environment):
    """Seconds to the first line and to the end, and the seconds XLA spent on compiling."""
    begin = time.perf_counter()
    command = [*ENTRY, "report", "--out", str(out)]
    # A file: a pipe that nobody reads yet would stop the process once it is full.
    with tempfile.TemporaryFile("w+") as errors:
        with subprocess.Popen(
            command, env=environment, stdout=subprocess.PIPE, stderr=errors, text=True
        ) as process:
            assert process.stdout is not None
            process.stdout.readline()
            first = time.perf_counter() - begin
            process.stdout.read()
        errors.seek(0)
        told = errors.read()
    assert process.returncode == 0, told
    compiling = re.findall(r"Finished XLA compilation of .* in ([\d.e-]+) sec", told)
    return first, time.perf_counter() - begin, sum(map(float, compiling))


def test_cold_start(benchmark, table, tmp_path):
    here = clean(tmp_path / "cache")
    none = clean(tmp_path / "none", JAX_ENABLE_COMPILATION_CACHE="0")
    runs = {
        "no cache": report(tmp_path / "out", none),
        "cache empty": report(tmp_path / "out", here),
        "cache warm": benchmark.pedantic(report, args=(tmp_path / "out", here), rounds=1),
    }
    compiling = report(tmp_path / "out", {**here, "JAX_LOG_COMPILES": "1"})[2]
    help_time = time.perf_counter()
    subprocess.run([*ENTRY, "--help"], env=here, check=True, capture_output=True)
    help_time = time.perf_counter() - help_time
    rows = [[name, f"{first:.1f}", f"{end:.1f}"] for name, (first, end, _) in runs.items()]
    rows.append(["--help", f"{help_time:.1f}", f"{help_time:.1f}"])
    table(
        "nlbound report --out out, MNIST 7x7",
        ["", "seconds to the first line", "to the end"],
        rows,
        f"With the cache warm {compiling:.1f} s still go into compiling and loading: programs with "
        "host callbacks (the progress meter, Diffrax's checks of the save times) are not kept.",
    )
