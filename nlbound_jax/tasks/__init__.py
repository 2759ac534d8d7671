"""Data becomes a `Task`: labels in {-1, +1}, inputs in the unit ball, whitened; or a `ClassTask` of
several classes."""

from ._anchor import AnchorSplit as AnchorSplit
from ._anchor import split as split
from ._arrays import from_arrays as from_arrays
from ._classes import ClassTask as ClassTask
from ._classes import Inputs as Inputs
from ._classes import class_task as class_task
from ._classes import mnist_classes as mnist_classes
from ._mnist import load_mnist as load_mnist
from ._mnist import mnist as mnist
from ._named import DataSpec as DataSpec
from ._named import load_task as load_task
from ._npz import from_npz as from_npz
from ._task import Task as Task
from ._task import Transform as Transform
from ._tfds import from_tfds as from_tfds
