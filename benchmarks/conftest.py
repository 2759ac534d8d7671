"""What the benchmarks share: every core a CPU device, float64 at hand, and tables that are printed
together at the end under one line that says what they were measured on."""

import datetime
import importlib.metadata
import os
import platform
from pathlib import Path

import jax
import pytest

# Competitors in processes of their own need some of a GPU's memory.
os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
jax.config.update("jax_enable_x64", True)
jax.config.update("jax_num_cpu_devices", CORES)

PACKAGES = ("jax", "diffrax", "equinox", "numpy", "scipy", "torch", "torchdiffeq")
_tables = pytest.StashKey[list[str]]()


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        model = next(line for line in lines if line.startswith("model name"))
        return model.split(":", 1)[1].strip()
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def _versions() -> str:
    found = []
    for name in PACKAGES:
        try:
            found.append(f"{name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            found.append(f"no {name}")
    return ", ".join(found)


def machine() -> str:
    """One line: date, machine and versions."""
    device = jax.devices()[0]
    kind = f", {device.device_kind} x {jax.device_count()}" if device.platform != "cpu" else ""
    return (
        f"{datetime.date.today()}, {CORES} cores ({_processor()}){kind}, "
        f"Python {platform.python_version()}, {_versions()}"
    )


def pytest_configure(config):
    config.stash[_tables] = []


@pytest.fixture
def table(request):
    """`table(title, header, rows, note)` prints a Markdown table, and again at the end."""

    def show(title, header, rows, note=""):
        lines = [f"### {title}", "", " | ".join(header), " | ".join("---" for _ in header)]
        lines += [" | ".join(row) for row in rows]
        text = "\n".join([*lines[:2], *(f"| {line} |" for line in lines[2:]), "", note])
        print(f"\n{text}", flush=True)
        request.config.stash[_tables].append(text)

    return show


def pytest_terminal_summary(terminalreporter, config):
    if config.stash[_tables]:
        terminalreporter.section("tables")
        terminalreporter.write_line(machine())
        for text in config.stash[_tables]:
            terminalreporter.write_line(f"\n{text}")
