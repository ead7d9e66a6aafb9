"""How the annotations of the package are checked wherever one of its functions is called (see conftest.py)."""

from collections.abc import Callable
from typing import Any

from beartype import BeartypeConf, beartype

# Their own words for wrong input, and those of the figures, are better, and are tested.
_REFUSE = {
    "ChoiceRegister.__call__", "AgentRegister.__call__", "FigureRegister.__call__", "_require_complete",
    "_draw", "sheet", "house_style", "table", "training_data", "paired_difference", "with_intervals", "trend_test",
    "regression_test", "played", "train", "use_cores", "require_logs",
}  # fmt: skip
# A whole number will do for a fraction.
_check = beartype(conf=BeartypeConf(is_pep484_tower=True))


def checked(function: Callable[..., Any]) -> Callable[..., Any]:
    """Checks types and shapes of what goes in and comes out, but for constructors.

    The settings of a choice are plain numbers to a user, and traced ones inside a program that sweeps over them.
    """
    name = function.__qualname__
    refuses = name in _REFUSE or name.startswith("plot_") or name.endswith("from_dict")
    return function if refuses or name.endswith("__init__") else _check(function)
