import json
import subprocess
import sys

import numpy as np
import pytest
import typer
import xarray as xr
from helpers import assert_close, small_data
from typer.testing import CliRunner

from nlbound_jax.cli._app import app
from nlbound_jax.cli._errors import one_line_errors

pytestmark = pytest.mark.float64

RUN = CliRunner()


def invoke(*args):
    return RUN.invoke(app, [str(a) for a in args])


@pytest.fixture(scope="module")
def quick(tmp_path_factory):
    """A report on a file, of the shapes of the small data sets in `test_tfds.py`."""
    path = tmp_path_factory.mktemp("data") / "data.npz"
    np.savez(path, **small_data(m=200, test=60))
    less = ["--anchor-fraction", "0"]
    return ["report", "--dataset", path, "--width", "4", "--end-time", "1", *less]


def test_report_prints_the_table_and_writes_files(quick, tmp_path):
    out = tmp_path / "new" / "folder"
    result = invoke(*quick, "--out", out)
    assert result.exit_code == 0, result.output
    assert "theorem-5.2-repaired" in result.stdout
    assert "Random guess: 0.5" in result.stdout
    assert sorted(p.name for p in out.iterdir()) == ["report.json", "report.png"]


@pytest.mark.quick
def test_json_has_only_json_on_stdout(quick, tmp_path):
    result = invoke(*quick, "--json", "--out", tmp_path)
    data = json.loads(result.stdout)
    assert data == json.loads((tmp_path / "report.json").read_text())
    assert data["settings"]["width"] == 4
    assert_close(data["bounds"][-1]["t"], 1.0, rtol=1e-6)


@pytest.mark.float64
@pytest.mark.slow
def test_an_early_stop_is_told_on_stderr():
    result = invoke("report", "--width", "8", "--max-steps", "3", "--json")
    assert result.exit_code == 0
    assert "training stopped at t = " in result.stderr
    assert json.loads(result.stdout)["trajectory"]["reached"] < 12


BAD = [
    (["--epsilon", "1.3"], "`--epsilon` must be in [0, 1], got 1.3."),
    (["--epsilon", "nan"], "`--epsilon` must be in [0, 1], got nan."),
    (["--beta", "0"], "`--beta` must be positive and finite, got 0."),
    (["--delta", "1"], "`--delta` must be in (0, 1), got 1."),
    (["--until", "1"], "`--until` must be in (0, 1), got 1."),
    (["--end-time", "-1"], "`--end-time` must be positive and finite, got -1."),
    (["--width", "0"], "`--width` must be an integer of at least 1, got 0."),
    (["--depth", "1"], "`--depth` must be an integer of at least 2, got 1."),
    (["--kappa", "3"], "`--kappa` must be one of 1, 2, got 3."),
    (["--seed", "-1"], "`--seed` must be an integer in [0, 4294967295], got -1."),
    (["--precision-bits", "0"], "`--precision-bits` must be an integer of at least 1, got 0."),
    (["--side", "8"], "`--side` must be one of 7, 14, 28, got 8."),
    (["--components", "99"], "`--components` must be an integer in [1, 49], got 99."),
    (["--dataset", "cifar"], "`--dataset` must be mnist, tfds:NAME or FILE.npz, got 'cifar'."),
    (["--data-dir", "x"], "`--data-dir` must be left out with mnist, got 'x'."),
    (["--norm-bound", "1"], "`--norm-bound` must be left out with mnist, got '1.0'."),
    (["--positive", "1,x"], "`--positive` must be a non-empty set of digits 0 to 9, got [1, 'x']."),
    (["--out", "/proc/none"], "`--out` must be a folder that can be written, got '/proc/none'"),
    (
        ["--beta", "5"],
        "`--beta` must be below 0.7551 at `--until` = 0.9, got 5: the network starts",
    ),
    (["--beta", "1e-40"], "`--beta` must be in [9.86e-32, 3.44e+10] at depth 2 in float32, [1"),
    (
        ["--beta", "1e-300", "--dtype", "float64"],
        "`--beta` must be in [1e-292, 3.42e+97] at",
    ),
]


@pytest.mark.parametrize(("args", "message"), BAD, ids=[" ".join(a) for a, _ in BAD])
@pytest.mark.quick
def test_bad_options_get_one_line_and_status_2(args, message):
    result = invoke("report", *args)
    assert result.exit_code == 2
    assert result.stdout == ""
    lines = result.stderr.strip().splitlines()
    assert len(lines) == 1
    assert message in lines[0]


