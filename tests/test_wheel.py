"""The wheel: what it holds, and that it works where nothing but it was installed."""

import importlib.util
import json
import os
import shutil
import subprocess
import sys
import tomllib
import zipfile
from email.parser import Parser
from pathlib import Path

import pytest
from helpers import TIMEOUT

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
# What a build reads, and what it must leave out.
SOURCES = ("nlbound_jax", "tests", "pyproject.toml", "README.md", "LICENSE", ".gitignore")
# In what pip or uv write where no index answers; a wrong name or version reads differently.
OFFLINE = ("Retrying (Retry", "error sending request", "Failed to fetch")


def clean_environment():
    """Without what could lead the commands back to the checkout or to the tests' environment."""
    dropped = ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", "JAX_ENABLE_X64")
    return {name: value for name, value in os.environ.items() if name not in dropped}


def run(*command, cwd):
    return subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env=clean_environment(),
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
    )


def install(*command, cwd):
    """A command that may need the package index; no index, no test."""
    done = run(*command, cwd=cwd)
    if done.returncode and any(sign in done.stderr for sign in OFFLINE):
        pytest.skip("the package index does not answer")
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("wheel")


@pytest.fixture(scope="module")
def source(folder):
    """A copy, so that the build leaves nothing behind; caches of Python stay in it."""
    copy = folder / "source"
    copy.mkdir()
    for name in SOURCES:
        original = ROOT / name
        (shutil.copytree if original.is_dir() else shutil.copy)(original, copy / name)
    return copy


@pytest.fixture(scope="module")
def wheel(folder, source):
    dist = folder / "dist"
    # An environment made by uv has no pip.
    if importlib.util.find_spec("pip"):
        # Without isolation no index is needed.
        isolated = importlib.util.find_spec("hatchling") is None
        options = [] if isolated else ["--no-build-isolation"]
        command = [sys.executable, "-m", "pip", "wheel", "--no-deps", *options, "-w", dist, source]
    else:
        command = ["uv", "build", "--wheel", "--out-dir", dist, source]
    install(*command, cwd=folder)
    (found,) = dist.glob("*.whl")
    return found


@pytest.fixture(scope="module")
def archive(wheel):
    with zipfile.ZipFile(wheel) as opened:
        yield opened


@pytest.fixture(scope="module")
def metadata(archive):
    (name,) = [n for n in archive.namelist() if n.endswith(".dist-info/METADATA")]
    return Parser().parsestr(archive.read(name).decode())


@pytest.fixture(scope="module")
def environment(folder, wheel):
    """An environment that was empty before the wheel came."""
    made = folder / "environment"
    if importlib.util.find_spec("pip"):
        install(sys.executable, "-m", "venv", made, cwd=folder)
        install(made / "bin" / "python", "-m", "pip", "install", "--quiet", wheel, cwd=folder)
    else:
        install("uv", "venv", made, cwd=folder)
        install("uv", "pip", "install", "--python", made / "bin" / "python", wheel, cwd=folder)
    return made


def test_the_wheel_holds_the_package_and_nothing_else(archive, source):
    names = archive.namelist()
    info = f"nlbound_jax-{PROJECT['version']}.dist-info"
    assert {name.split("/")[0] for name in names} == {"nlbound_jax", info}
    assert not [n for n in names if "__pycache__" in n or n.endswith(".pyc")]
    package = source / "nlbound_jax"
    files = [p for p in package.rglob("*") if p.is_file() and "__pycache__" not in p.parts]
    expected = {str(p.relative_to(source)) for p in files}
    assert expected == {name for name in names if name.startswith("nlbound_jax/")}
    assert {"nlbound_jax/py.typed", "nlbound_jax/__init__.pyi"} <= set(names)
    assert {"nlbound_jax/references.bib", "nlbound_jax/bounds/README.md"} <= set(names)
    for name in ("nlbound_jax/tasks/data/mnist.npz", "nlbound_jax/tasks/data/NOTICE.md"):
        assert archive.read(name) == (source / name).read_bytes()


def test_the_wheel_carries_its_licences(archive, metadata):
    held = [name for name in archive.namelist() if ".dist-info/licenses/" in name]
    for name in PROJECT["license-files"]:
        (path,) = [h for h in held if h.endswith(f"/licenses/{name}")]
        assert archive.read(path) == (ROOT / name).read_bytes()
    assert metadata["License-Expression"] == PROJECT["license"]
    assert sorted(metadata.get_all("License-File")) == sorted(PROJECT["license-files"])


def test_the_metadata_are_those_of_the_project(archive, metadata):
    assert metadata["Name"].replace("-", "_") == PROJECT["name"]
    assert metadata["Version"] == PROJECT["version"]
    assert metadata["Summary"] == PROJECT["description"]
    assert metadata["Requires-Python"] == PROJECT["requires-python"]
    assert metadata["Description-Content-Type"] == "text/markdown"
    assert metadata.get_all("Classifier") == PROJECT["classifiers"]
    needed = [r for r in metadata.get_all("Requires-Dist") if "extra ==" not in r]
    assert {plain(r) for r in needed} == {plain(r) for r in PROJECT["dependencies"]}
    assert set(metadata.get_all("Provides-Extra")) == set(PROJECT["optional-dependencies"])
    assert metadata.get_payload() == (ROOT / "README.md").read_text()
    (name,) = [n for n in archive.namelist() if n.endswith("/entry_points.txt")]
    assert "nlbound = nlbound_jax.cli:main" in archive.read(name).decode()


def plain(requirement):
    return requirement.replace("_", "-").replace(" ", "")


def test_the_command_runs(environment, folder):
    command = environment / "bin" / "nlbound"
    text = run(command, "--help", cwd=folder)
    assert text.returncode == 0, text.stderr
    for name in ("report", "bound", "certify", "check", "figure"):
        assert name in text.stdout
    found = run(command, "bound", "--t", "3", "--json", cwd=folder)
    assert found.returncode == 0, found.stderr
    data = json.loads(found.stdout)
    assert 0 < data["data_vars"]["capacity"]["data"] < data["data_vars"]["penalty"]["data"]


def test_the_package_in_the_environment_is_the_wheel_s(environment, folder):
    code = (
        "import json, nlbound_jax; from nlbound_jax import citation, tasks; "
        "data = tasks.load_mnist(); "
        "print(json.dumps({'path': nlbound_jax.__file__, 'version': nlbound_jax.__version__, "
        "'shape': data['x_train'].shape, 'tasks': tasks.__file__, 'keys': citation().count('@')}))"
    )
    done = run(environment / "bin" / "python", "-W", "error", "-c", code, cwd=folder)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["shape"] == [60000, 28, 28]
    assert found["version"] == PROJECT["version"]
    assert found["keys"] >= 6
    (site,) = (environment / "lib").glob("python*/site-packages")
    for name in ("path", "tasks"):
        assert Path(found[name]).is_relative_to(site)
    assert not Path(found["path"]).is_relative_to(ROOT)
