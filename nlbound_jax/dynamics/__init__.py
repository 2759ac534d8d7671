"""Training as a flow: the exact gradient flow, gradient descent, the reference flow, clocks; and
the engine beneath them, for many flows at once."""

from ._descent import gradient_descent as gradient_descent
from ._devices import replicate as replicate
from ._devices import run_on_mesh as run_on_mesh
from ._devices import samples_mesh as samples_mesh
from ._engine import FlowSolution as FlowSolution
from ._engine import default_controller as default_controller
from ._engine import pi_controller as pi_controller
from ._engine import solve_flow as solve_flow
from ._envelope import EnvelopeSlopes as EnvelopeSlopes
from ._envelope import EnvelopeTerms as EnvelopeTerms
from ._envelope import envelope_slopes as envelope_slopes
from ._field import Blocks as Blocks
from ._field import SampleBlocks as SampleBlocks
from ._field import make_blocks as make_blocks
from ._field import make_sample_blocks as make_sample_blocks
from ._field import negative_gradient as negative_gradient
from ._flow import gradient_flow as gradient_flow
from ._hyperparameter import HyperparameterDerivative as HyperparameterDerivative
from ._hyperparameter import hyperparameter_derivative as hyperparameter_derivative
from ._learning_time import learning_time as learning_time
from ._lemma import envelope_terms as envelope_terms
from ._model import Model as Model
from ._progress import ProgressBar as ProgressBar
from ._reference import ReferenceTrajectory as ReferenceTrajectory
from ._reference import reference_flow as reference_flow
from ._reference_descent import reference_descent as reference_descent
from ._tau_derivative import TauDerivative as TauDerivative
from ._tau_derivative import tau_derivative as tau_derivative
from ._trajectory import Trajectory as Trajectory
