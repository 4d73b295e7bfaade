"""Stage 3, metrics on the full catalogue.

From a notebook::

from raycl import evaluation

found = evaluation.run("shop.yaml", "evaluation.ks=[10]")  # or evaluation.load("workspace/evaluations/<version>")
found.metrics        # polars: model, segment, metric, value, low, high, users
found.users()        # polars: a row a user
evaluation.compare(evaluation.load("a.yaml"), found, correction="benjamini_hochberg")
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from polars import DataFrame

    from raycl.evaluation.comparison import Evaluation
    from raycl.evaluation.significance import Correction

__all__ = ["compare", "load", "run"]

# The parts are imported inside the functions: Ray must be imported after its environment is set.


def run(config: str, *overrides: str, force: bool = False, index: bool = False) -> Evaluation:
    """Evaluate the towers of a config file, with ``overrides`` such as ``evaluation.ks=[10]``, as ``raycl evaluate``.

    A finished evaluation is found again. The errors are those of the command.
    """
    from raycl import config_file, environment, journey
    from raycl.evaluation.comparison import Evaluation

    environment.prepare()
    return Evaluation(journey.evaluate(config_file.load(config, overrides), force=force, index=index).version)


def load(place: str, *overrides: str) -> Evaluation:
    """The evaluation in a folder of a workspace, or the finished one of a config file (``.yaml`` or ``.yml``).

    InputError where there is none.
    """
    from raycl.evaluation import finished

    return finished.load(place, overrides)


def compare(
    first: Evaluation,
    second: Evaluation,
    *,
    models: tuple[str, str] = ("towers", "towers"),
    metrics: tuple[str, ...] = (),
    segments: tuple[str, ...] = (),
    correction: Correction = "holm",
) -> DataFrame:
    """How two evaluations differ over the same users, row by row a segment and a metric.

    Columns ``first``, ``second``, ``difference`` with ``low`` and ``high``, ``users``, ``p`` and ``p_corrected``.
    InputError where they were measured by different protocols, naming the field.
    """
    from raycl.evaluation import comparison

    return comparison.compare(first, second, models=models, metrics=metrics, segments=segments, correction=correction)
