"""A number is declared once: a field of a dataclass is an option of the command, an axis of a sweep
and a line of an error, and nothing that is declared is written a second time."""

import dataclasses
import inspect
import subprocess
import sys
from typing import Annotated, Literal

import pytest
import typer
from typer.testing import CliRunner

from nlbound_jax import Settings, bounds, figures
from nlbound_jax._numbers import check_fields, field, like, options
from nlbound_jax._settings import Arguments, DataSpec
from nlbound_jax.cli._app import app
from nlbound_jax.cli._options import Only, Texts, declared
from nlbound_jax.sweep import SweepConfig, _options

pytestmark = [pytest.mark.float64, pytest.mark.quick]

THEOREM = (bounds.theorem_5_2, bounds.grid, bounds.certified_theorem_5_2)


@dataclasses.dataclass(frozen=True)
class Toy:
    """Settings with numbers that the library has never heard of."""

    width: int = like(Settings, "width", default=8)
    heat: float = field(0.5, low=0, high=2, open_high=True, unit="kelvin", kind="lane", help="Hot.")
    count: int = field(3, low=1, high=9, help="How many.")
    mode: Literal["slow", "very-fast"] = field("slow", kind="lane", help="How fast.")
    limit: float | None = field(None, low=0, open_low=True, kind="lane", help="At most that.")
    safe: bool = field(True, help="Careful.")
    ratios: tuple[float, ...] = field((1.0,), low=0, open_low=True, kind="fixed")

    def __post_init__(self):
        check_fields(self)


BAD = {
    "width": (0, "an integer of at least 1, got 0."),
    "heat": (2.0, "in [0, 2), got 2."),
    "count": (10, "an integer in [1, 9], got 10."),
    "mode": ("fast", "one of 'slow', 'very-fast', got 'fast'."),
    "limit": (0.0, "positive and finite, got 0."),
    "safe": (2, "one of True, False, got 2."),
    "ratios": ((1.0, -1.0), "positive and finite, got -1."),
}


def command_of(function):
    """What Typer makes of a function alone."""
    single = typer.Typer()
    single.command()(function)
    return single


@pytest.mark.parametrize("name", BAD)
def test_a_new_field_is_checked_in_one_line(name):
    value, allowed = BAD[name]
    with pytest.raises(ValueError, match="`") as error:
        Toy(**{name: value})
    assert str(error.value) == f"`{name}` must be {allowed}"
    with pytest.raises(ValueError, match="`") as error:
        options(Toy)[name].check("axes.other", value)
    assert str(error.value) == f"`axes.other` must be {allowed}"


def test_a_value_keeps_its_type_in_the_settings_and_takes_the_declared_one_elsewhere():
    made = Toy(heat=1)
    assert isinstance(made.heat, int)
    assert isinstance(options(Toy)["heat"].check("heat", 1), float)
    assert made.limit is None
    with pytest.raises(ValueError, match="`heat` must be"):
        Toy(heat=None)
    with pytest.raises(ValueError, match="`ratios` must be a list of numbers, got 3."):
        Toy(ratios=3)
    with pytest.raises(ValueError, match="`ratios` must have at least one number, got none."):
        Toy(ratios=())


def test_a_new_field_is_an_option_of_a_command():
    seen = []

    @declared
    def run(settings: Toy, own: Annotated[int, typer.Option(help="Its own.")] = 1) -> None:
        """Runs."""
        seen.append((settings, own))

    single = command_of(run)
    shown = CliRunner().invoke(single, ["--help"], env={"COLUMNS": "120"}).output
    for text in ("--heat", "Hot.", "0.5", "<slow|very-fast>", "--limit", "--no-safe", "--own"):
        assert text in shown
    assert "--ratios" not in shown  # it has no help
    given = ["--heat", "1.5", "--mode", "very-fast", "--limit", "2", "--no-safe", "--own", "7"]
    assert CliRunner().invoke(single, given).exit_code == 0
    assert CliRunner().invoke(single, []).exit_code == 0
    assert seen == [(Toy(heat=1.5, mode="very-fast", limit=2.0, safe=False), 7), (Toy(), 1)]
    wrong = CliRunner().invoke(single, ["--heat", "2"])
    assert wrong.exit_code == 2
    assert wrong.stderr == "nlbound: `--heat` must be in [0, 2), got 2.\n"


