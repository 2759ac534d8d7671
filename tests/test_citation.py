"""`citation`: entries that BibTeX can read, and the right ones for what was used."""

import inspect
import re
import subprocess
import sys
from pathlib import Path

import diffrax
import equinox as eqx
import jax
import numpy as np
import optax
import pytest

import nlbound_jax
from nlbound_jax import (
    Settings,
    bounds,
    checks,
    citation,
    dynamics,
    figures,
    ladder,
    networks,
    sweep,
    tasks,
)
from nlbound_jax._citation import _MODULES, _NAMES, _WITH_BOUNDS, _cited_in, _entries

pytestmark = pytest.mark.float64

PACKAGE = Path(nlbound_jax.__file__).parent
BIBTEX = (PACKAGE / "references.bib").read_text()
ENTRIES = _entries()
SUBPACKAGES = (tasks, networks, dynamics, bounds, ladder, checks, figures, sweep)
BOUNDS = {bound.name: bound for bound in ladder.all_bounds()}
CORE = {"golikov2024generalization", "nlbound_jax", "jax2018github", "kidger2021equinox"}
REQUIRED = {
    "article": {"author", "title", "journal", "year"},
    "book": {"author", "title", "publisher", "year"},
    "incollection": {"author", "title", "booktitle", "publisher", "year"},
    "inproceedings": {"author", "title", "booktitle", "year"},
    "misc": {"title"},
    "phdthesis": {"author", "title", "school", "year"},
    "software": {"author", "title"},
    "techreport": {"author", "title", "institution", "year"},
}


def keys(text):
    return re.findall(r"^@\w+\{([^,\s]+),", text, flags=re.MULTILINE)


def added(*used):
    return set(keys(citation(*used))) - CORE


def holding(cls, **fields):
    """An object of a class with these fields only: no training, no bound is needed here."""
    made = object.__new__(cls)
    for name, value in fields.items():
        object.__setattr__(made, name, value)
    return made


def a_report(data, dynamics, *rows):
    return holding(
        nlbound_jax.Report,
        bounds=[BOUNDS[row] for row in rows],
        settings=Settings(dynamics=dynamics),
        task={"name": data},
    )


@pytest.mark.quick
def test_the_keys_are_distinct():
    found = keys(BIBTEX)
    assert len(found) == len(set(found)) == len(ENTRIES) == BIBTEX.count("\n@")
    assert set(found) == set(ENTRIES)


@pytest.mark.parametrize("key", ENTRIES)
def test_an_entry_is_bibtex(key):
    comment, _, entry = ENTRIES[key].partition("\n")
    assert re.fullmatch(r"% .*:", comment)
    depth = 0
    for character in entry:
        depth += {"{": 1, "}": -1}.get(character, 0)
        assert depth >= 0
    assert depth == 0
    assert entry.endswith("\n}")
    kind = re.match(r"@(\w+)\{", entry)[1]
    names = re.findall(r"(\w+) = (?=[{d])", entry)
    assert len(names) == len(set(names))
    assert REQUIRED[kind] <= set(names)
    # A field ends in a comma, but for the last.
    assert len(re.findall(r"(?:\}|dec),(?= \w+ =|\n)", entry)) == len(names) - 1
    # What TeX would take for a command or a comment.
    assert not re.search(r"(?<!\\)[&%_#]", re.sub(r"url = \{.*?\}|^@.*", "", entry, flags=re.M))
    years = re.findall(r"year = \{(.*?)\}", entry)
    assert all(re.fullmatch(r"(19|20)\d\d", year) for year in years)
    # The year is also in the key, if that has one.
    assert re.findall(r"(?:19|20)\d\d", key) in ([], years)


@pytest.mark.quick
def test_every_key_that_is_looked_up_exists():
    cited = {key for table in (_NAMES, _MODULES) for found in table.values() for key in found}
    cited |= {key for bound in BOUNDS.values() for key in bound.cites}
    assert cited | CORE == set(ENTRIES)


def test_the_modules_in_the_table_exist():
    for name in (*_MODULES, *_WITH_BOUNDS):
        path = PACKAGE.parent.joinpath(*name.split("."))
        assert path.with_suffix(".py").exists() or path.is_dir() or _is_prefix(path), name


def _is_prefix(path):
    return any(path.parent.glob(f"{path.name}*.py"))


