"""What a report is made with."""

import dataclasses
from typing import Literal

from .. import _validate
from .._types import InitKind


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
    - `dynamics`: `"flow"` (exact gradient flow) or `"gd"` (gradient descent, step 0.001).
    - `dtype`: `"float32"` or `"float64"`, of the training.
    - `ratios`: the margins are $\\gamma$ = scale / ratio, with the scale
        $\\|\\omega V_L \\cdots V_1(t)\\|$ of the reference network.
    - `num_times`: the number of times at which the bounds are evaluated, equally spaced up to
        the end of training.
    - `max_steps`: the largest number of solver steps.
    - `rtol`: the relative tolerance of the flow. Near ReLU samples cross kinks all the time and
        every crossing costs steps: 1e-3 gets far there, at the third digit of the weights.

    **Raises:**

    `ValueError` naming the setting.
    """

    width: int = 64
    depth: int = 2
    epsilon: float = 0.001
    beta: float = 0.001
    init: InitKind = "default"
    kappa: int = 2
    delta: float = 0.01
    precision_bits: int = 32
    seed: int = 0
    until: float = 0.9
    end_time: float | None = None
    dynamics: Literal["flow", "gd"] = "flow"
    dtype: Literal["float32", "float64"] = "float32"
    ratios: tuple[float, ...] = (1.0, 3.0, 10.0, 30.0, 100.0, 300.0)
    num_times: int = 40
    max_steps: int = 4096
    rtol: float = 1e-4

    def __post_init__(self):
        integer, scalar, member = _validate.integer, _validate.scalar, _validate.member
        integer("width", self.width, 1)
        integer("depth", self.depth, 2)
        scalar("epsilon", self.epsilon, low=0, high=1)
        scalar("beta", self.beta, low=0, open_low=True)
        member("init", self.init, ("default", "rank-one"))
        member("kappa", self.kappa, (1, 2))
        scalar("delta", self.delta, low=0, high=1, open_low=True, open_high=True)
        integer("precision_bits", self.precision_bits, 1)
        integer("seed", self.seed, 0, 2**32 - 1)
        scalar("until", self.until, low=0, high=1, open_low=True, open_high=True)
        if self.end_time is not None:
            scalar("end_time", self.end_time, low=0, open_low=True)
        member("dynamics", self.dynamics, ("flow", "gd"))
        member("dtype", self.dtype, ("float32", "float64"))
        if not self.ratios:
            raise ValueError("`ratios` must have at least one number, got none.")
        for ratio in self.ratios:
            scalar("ratios", ratio, low=0, open_low=True)
        integer("num_times", self.num_times, 1)
        integer("max_steps", self.max_steps, 1)
        scalar("rtol", self.rtol, low=0, high=1, open_low=True, open_high=True)

    @property
    def cells(self) -> int:
        """The number of (t, gamma) cells of a bound, over which the union is taken."""
        return self.num_times * len(self.ratios)

    def as_dict(self) -> dict:
        """The settings as plain JSON values."""
        return dataclasses.asdict(self) | {"ratios": list(self.ratios)}