@pytest.mark.parametrize(("kind", "known"), [(RuntimeError, True), (NotImplementedError, False)])
@pytest.mark.quick
def test_a_computation_that_failed_gets_one_line_and_status_1(kind, known):
    def run():
        with one_line_errors():
            raise kind("flow: it stopped")

    if not known:  # an error of the program: with its traceback
        with pytest.raises(kind):
            run()
        return
    with pytest.raises(typer.Exit) as caught:
        run()
    assert caught.value.exit_code == 1


@pytest.mark.parametrize("args", [["--width", "x"], ["--init", "zeros"], ["--no-such"]])
def test_options_of_the_wrong_kind_get_a_few_lines_and_status_2(args):
    result = invoke("report", *args)
    assert result.exit_code == 2
    assert len(result.stderr.strip().splitlines()) <= 12
    assert "Traceback" not in result.stderr


def test_a_file_in_the_way_of_the_output_folder(tmp_path):
    (tmp_path / "file").write_text("mine")
    result = invoke("report", "--out", tmp_path / "file")
    assert result.exit_code == 2
    assert "`--out` must be a folder that can be written" in result.stderr
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.quick
def test_help_needs_no_jax():
    code = (
        "import sys; sys.argv = ['nlbound', '--help']\n"
        "from nlbound_jax.cli import main\n"
        "try: main()\n"
        "finally: assert 'jax' not in sys.modules and 'matplotlib' not in sys.modules"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert out.returncode == 0, out.stderr
    assert "report" in out.stdout


@pytest.mark.quick
def test_bound_prints_a_table_over_ranges():
    result = invoke("bound", "--t", "1:3:2", "--epsilon", "0.001,0.1", "--train-risk", "0.2")
    assert result.exit_code == 0, result.output
    assert result.stdout.count("successful") == 4


def test_bound_as_json_and_certified_agree():
    args = ("bound", "--t", "3", "--depth", "3", "--beta", "0.1", "--gamma", "0.01", "--json")
    data = json.loads(invoke(*args).stdout)["data_vars"]
    enclosed = json.loads(invoke(*args, "--certified").stdout)
    for name in ("u", "v", "log_v", "capacity", "deviation", "penalty"):
        low, high = enclosed[name]
        assert low <= high
        assert_close(data[name]["data"], low, rtol=1e-11)


def test_bound_writes_a_store(tmp_path):
    out = tmp_path / "deep" / "grid.zarr"
    result = invoke("bound", "--t", "1:9:50", "--beta", "1e-4:1e-1:20:log", "--out", out)
    assert result.exit_code == 0, result.output
    made = xr.open_zarr(out, consolidated=False)
    assert dict(made.sizes) == {"t": 50, "beta": 20}
    assert_close(made.beta.values, np.geomspace(1e-4, 1e-1, 20))
    assert [p.name for p in out.parent.iterdir()] == ["grid.zarr"]
    again = invoke("bound", "--t", "1", "--out", out)
    assert again.exit_code == 2
    assert "`--out` must be a path that does not exist yet" in again.stderr


BAD_BOUND = [
    (["--t", "-1"], "`--t` must be finite and at least 0, got -1."),
    (
        ["--t", "x"],
        "`--t` must be a number, a list 1,3,10 or a range start:stop:num[:log], got 'x'.",
    ),
    (["--t", "1:2:3:cube"], "`--t` must be a number, a list"),
    (["--t", "1", "--beta", "0:1:5:log"], "`--beta` must be a number, a list"),
    (["--t", "1", "--depth", "1"], "`--depth` must be an integer of at least 2, got 1."),
    (["--t", "0:1:1000"], "`--out` must be given for more than 60 cells, got 1000."),
    (["--t", "1,2", "--certified"], "`--certified` must go with single numbers, got ['t']."),
    (["--t", "1", "--out", "/proc/none/x"], "`--out` must be a path that can be written"),
    (
        ["--t", "1", "--reading", "printed", "--no-assumption-5-1"],
        "`--assumption-5-1` must be True with reading='printed'",
    ),
]


@pytest.mark.parametrize(("args", "message"), BAD_BOUND, ids=[" ".join(a) for a, _ in BAD_BOUND])
def test_bad_numbers_get_one_line_and_status_2(args, message):
    result = invoke("bound", *args)
    assert result.exit_code == 2
    lines = result.stderr.strip().splitlines()
    assert len(lines) == 1
    assert message in lines[0]
