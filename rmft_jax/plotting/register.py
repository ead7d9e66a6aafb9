"""The register of figure kinds: those of this package, and those of users."""

import contextlib
import functools
import inspect
import traceback
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple, TypeVar, cast

import xarray as xr
from matplotlib.figure import Figure

from rmft_jax.config import ConfigError, Register
from rmft_jax.config.checks import first_line, require
from rmft_jax.statistics.estimates import is_sweep

D = TypeVar("D", bound=Callable[..., Figure])


class FigureKind(NamedTuple):
    """How a kind of figure is drawn.

    draw: from a dataset, and options by name.
    needs: variables or dimensions of which the dataset must have one.
    axes: how many dimensions of a sweep are along the axes of the figure.
    options: those that `draw` takes.
    along: the dimension that is along the axis, where it is always the same.
    """

    draw: Callable[..., Figure]
    needs: tuple[str, ...]
    axes: int
    options: tuple[str, ...]
    along: str | None = None

    def fits(self, dataset: xr.Dataset) -> bool:
        """Whether a dataset has what the figure needs."""
        return any(name in dataset.variables or name in dataset.dims for name in self.needs)


class FigureRegister(Register[FigureKind]):
    """The register of figure kinds: a decorator of functions that draw them, name first."""

    def __call__(
        self, name: str, *, needs: str | tuple[str, ...], axes: int = 0, along: str | None = None
    ) -> Callable[[D], D]:
        """Registers a function from the dataset of a run or a sweep to a matplotlib figure.

        Its other parameters are its options, each with a default. `rmft plot` knows `by`, the dimension of a sweep that
        panels or curves differ in, `select`, `baselines`, `relative_to` and `style`. Of a run there is `summary`
        (`summarize`) too, and for what draws the metrics of training `evaluation`.

        Args:
          name: of the kind.
          needs: the variable, or dimension, that the dataset must have; or several of which it must have one.
          axes: how many dimensions of a sweep are along the axes of the figure, 0, 1 or 2; it takes a sweep that varies
            as many.
          along: the dimension that is along the axis, of which the sweep must have several values; None: any.

        Returns:
          A decorator. The function then refuses, with a `ConfigError`, a dataset without what it needs.

        Raises:
          ConfigError: if the function cannot be called with a dataset alone, or if the name is taken.
        """
        require(axes in (0, 1, 2), f"axes={axes} of figure {name!r}", "0, 1 or 2", "axes=0")
        any_of = (needs,) if isinstance(needs, str) else needs
        named = isinstance(any_of, Sequence) and all(isinstance(one, str) for one in any_of)
        require(named, f"needs={needs!r} of figure {name!r}", "a name, or some", "needs='regret'")

        def register(draw: D) -> D:
            signature = inspect.signature(draw)
            parameters: list[Any] = [*signature.parameters.values()]
            ok = bool(parameters) and parameters[0].kind <= inspect.Parameter.POSITIONAL_OR_KEYWORD
            ok = ok and all(one.default is not one.empty for one in parameters[1:])
            need = "a parameter for the dataset, and a default for every other"
            require(ok, f"figure {name!r} of {signature}", need, "(dataset, *, style='paper')")

            @functools.wraps(draw)
            def checked(*args: Any, **options: Any) -> Figure:
                dataset = next(iter(signature.bind(*args, **options).arguments.values()))
                got = f"a {'sweep' if is_sweep(dataset) else 'single run'} without {' or '.join(kind.needs)}"
                need = f"one with it for figure {name!r} (a run has no dimensions, play in a ball no arms)"
                require(kind.fits(dataset), got, need, "another kind, or the directory of a run or a sweep")
                with _told(name, draw):
                    figure = draw(*args, **options)
                got = f"{type(figure).__name__} from the function of figure {name!r}"
                require(isinstance(figure, Figure), got, "a matplotlib Figure", "return figure")
                return figure

            kind = FigureKind(checked, any_of, axes, tuple(one.name for one in parameters[1:]), along)
            self.add(name, kind, draw)
            return cast(D, checked)

        return register


@contextlib.contextmanager
def _told(name: str, draw: Callable[..., Figure]) -> Iterator[None]:
    """What fails within a user's function is told in a line; what fails within ours is a fault of ours."""
    try:
        yield
    except ConfigError:
        raise
    except Exception as error:
        if draw.__module__.startswith("rmft_jax."):
            raise
        frame = traceback.extract_tb(error.__traceback__)[-1]
        got = f"got figure {name!r} ({first_line(error)} at {frame.filename}:{frame.lineno})"
        need = "a function that draws this dataset"
        raise ConfigError(f"{got}, need {need}; try calling it with it in Python") from error


register_figure = FIGURES = FigureRegister("figure")
