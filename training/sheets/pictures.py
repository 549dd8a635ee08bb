"""Pictures of how good a model is, from plain arrays to PNG bytes; nothing is shown, and no state is kept."""

from collections.abc import Callable, Mapping, Sequence
from io import BytesIO
from typing import TYPE_CHECKING, Final

from training.metrics import Estimate

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from training.judging.curves import Band
    from training.judging.uplift_metrics import UpliftBin

SIZE: Final = (6.4, 4.4)  # inches
METADATA: Final = {"Software": None}  # equal numbers give equal bytes


def uplift_picture(band: "Band", *, title: str, unit: str) -> bytes:
    """Draw the gain over the share of members treated, best first, beside random treatment."""

    def draw(axes: "Axes") -> None:
        _draw_band(axes, band, label="model")
        axes.plot([0, 1], [0, band.y[-1]], linestyle="--", color="grey", label="random")
        axes.set(title=title, xlabel="share of members treated, best predicted uplift first", ylabel=f"gain ({unit})")

    return _png(draw)


def reliability_picture(band: "Band", *, title: str) -> bytes:
    """Draw the rate of the outcome over the predicted probability, beside the diagonal of a calibrated one."""
    top = float(max(band.x.max(), band.upper.max()))

    def draw(axes: "Axes") -> None:
        _draw_band(axes, band, label="model")
        axes.plot([0, top], [0, top], linestyle="--", color="grey", label="calibrated")
        axes.set(title=title, xlabel="predicted probability", ylabel="rate of the outcome")

    return _png(draw)


def uplift_calibration_picture(bins: "Sequence[UpliftBin]", *, title: str, unit: str) -> bytes:
    """Draw the uplift that came over the one that was promised, a dot and its 95 % interval for each bin."""
    promised, came = [one.predicted for one in bins], [one.actual for one in bins]
    spread = [[one.value - one.lower for one in came], [one.upper - one.value for one in came]]

    def draw(axes: "Axes") -> None:
        axes.errorbar(promised, [one.value for one in came], yerr=spread, fmt="o", capsize=3, label="95 %")
        axes.axline((0, 0), slope=1, linestyle="--", color="grey", label="as promised")
        axes.set(title=title, xlabel=f"promised uplift ({unit})", ylabel="uplift that came")

    return _png(draw)


def policies_picture(values: Mapping[str, Estimate], *, title: str, unit: str) -> bytes:
    """Draw what policies earn, a dot and its 95 % interval each, in the order given from the top."""
    names = list(values)[::-1]
    found = [values[name] for name in names]
    spread = [[one.value - one.lower for one in found], [one.upper - one.value for one in found]]

    def draw(axes: "Axes") -> None:
        axes.errorbar([one.value for one in found], range(len(names)), xerr=spread, fmt="o", capsize=3, label="95 %")
        axes.axvline(0, color="grey", linestyle="--")
        axes.set(title=title, xlabel=unit, yticks=range(len(names)), yticklabels=names)

    return _png(draw)


def promised_picture(found: Mapping[str, Estimate], promised: Mapping[str, float], *, title: str, unit: str) -> bytes:
    """Draw what was found, a bar and its 95 % interval each, beside what had been promised, from the top."""
    names = list(found)[::-1]
    values = [found[name] for name in names]
    spread = [[one.value - one.lower for one in values], [one.upper - one.value for one in values]]

    def draw(axes: "Axes") -> None:
        axes.barh(range(len(names)), [one.value for one in values], xerr=spread, capsize=3, alpha=0.6, label="found")
        told = [(promised[name], place) for place, name in enumerate(names) if name in promised]
        if told:
            axes.scatter(*zip(*told, strict=True), marker="D", color="black", zorder=3, label="promised")
        axes.axvline(0, color="grey", linestyle="--")
        axes.set(title=title, xlabel=unit, yticks=range(len(names)), yticklabels=names)

    return _png(draw)


def _draw_band(axes: "Axes", band: "Band", *, label: str) -> None:
    axes.plot(band.x, band.y, label=label, marker="o" if len(band.x) <= 20 else None, markersize=4)  # noqa: PLR2004 (dots)
    axes.fill_between(band.x, band.lower, band.upper, alpha=0.25, label="95 %")


def _png(draw: Callable[["Axes"], None]) -> bytes:
    from matplotlib.figure import Figure

    figure = Figure(figsize=SIZE, layout="constrained")
    axes = figure.subplots()
    draw(axes)
    axes.legend()
    axes.grid(alpha=0.3)
    png = BytesIO()
    figure.savefig(png, format="png", metadata=METADATA)
    return png.getvalue()