def test_without_arguments_the_general_references():
    found = set(keys(citation()))
    assert found >= CORE | {"kidger2021on", "tsitouras2011runge", "deepmind2020jax"}
    assert "lecun1998mnist" in found
    assert f"version = {{{nlbound_jax.__version__}}}" in citation()


def test_importing_it_imports_nothing_heavy():
    code = (
        "import sys; from nlbound_jax import citation; citation(); citation('mnist', 'Tsit5'); "
        "assert not {'jax', 'numpy', 'diffrax'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(
    ("used", "expected"),
    [
        ("theorem-5.2-printed", {"hoeffding1963probability"}),
        ("trajectory", {"hoeffding1963probability", "chernoff1952measure"}),
        ("split-a-priori", {"mcallester1999some", "ledoux1991probability"}),
        ("split-no-plug-in", {"mcallester1999some", "ledoux1991probability"}),
        ("bartlett2017spectrally", {"bartlett2017spectrally"}),
        ("vc", {"bartlett2019nearly"}),
        ("classical-path-norm-l2", {"neyshabur2015norm", "golowich2018size"}),
        ("pac-bayes-gaussian", {"dziugaite2017computing", "deepmind2020jax"}),
        ("Bosh3", {"kidger2021on", "bogacki1989pair"}),
        ("mnist", {"lecun1998mnist"}),
        (bounds.split_bound, {"mcallester1999some", "bartlett2002rademacher"}),
        (bounds.SplitBound, {"mcallester1999some", "bartlett2002rademacher"}),
        (bounds.kl_inverse, {"langford2001bounds", "maurer2004note"}),
        (bounds.certified_theorem_5_2, {"johansson2017arb"}),
        (bounds.upper_incomplete_gamma, {"dlmf"}),
        (bounds, {"dlmf", "johansson2017arb", "mcallester1999some"}),
        (tasks.load_mnist, {"lecun1998mnist"}),
        (dynamics.gradient_flow, {"kidger2021on", "tsitouras2011runge"}),
        (dynamics.gradient_descent, {"deepmind2020jax"}),
        (nlbound_jax, {"kidger2021on", "lecun1998mnist"}),
        (diffrax, {"kidger2021on"}),
        (diffrax.Tsit5(), {"kidger2021on", "tsitouras2011runge"}),
        (diffrax.Bosh3, {"kidger2021on", "bogacki1989pair"}),
        (diffrax.Dopri8(), {"kidger2021on", "prince1981high"}),
        (diffrax.Euler(), {"kidger2021on"}),
        (optax, {"deepmind2020jax"}),
        (optax.adam(0.1), {"deepmind2020jax"}),
        (jax, set()),
        (eqx, set()),
        (networks.LeakyMLP, set()),
        (Settings(dynamics="gd"), {"deepmind2020jax"}),
        (Settings(), {"kidger2021on", "tsitouras2011runge"}),
    ],
    ids=lambda used: None if isinstance(used, set) else getattr(used, "__name__", None),
)
def test_what_was_used_is_cited(used, expected):
    assert expected <= added(used)
    if not expected:
        assert not added(used)


def test_only_what_was_used_is_cited():
    assert added("theorem-5.2-repaired") == {"hoeffding1963probability"}
    assert added(diffrax.Tsit5()) == {"kidger2021on", "tsitouras2011runge"}
    assert added(Settings()) == {"kidger2021on", "tsitouras2011runge"}


def test_every_entry_of_diffrax_is_taken_once():
    found = keys(citation(diffrax.Kvaerno3(), diffrax.Kvaerno5(), diffrax.Kvaerno5()))
    assert len(found) == len(set(found))
    assert "kvaerno2004singly" in found


def test_a_report_cites_its_bounds_its_solver_and_its_data():
    made = a_report("mixture", "flow", "theorem-5.2-printed", "split-a-priori")
    flow = {"kidger2021on", "tsitouras2011runge"}
    assert added(made) == added("theorem-5.2-printed", "split-a-priori") | flow
    made = a_report("mnist 7x7", "gd", "trajectory")
    assert added(made) == added("trajectory", "optax", "mnist") | flow


@pytest.mark.parametrize("name", BOUNDS)
def test_a_bound_is_cited_by_its_name_and_as_an_object(name):
    assert set(BOUNDS[name].cites) - CORE == added(BOUNDS[name])
    # A name may be the start of others: "trajectory" and "trajectory-measured".
    assert added(BOUNDS[name]) <= added(name)