def test_some_fields_some_of_them_required_and_numbers_as_texts():
    seen = []

    @declared
    def some(settings: Annotated[Toy, Only(("heat", "width"), required=("heat",))]) -> None:
        seen.append(settings)

    @declared
    def texts(given: Annotated[dict, Texts(Toy)]) -> None:
        seen.append(given)

    assert CliRunner().invoke(command_of(some), ["--width", "2"]).exit_code == 2
    assert CliRunner().invoke(command_of(some), ["--count", "2", "--heat", "1"]).exit_code == 2
    assert CliRunner().invoke(command_of(some), ["--heat", "1"]).exit_code == 0
    assert CliRunner().invoke(command_of(texts), ["--heat", "1:3:2"]).exit_code == 0
    assert seen[0] == Toy(heat=1.0)
    assert (seen[1]["heat"], seen[1]["count"], seen[1]["mode"]) == ("1:3:2", 3, "slow")


def test_a_new_field_is_an_axis_of_a_sweep(monkeypatch):
    monkeypatch.setattr(_options, "REPORT", dict(options(Toy)))
    axes = {"heat": {"start": 0, "stop": 1, "num": 3}, "count": {"start": 1, "stop": 3, "num": 2}}
    made = SweepConfig(axes | {"mode": ["slow", "very-fast"]}, {"ratios": [1, 2], "limit": 3})
    assert made.axes == {"heat": (0.0, 0.5, 1.0), "count": (1, 3), "mode": ("slow", "very-fast")}
    assert made.settings == {"ratios": (1.0, 2.0), "limit": 3.0}
    assert made.as_dict()["settings"]["width"] == 8
    assert _options.options_of("report")["heat"].unit == "kelvin"
    with pytest.raises(ValueError, match=r"^`axes.heat` must be in \[0, 2\), got 3.$"):
        SweepConfig({"heat": [3.0]})
    with pytest.raises(ValueError, match="^`axes.ratios` must be left out: give `settings.ratios`"):
        SweepConfig({"ratios": [1.0]})
    with pytest.raises(ValueError, match="^`axes.count` must have integers"):
        SweepConfig({"count": {"start": 1, "stop": 2, "num": 3}})


@pytest.mark.parametrize("name", ["report", "check", "compare", "certify", "figure", "bound"])
def test_the_command_has_the_defaults_and_texts_that_are_declared(name):
    known = dict(options(Settings)) | dict(options(DataSpec))
    if name == "bound":
        known = dict(options(Arguments))
    params = {p.name: p for p in typer.main.get_command(app).commands[name].params}
    shared = [n for n in params if n in known]
    assert len(shared) > (0 if name == "figure" else 7)
    for one in shared:
        option, default = known[one], params[one].default
        assert params[one].help.startswith(option.help)
        if params[one].required:
            assert (name, one) in {("certify", "epsilon"), ("bound", "t")}
        elif option.default is None:
            assert default is None
        else:
            assert option.type(getattr(default, "value", default)) == option.default
    if name in ("report", "bound"):
        assert {n for n, o in known.items() if o.help} <= set(params)


def test_signatures_and_presets_agree_with_what_is_declared():
    for function in THEOREM:
        found = inspect.signature(function).parameters
        assert set(options(Arguments)) <= set(found)
        for name, option in options(Arguments).items():
            if found[name].default is not inspect.Parameter.empty:
                assert found[name].default == option.default
    assert figures.Preset().seed == Settings.seed


def test_what_two_places_have_is_one_number():
    for name in set(options(Settings)) & set(options(Arguments)):
        one, other = options(Settings)[name], options(Arguments)[name]
        assert dataclasses.replace(one, type=other.type) == other
    for option in (*options(Settings).values(), *options(DataSpec).values()):
        if option.default is not None:
            option.check("default", option.default)
    for name, option in _options.THEORY.items():
        assert option.kind == ("lane" if name in bounds._arguments.NUMBERS else "outer")


@pytest.mark.parametrize("name", ["report", "bound"])
def test_the_help_of_a_command_needs_neither_jax_nor_numpy(name):
    code = (
        f"import sys; sys.argv = ['nlbound', '{name}', '--help']\n"
        "from nlbound_jax.cli import main\n"
        "try: main()\n"
        "finally: assert not {'jax', 'numpy', 'matplotlib'} & set(sys.modules)"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert out.returncode == 0, out.stderr
    assert "--epsilon" in out.stdout
