"""What a command prints where nobody reads it or no room is left, and what is kept of a report."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from helpers import TIMEOUT, small_task
from test_writing import room

from nlbound_jax import Settings, ladder
from nlbound_jax.report import report, save

pytestmark = pytest.mark.float64

SCRIPT = "from nlbound_jax.cli import main; main()"
COMMANDS = (
    ["--help"],
    ["report", "--help"],
    ["bound", "--t", "1"],
    ["bound", "--t", "1", "--json"],
)
FULL = Path("/dev/full")


def start(command, stdout):
    return subprocess.Popen(
        [sys.executable, "-c", SCRIPT, *command], stdout=stdout, stderr=subprocess.PIPE, text=True
    )


@pytest.mark.skipif(not FULL.exists(), reason="no device that is always full")
@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_output_without_room_is_one_line_and_status_1(command):
    with FULL.open("w") as full:
        process = start(command, full)
    _, text = process.communicate(timeout=TIMEOUT)
    assert process.returncode == 1
    assert text == "nlbound: the output could not be written: No space left on device.\n"


@pytest.mark.skipif(sys.platform == "win32", reason="pipes end otherwise there")
@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_output_that_nobody_reads_is_silent(command):
    reader, writer = os.pipe()
    os.close(reader)
    process = start(command, writer)
    os.close(writer)
    _, text = process.communicate(timeout=TIMEOUT)
    assert (process.returncode, text) == (1, "")


def test_a_report_stays_where_its_picture_finds_no_room(tmp_path):
    settings = Settings(width=2, num_times=1, end_time=0.5, beta=0.5, epsilon=0.1)
    made = report(small_task(), settings, bounds=[ladder.RepairedTheorem52Bound()])
    save(made, tmp_path / "whole")
    sizes = [(tmp_path / "whole" / f"report.{end}").stat().st_size for end in ("json", "png")]
    assert sizes[0] < sizes[1]
    with room(sum(sizes) // 2), pytest.raises(OSError, match=r"^'[^\n]*report.png' could not be"):
        save(made, tmp_path / "out")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["report.json"]
    texts = [(tmp_path / name / "report.json").read_bytes() for name in ("whole", "out")]
    assert texts[0] == texts[1]
