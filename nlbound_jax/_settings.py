"""All that can be set: of the data, of a report and of Theorem 5.2. A number is declared here:
its default, range, unit, the command's help and how a sweep may vary it."""

import dataclasses
from pathlib import Path
from typing import Literal

from ._numbers import check_fields, check_unused, field, like, options
from ._words import InitKind, Reading

TIME = "gradient-flow time"
_POSITIVE = {"low": 0, "open_low": True}
_FRACTION = {"low": 0, "high": 1, "open_low": True, "open_high": True}


@dataclasses.dataclass(frozen=True)
class DataSpec:
    """The data by name and how it is prepared, as `load_task` takes it.

    It is not checked here: what may be given depends on the data, which is told when it is loaded.

    **Attributes:**

    - `dataset`: `"mnist"`, `"tfds:NAME"` or the path of an `.npz` file.
    - `side`: images are pooled to that many pixels a side; for MNIST 7 if `None`.
    - `components`: keep that many leading principal directions; all if `None`.
    - `data_dir`: the folder of prepared data, for `tfds:NAME` only.
    - `positive`: the classes of label +1, separated by commas, as `"5,6"` or `"cat,dog"`; the
        default of the data if `None`.
    - `norm_bound`: R with $\\|x\\| \\le R$ for every input that may occur, for `.npz` files only.
    - `scale`: `"columns"` divides each feature by its root mean square first, for `.npz` files
        only; `"norm"` if `None`.
    """

    dataset: str = field("mnist", help="The data: mnist, tfds:NAME (prepared already) or FILE.npz.")
    side: int | None = field(
        None,
        low=1,
        unit="pixels",
        help="Pixels to which images are pooled: 7 (default), 14 or 28 for mnist.",
    )
    components: int | None = field(
        None, low=1, unit="principal directions", help="Keep that many principal directions."
    )
    data_dir: Path | str | None = field(
        None, kind="fixed", help="Folder of the prepared data sets, for tfds."
    )
    positive: str | None = field(
        None, help="Classes labelled +1, as 5,6,7 or names; by default the upper half of them."
    )
    norm_bound: float | None = field(
        None,
        **_POSITIVE,
        unit="norm of an input",
        help="A norm no input can exceed, known beforehand, for an .npz file.",
    )
    scale: Literal["norm", "columns"] | None = field(
        None,
        help="columns: divide each feature of an .npz file by its root mean square first.",
    )


