"""How far a training is, as it is shown to a person."""

import sys
import time
from types import TracebackType

import diffrax
import jax.numpy as jnp

# A bar is drawn anew at most that often, in seconds.
INTERVAL = 0.1


class ProgressBar(diffrax.TqdmProgressMeter):
    """A progress meter that says what is known: the time that training has come to, the steps it
    took and their rate. It estimates no end, since steps change their length, and stays where the
    training stopped. Where JAX traces the training it is Diffrax's `TqdmProgressMeter`.

    **Attributes:**

    - `refresh_steps`: of Diffrax's, after how many steps it is drawn anew.
    """


class Meter:
    """Shows how far a training from time 0 to `t1` is, in a meter that the host drives. What an
    interrupt ends says how far it came."""

    def __init__(self, meter: diffrax.AbstractProgressMeter, t1: float):
        self.meter, self.t1 = meter, t1
        self.t, self.steps, self.drawn = 0.0, 0, 0.0
        self.since: tuple[float, int] | None = None

    def __enter__(self) -> "Meter":
        if isinstance(self.meter, ProgressBar):
            # Imported here: a bar is not always wanted.
            import tqdm

            self.bar = tqdm.tqdm(
                total=self.t1,
                bar_format="{bar}| {desc} [{elapsed}]",
                file=sys.stderr,
                dynamic_ncols=True,
            )
            self(0.0, 0)
        else:
            self.state = self.meter.init()
        return self

    def __call__(self, t: float, steps: int) -> None:
        """Show that training is at time `t` after so many steps."""
        now = time.monotonic()
        self.t, self.steps = t, steps
        if not isinstance(self.meter, ProgressBar):
            self.state = self.meter.step(self.state, jnp.asarray(t / self.t1))
            return
        if self.since is None and steps:  # from here on nothing is compiled
            self.since = now, steps
        if now - self.drawn >= INTERVAL:
            self._draw(now)

    def _draw(self, now: float) -> None:
        text, self.drawn = f"t = {self.t:.4g} of {self.t1:.4g}, {self.steps} steps", now
        if self.since is not None and self.steps > self.since[1]:
            text += f", {(self.steps - self.since[1]) / max(now - self.since[0], 1e-9):.3g}/s"
        self.bar.set_description_str(text, refresh=False)
        self.bar.n = self.t
        self.bar.refresh()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if isinstance(self.meter, ProgressBar):
            self._draw(time.monotonic())
            self.bar.close()
        else:
            self.meter.close(self.state)
        if isinstance(error, KeyboardInterrupt):
            error.add_note(
                f"training was at t = {self.t:.6g} of {self.t1:.6g} after {self.steps} steps"
            )
