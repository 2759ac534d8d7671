"""Disks that fill up and writers that are interrupted: one line, and nothing half-written."""

import contextlib
import errno
import math
import os
import signal
import subprocess
import sys
import types
from pathlib import Path

import jax
import numpy as np
import pytest
import xarray as xr
from helpers import TIMEOUT, small_data, small_task
from typer.testing import CliRunner

import nlbound_jax
from nlbound_jax import Settings, bounds, checks, figures, ladder, tasks
from nlbound_jax._writing import write_bytes, write_folder
from nlbound_jax.cli._app import app
from nlbound_jax.report import report, save, save_run
from nlbound_jax.sweep import sweep_status

pytestmark = pytest.mark.float64

CELLS = {"depth": 3, "beta": 0.05, "stable_rank_root": 2.0, "train_risk": 0.1, "gamma": 0.5}
DATA_OF_MNIST = {"alignment": 0.633, "dim": 49, "num_samples": 60000}
THEORY = {
    "axes": {"t": [0.5, 1.0], "epsilon": [0.0, 0.01, 0.1]},
    "settings": CELLS,
    "compute": {"mode": "theory", "chunk": 2},
}


@contextlib.contextmanager
def room(size):
    """No file can grow beyond `size` bytes. Nothing goes into the compilation cache meanwhile: an
    entry that is cut short would have JAX complain in every process that shares it."""
    resource = pytest.importorskip("resource")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    shortest = jax.config.jax_persistent_cache_min_compile_time_secs
    jax.config.update("jax_persistent_cache_min_compile_time_secs", math.inf)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        jax.config.update("jax_persistent_cache_min_compile_time_secs", shortest)


def interrupt_at(monkeypatch, error, place):
    """Raise `error` when a path that ends in `place` is moved to, once."""
    errors = [error]
    for name in ("replace", "rename"):
        move = getattr(os, name)

        def stop(old, new, move=move):
            if str(new).endswith(place) and errors:
                raise errors.pop()
            return move(old, new)

        monkeypatch.setattr(os, name, stop)


def content(folder):
    """Every file below a folder, and every folder."""
    paths = sorted(Path(folder).rglob("*"))
    return {str(p.relative_to(folder)): p.read_bytes() if p.is_file() else None for p in paths}


@pytest.fixture(scope="module")
def task():
    return small_task()


@pytest.fixture(scope="module")
def made(task):
    settings = Settings(width=4, end_time=1.0, num_times=3)
    return report(task, settings, bounds=[ladder.PrintedTheorem52Bound()])


DATA = xr.Dataset({"value": ("x", np.random.default_rng(0).normal(size=500))})
WRITERS = {
    "save": ("report.json", lambda made, task, out: save(made, out)),
    "save_run": ("run.npz", lambda made, task, out: save_run(made, task, out / "run.npz")),
    "save_data": ("data.zarr", lambda made, task, out: figures.save_data(DATA, out / "data.zarr")),
}


@pytest.mark.parametrize("name", WRITERS)
def test_a_disk_that_fills_up_is_one_line_and_leaves_what_was_there(name, made, task, tmp_path):
    file, write = WRITERS[name]
    for _ in range(2):
        before = content(tmp_path)
        with room(300), pytest.raises(OSError, match=r"^'[^\n]*\)\.$") as caught:
            write(made, task, tmp_path)
        assert type(caught.value.errno) is int
        assert caught.value.errno == errno.EFBIG
        line = str(caught.value)
        assert line.startswith(f"{str(tmp_path / file)!r} could not be written: File too large (it")
        assert line.endswith((" kB).", " MB)."))
        assert content(tmp_path) == before
        write(made, task, tmp_path)  # and again over what is there


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(3), OSError(28, "No space")])
@pytest.mark.parametrize("name", WRITERS)
def test_an_interrupted_writer_leaves_what_was_there(
    name, error, made, task, tmp_path, monkeypatch
):
    file, write = WRITERS[name]
    for _ in range(2):
        before = content(tmp_path)
        with monkeypatch.context() as patch:
            interrupt_at(patch, error, f"{tmp_path.name}/{file}")
            with pytest.raises(type(error)):
                write(made, task, tmp_path)
        assert content(tmp_path) == before
        write(made, task, tmp_path)


