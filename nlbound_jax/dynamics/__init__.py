"""Training as a flow: the exact gradient flow, gradient descent, the reference flow, clocks."""

from ._descent import gradient_descent as gradient_descent
from ._flow import gradient_flow as gradient_flow
from ._learning_time import learning_time as learning_time
from ._reference import ReferenceTrajectory as ReferenceTrajectory
from ._reference import reference_flow as reference_flow
from ._tau_derivative import TauDerivative as TauDerivative
from ._tau_derivative import tau_derivative as tau_derivative
from ._trajectory import Trajectory as Trajectory