def test_a_task_cites_its_data(mnist7):
    assert added(mnist7) == {"lecun1998mnist"}
    x = np.eye(3)
    assert added(tasks.from_arrays(x, np.asarray([1, 1, 0]), norm_bound=1.0)) == set()


@pytest.mark.skipif(not jax.config.read("jax_enable_x64"), reason="needs float64")
def test_a_result_of_a_bound_cites_the_bound():
    data = {"alignment": 0.6, "dim": 5, "num_samples": 100}
    start = {"beta": 0.1, "stable_rank_root": 1.5}
    terms = bounds.theorem_5_2(1.0, depth=2, epsilon=0.1, gamma=0.1, **start, **data)
    assert added(terms) == {"hoeffding1963probability"}


def test_a_certificate_cites_the_split_bound():
    made = holding(nlbound_jax.Certificate, bounds=[BOUNDS["split-a-posteriori"]])
    assert added(made) == added("split-a-posteriori")


@pytest.mark.parametrize(
    "used", [3, None, "nope", "splitter", "", len, [1], np.ones((9, 9)), "a\nb"], ids=repr
)
@pytest.mark.quick
def test_anything_else_is_one_line(used):
    with pytest.raises(ValueError, match="^`used` must be reports, .*, got .*$") as error:
        citation("trajectory", used)
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 200


def documents():
    for path in [*sorted(PACKAGE.glob("bounds/**/*.py")), *sorted(PACKAGE.glob("bounds/**/*.md"))]:
        yield path, path.read_text()


def test_every_work_that_the_bounds_cite_has_an_entry():
    """A citation is a surname and, within a few words, a year in parentheses or behind a comma."""
    citing = re.compile(
        r"\b(?P<authors>[A-Z][a-z]+(?:[^.;:()`$]|al\.){0,80}?)[\s,]+\(?(?P<year>(?:19|20)\d\d)\b\)?"
    )
    known = [
        (set(re.findall(r"([A-Z][\w-]+),", re.search(r"author = \{(.*?)\}", e, re.S)[1])), year[1])
        for e in ENTRIES.values()
        if (year := re.search(r"year = \{(\d+)\}", e)) and "author = {{" not in e
    ]
    for path, text in documents():
        for match in citing.finditer(text):
            words = set(re.findall(r"[A-Z][\w-]+", match["authors"]))
            assert any(words & names and match["year"] == year for names, year in known), (
                f"{path.name} cites {match[0]!r}, which has no entry"
            )


def test_the_keys_in_the_bounds_docs_exist():
    for path, text in documents():
        for key in re.findall(r"`([a-z]+(?:19|20)\d\d[a-z]+)`", text):
            assert key in ENTRIES, f"{path.name}: {key}"


def test_a_docstring_that_names_a_work_cites_it():
    doc = "The bound of Bartlett, Foster and Telgarsky (*Spectrally-normalized margin*, 2017)."
    assert _cited_in(doc) == ["bartlett2017spectrally"]
    assert _cited_in("Golowich et al., 2018, and Neyshabur et al., 2015") == [
        "golowich2018size",
        "neyshabur2015norm",
    ]
    assert _cited_in("2017 samples of Bartlett") == []


def test_a_classical_bound_cites_its_theorem():
    classical = pytest.importorskip("nlbound_jax.bounds.classical")
    assert added(classical) >= {"bartlett2019nearly", "dziugaite2017computing"}
    for bound in ladder.CLASSICAL:
        # A variant of the path norm is a row of its own, not a function.
        function = getattr(classical, bound.name.replace("-", "_").removesuffix("_l2"))
        assert set(bound.cites) - CORE <= added(function)
        assert {"nlbound_jax"} < set(keys(citation(function)))
    assert added(classical.all_bounds) == added(classical)
    made = classical.vc((3, 2, 1), train_risk=0.1, num_samples=100)
    assert added(made) == {"bartlett2019nearly", "anthony1999neural"}


def test_public_names_have_something_to_cite():
    for module in SUBPACKAGES:
        for name, value in vars(module).items():
            if not name.startswith("_") and (inspect.isfunction(value) or inspect.isclass(value)):
                assert set(keys(citation(value))) >= CORE, name