@dataclasses.dataclass(frozen=True)
class Settings:
    """The settings of a report: the network, its training, and the bounds.

    **Attributes:**

    - `width`, `depth`: units of a hidden layer; L >= 2, the number of weight matrices.
    - `epsilon`: one minus the negative slope, in [0, 1].
    - `beta`: spectral norm of each layer at the start.
    - `init`: `"default"` or `"rank-one"`.
    - `kappa`: which proxy Theorem 5.2 uses, 1 or 2.
    - `delta`: one minus the confidence.
    - `precision_bits`: p, bits of a number in the counting argument.
    - `seed`: of the initialization.
    - `until`: train up to the learning time of this fraction of the strongest mode.
    - `end_time`: train up to this time instead.
    - `dynamics`: `"flow"` (exact gradient flow) or `"gd"` (full-batch gradient descent). With the
        latter, bounds that are known before training are about these steps; the time t is the
        number of steps times `step_size`, and training ends with a step that is not before its end.
    - `step_size`, `momentum`, `nesterov`: of gradient descent, as those of `optax.sgd`. They belong
        to what is fixed before the sample is seen.
    - `dtype`: `"float32"` or `"float64"`, of the training.
    - `ratios`: the margins are $\\gamma$ = scale / ratio, with the scale
        $\\|\\omega V_L \\cdots V_1(t)\\|$ of the reference network.
    - `num_times`: the number of times at which the bounds are evaluated, equally spaced up to
        the end of training.
    - `max_steps`: the largest number of solver steps.
    - `anchor_fraction`: the share of the sample that determines the anchor of the anchored bounds;
        0 for none.
    - `split_seed`: of the split into that part and the rest.
    - `rtol`: the relative tolerance of the flow. Near ReLU samples cross kinks all the time and
        every crossing costs steps: 1e-3 gets far there, at the third digit of the weights.

    **Raises:**

    `ValueError` naming the setting.
    """

    width: int = field(64, low=1, unit="units of a hidden layer", help="Units of a hidden layer.")
    depth: int = field(2, low=2, unit="weight matrices", help="Number of weight matrices L.")
    epsilon: float = field(
        0.001,
        low=0,
        high=1,
        unit="1 - negative slope",
        kind="lane",
        help="1 - negative slope: 0 linear, 1 ReLU.",
    )
    beta: float = field(
        0.001,
        **_POSITIVE,
        unit="spectral norm",
        kind="lane",
        help="Spectral norm of each layer at the start.",
    )
    init: InitKind = field("default", kind="lane", help="Initialization of the input layer.")
    kappa: int = field(2, words=(1, 2), kind="after", help="Proxy of Theorem 5.2: 1 or 2.")
    delta: float = field(
        0.01,
        **_FRACTION,
        unit="probability",
        kind="after",
        help="1 - confidence.",
    )
    precision_bits: int = field(32, low=1, unit="bits", kind="after", help="Bits of a number, p.")
    seed: int = field(0, low=0, high=2**32 - 1, kind="lane", help="Seed of the initialization.")
    until: float = field(
        0.9,
        **_FRACTION,
        unit="fraction of the strongest mode",
        kind="lane",
        help="Train until this fraction of the strongest mode is learned.",
    )
    end_time: float | None = field(
        None,
        **_POSITIVE,
        unit=TIME,
        kind="lane",
        help="Train until this time instead of --until.",
    )
    dynamics: Literal["flow", "gd"] = field(
        "flow", help="Exact gradient flow, or gradient descent in steps of --step-size."
    )
    step_size: float = field(
        0.001, **_POSITIVE, kind="lane", help="Learning rate of gradient descent."
    )
    momentum: float = field(
        0.0, low=0, high=1, open_high=True, kind="lane", help="Momentum of gradient descent."
    )
    nesterov: bool = field(False, kind="fixed", help="Nesterov's momentum.")
    dtype: Literal["float32", "float64"] = field("float32", help="Precision of the training.")
    ratios: tuple[float, ...] = field(
        (1.0, 3.0, 10.0, 30.0, 100.0, 300.0), **_POSITIVE, kind="fixed"
    )
    num_times: int = field(40, low=1, kind="fixed")
    max_steps: int = field(4096, low=1, unit="solver steps", help="Largest number of solver steps.")
    anchor_fraction: float = field(
        0.5,
        low=0,
        high=1,
        open_high=True,
        unit="share of the sample",
        kind="fixed",
        help="Share of the sample that determines the anchor; 0 for none.",
    )
    split_seed: int = field(
        0, low=0, high=2**32 - 1, kind="fixed", help="Seed of the split that the anchor has."
    )
    rtol: float = field(
        1e-4,
        **_FRACTION,
        kind="lane",
        help="Relative tolerance of the flow; 1e-3 for long runs near ReLU.",
    )

    def __post_init__(self):
        check_fields(self)
        if self.dynamics == "flow":
            check_unused(self, ("step_size", "momentum", "nesterov"), "`dynamics` = 'gd'")

    @property
    def cells(self) -> int:
        """The number of (t, gamma) cells of a bound, over which the union is taken."""
        return self.num_times * len(self.ratios)

    @property
    def bound_numbers(self) -> dict:
        """The settings that enter the bounds alone, by name."""
        return {n: getattr(self, n) for n, o in options(Settings).items() if o.kind == "after"}

    def as_dict(self) -> dict:
        """The settings as plain JSON values."""
        return dataclasses.asdict(self) | {"ratios": list(self.ratios)}


@dataclasses.dataclass(frozen=True)
class Arguments:
    """The arguments of Theorem 5.2, in the order of a grid's dimensions: real numbers, which may
    be arrays, then what chooses the formula. The defaults are those of `nlbound bound` and of a
    sweep, of data like MNIST at 7 x 7 pixels."""

    t: float = field(None, low=0, unit=TIME, help="Training time.")
    epsilon: float = like(Settings, "epsilon")
    beta: float = like(Settings, "beta")
    gamma: float = field(1e-6, **_POSITIVE, unit="margin", help="The margin.")
    stable_rank_root: float = field(1.0, low=1, help="rho: ||W_1||_F / ||W_1||.")
    alignment: float = field(0.633, low=0, high=1, help="s: norm of the linear fit.")
    dim: float = field(49.0, low=1, unit="coordinates", help="d: whitened coordinates.")
    num_samples: float = field(60000.0, low=1, unit="samples", help="m: training samples.")
    precision_bits: float = like(Settings, "precision_bits", default=32.0)
    delta: float = like(Settings, "delta")
    cells: float = field(1.0, low=1, unit="cells", help="Cells to pay for.")
    train_risk: float | None = field(
        None, low=0, high=1, unit="probability", help="Margin risk, for the value."
    )
    depth: int = like(Settings, "depth")
    kappa: int = like(Settings, "kappa")
    reading: Reading = field("repaired", help="As printed, or repaired.")
    assumption_5_1: bool = field(True, help="Rely on it or not.")