@pytest.mark.parametrize("error", [KeyboardInterrupt(), OSError(28, "No space left on device")])
def test_a_write_that_is_cut_short_leaves_nothing(error, tmp_path, monkeypatch):
    class Short:
        """A file of which half is written."""

        def __init__(self, file):
            self.file = file

        def __enter__(self):
            return self

        def __exit__(self, *_):
            self.file.close()

        def write(self, data):
            self.file.write(bytes(data)[: len(data) // 2])
            raise error

    fdopen = os.fdopen
    monkeypatch.setattr(os, "fdopen", lambda *args: Short(fdopen(*args)))
    monkeypatch.setattr(Path, "write_bytes", lambda path, data: Short(path.open("wb")).write(data))
    for write in (
        lambda path: write_bytes(path, b"1234"),
        lambda p: write_folder(p, {"a/b": b"1"}),
    ):
        with pytest.raises(type(error)):
            write(tmp_path / "new")
        assert content(tmp_path) == {}


def test_a_folder_is_not_written_over_what_came_first(tmp_path):
    write_folder(tmp_path / "a", {"x": b"1", "empty/": b""})
    write_folder(tmp_path / "a", {"x": b"2"}, replace=False)
    assert content(tmp_path) == {"a": None, "a/x": b"1", "a/empty": None}
    write_folder(tmp_path / "a", {"x": b"2"})
    assert content(tmp_path) == {"a": None, "a/x": b"2"}
    (tmp_path / "file").write_bytes(b"3")
    with pytest.raises(OSError, match="^'.*file' could not be written: Not a dir"):
        write_folder(tmp_path / "file", {"x": b"2"})
    assert (tmp_path / "file").read_bytes() == b"3"


@pytest.mark.parametrize("error", [KeyboardInterrupt(), OSError(28, "No space left on device")])
@pytest.mark.parametrize("place", [".pieces/1.json", "result/0.1", "result/1.0"])
def test_a_sweep_keeps_its_pieces_and_goes_on(error, place, tmp_path, monkeypatch):
    out, whole = tmp_path / "out.zarr", tmp_path / "whole.zarr"
    with monkeypatch.context() as patch:
        interrupt_at(patch, error, place)
        with pytest.raises(type(error)) as caught:
            nlbound_jax.sweep(THEORY, out)
    done = {path.name for path in (out / ".pieces").iterdir()}
    status = sweep_status(out)
    assert 0 < status.pieces_done < status.pieces
    if isinstance(error, OSError):
        first = f"piece {status.pieces_done + 1} of {status.pieces} of {str(out)!r} could not be wr"
        assert str(caught.value).startswith(first)
        assert "No space left on device (it takes " in str(caught.value)
        assert "\n" not in str(caught.value)
        assert caught.value.errno == errno.ENOSPC
    chunks = [path.name for path in (out / "result").iterdir() if not path.name.startswith(".")]
    assert len(chunks) == len(done) == status.pieces_done
    nlbound_jax.sweep(THEORY, out)
    nlbound_jax.sweep(THEORY, whole)
    there, expected = content(out), content(whole)
    assert set(there) == set(expected)
    assert all(there[name] == expected[name] for name in there if ".pieces" not in name)


@pytest.mark.parametrize("error", [KeyboardInterrupt(), OSError(28, "No space left on device")])
def test_a_sweep_without_room_for_its_store_leaves_nothing(error, tmp_path, monkeypatch):
    interrupt_at(monkeypatch, error, "out.zarr")
    with pytest.raises(type(error)) as caught:
        nlbound_jax.sweep(THEORY, tmp_path / "out.zarr")
    if isinstance(error, OSError):
        assert str(caught.value).startswith(f"{str(tmp_path / 'out.zarr')!r} could not be written:")
    assert content(tmp_path) == {}


@pytest.fixture(scope="module")
def commands(tmp_path_factory):
    """The arguments of every command that writes, without `--out`."""
    folder = tmp_path_factory.mktemp("data")
    np.savez(folder / "data.npz", **small_data())
    small = ["--dataset", folder / "data.npz", "--width", 4, "--end-time", 1]
    grid = bounds.grid(**CELLS, **DATA_OF_MNIST, epsilon=[0.0, 0.1], t=[0.5, 1.0])
    figures.save_data(grid, folder / "grid.zarr")
    lines = ["axes.t = [0.5, 1.0]", 'compute.mode = "theory"', "compute.chunk = 1"]
    lines += [f"settings.{name} = {value}" for name, value in CELLS.items()]
    (folder / "sweep.toml").write_text("\n".join(lines))
    options = [a for name, v in CELLS.items() for a in (f"--{name.replace('_', '-')}", v)]
    return {
        "report": ["report", *small, "--anchor-fraction", 0],
        "compare": ["compare", *small, "--quick", "--anchor-fraction", 0],
        "check": ["check", *small],
        "figure": ["figure", "1", "--preset", "tiny"],
        "heatmap": ["figure", "heatmap", folder / "grid.zarr", "--x", "epsilon", "--y", "t"],
        "bound": ["bound", "--t", "1,2", "--epsilon", 0.1, *options],
        "sweep": ["sweep", "--config", folder / "sweep.toml"],
    }


COMMANDS = ["report", "compare", "check", "figure", "heatmap", "bound", "sweep"]


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_without_room_ends_with_one_line(name, commands, tmp_path, monkeypatch):
    if name == "check":  # what is written does not matter
        many = types.SimpleNamespace(as_dict=lambda: {"many": list(range(1000))})
        monkeypatch.setattr(checks, "measure", lambda *args, **kwargs: None)
        monkeypatch.setattr(checks, "evaluate", lambda run: many)
    out = tmp_path / "out.zarr" if name in ("bound", "sweep") else tmp_path
    with room(200):
        result = CliRunner().invoke(app, [str(a) for a in [*commands[name], "--out", out]])
    assert result.exit_code == 1, result.output
    last = result.stderr.replace("\r", "\n").splitlines()[-1]
    assert last.startswith("nlbound: ")
    assert "could not be written: File too large (it takes " in last
    assert isinstance(result.exception, SystemExit)  # no traceback
    assert content(tmp_path) == {}


def test_an_interrupted_command_ends_with_one_line(commands, monkeypatch):
    def interrupted(spec):
        raise KeyboardInterrupt

    monkeypatch.setattr(tasks, "load_task", interrupted)
    result = CliRunner().invoke(app, [str(a) for a in commands["report"]])
    assert (result.exit_code, result.stderr) == (130, "nlbound: interrupted\n")


def test_an_interrupt_while_the_command_is_imported(monkeypatch, capsys):
    import builtins

    from nlbound_jax import cli

    imports = builtins.__import__

    def interrupted(name, *args, **kwargs):
        if name.endswith("_app"):
            raise KeyboardInterrupt
        return imports(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", interrupted)
    with pytest.raises(SystemExit) as caught:
        cli.main()
    assert caught.value.code == 130
    assert capsys.readouterr().err == "nlbound: interrupted\n"


SIGNALLED = """
import os, signal, time
signal.signal(signal.SIGINT, signal.default_int_handler)  # it may be ignored
from nlbound_jax import tasks
from nlbound_jax.cli import main

def load(spec):
    os.kill(os.getpid(), signal.{name})
    time.sleep({seconds})

def wrapped(spec):
    try:
        load(spec)
    except KeyboardInterrupt:
        raise RuntimeError("INTERNAL: CpuCallback error") from None

tasks.load_task = {loader}
main()
"""


@pytest.mark.skipif(sys.platform == "win32", reason="signals end a process there")
@pytest.mark.parametrize("loader", ["load", "wrapped"])
@pytest.mark.parametrize(("name", "word"), [("SIGINT", "interrupted"), ("SIGTERM", "terminated")])
def test_a_signal_ends_the_command_with_one_line(name, word, loader):
    code = SIGNALLED.format(name=name, seconds=TIMEOUT, loader=loader)
    command = [sys.executable, "-c", code, "report"]
    run = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT)
    assert run.returncode == 128 + getattr(signal, name), run.stderr
    assert run.stderr == f"nlbound: {word}\n"
