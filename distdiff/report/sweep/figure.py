"""Draws what a sweep has found: lines along a numeric key, a heat map over two, dots for settings that are no numbers."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean

from matplotlib.axes import Axes
from matplotlib.colors import BoundaryNorm
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from distdiff.report.figures import COLOUR_MAP, label, styled
from distdiff.report.palette import GRID, INK, MARKERS, MUTED, ON_SCALE, SCALE, SERIES
from distdiff.report.sweep.choosing import Choice
from distdiff.report.sweep.jobs import Values
from distdiff.report.sweep.scales import Scale
from distdiff.report.sweep.settings import RHO, Setting, Sweep, interval
from distdiff.report.table import shown_number, title
from distdiff.study.measures import ACCURACY
from distdiff.study.statistics import Interval

LARGE, SMALL = (5.2, 3.5), (4.4, 2.9)  # inches: of the accuracy, and of the other values
MOST_SERIES = len(SERIES)
MOST_LINES = 40  # settings that are drawn as dots
MOST_MAPS = 4  # groups of which a heat map is drawn
MOST_CELLS = 150  # of a heat map; the numbers of a larger one would not be legible
APART = 0.012  # of the axis, between the series, so that their intervals do not cover each other
MOST_TOLD = 30  # values that a description lists
RING = {"markerfacecolor": "none", "markeredgecolor": INK, "markersize": 13, "label": "chosen"}
LEGEND = {"loc": "lower center", "bbox_to_anchor": (0.5, 1.0), "fontsize": 8.5}

Groups = Mapping[str, list[Setting]]


@dataclass(frozen=True)
class Estimate:
    """A mean and its interval, if there is one."""

    mean: float
    interval: Interval | None = None

    @classmethod
    def of(cls, values: Values) -> "Estimate":
        return cls(fmean(values.values()), interval(values))

    @property
    def half(self) -> float:
        """Half of the interval; 0 if there is none."""
        return 0.0 if self.interval is None else (self.interval.high - self.interval.low) / 2

    def __str__(self) -> str:
        if self.interval is None:
            return shown_number(self.mean)
        return f"{shown_number(self.mean)} ({shown_number(self.interval.low)} to {shown_number(self.interval.high)})"


@dataclass(frozen=True)
class Quantity:
    """What is drawn against the settings: an estimate for each setting, by `id`, on an axis that is called `title`.

    `level` is the estimate of unguided expansion if it is the same for all settings, and `unguided` are its estimates
    otherwise. `chosen` are the settings to mark, and `chosen_unguided` the unguided expansions. `name` is that of the values;
    None for a difference.
    """

    title: str
    estimates: Mapping[int, Estimate]
    level: Estimate | None = None
    unguided: Mapping[int, Estimate] = field(default_factory=dict)
    chosen: tuple[Setting, ...] = ()
    chosen_unguided: tuple[Setting, ...] = ()
    name: str | None = None

    def of(self, settings: Sequence[Setting]) -> list[tuple[Setting, Estimate]]:
        return [(each, self.estimates[id(each)]) for each in settings if id(each) in self.estimates]

    def marks(self, setting: Setting) -> bool:
        """Whether the setting is chosen."""
        return any(setting is each for each in self.chosen)

    def place_of_chosen(self, settings: Sequence[Setting]) -> list[Setting]:
        """The settings at whose own unguided estimates chosen unguided expansions are marked: the first that share each."""
        shown = [each for each in settings if id(each) in self.unguided]
        found = (
            [each for each in shown if any(each is one for one in chosen.sharing)] for chosen in self.chosen_unguided
        )
        return [sharing[0] for sharing in found if sharing]


@dataclass(frozen=True)
class Panel:
    """A figure of one quantity against the settings, with what it shows in words."""

    title: str
    description: str
    figure: Figure


def value_title(sweep: Sweep, name: str) -> str:
    """A value's name for people, with an arrow that says whether higher is better."""
    return title(name, sweep.directions.get(name))


def key_title(key: str) -> str:
    return f"guidance strength ρ ({key})" if key == RHO else key


def panels(sweep: Sweep, chosen: Sequence[Choice]) -> list[Panel]:
    """A panel for each quantity; of heat maps, one for each of the first groups."""
    groups = sweep.grouped()
    parts = [{group: groups[group]} for group in list(groups)[:MOST_MAPS]]
    if len(sweep.axes) < 2:
        parts = [_most_important(sweep) if sweep.axes else groups]
    found = []
    for quantity in _quantities(sweep, chosen):
        for part in parts:
            if any(quantity.of(settings) for settings in part.values()):
                found.append(_panel(sweep, quantity, part))
    return found


def whole_figure(sweep: Sweep, chosen: Sequence[Choice]) -> Figure:
    """All quantities in one figure, for a file; of heat maps those of the first group."""
    groups, quantities = sweep.grouped(), _quantities(sweep, chosen)
    part = {0: groups, 1: _most_important(sweep), 2: dict(list(groups.items())[:1])}[len(sweep.axes)]
    columns = min(2, len(quantities))
    rows = -(-len(quantities) // columns)
    with styled():
        size = _size(sweep, quantities[0], part)
        figure = Figure(figsize=(size[0] * columns, size[1] * rows), layout="constrained")
        places = figure.subplots(rows, columns, squeeze=False).ravel()
        for axes, quantity in zip(places, quantities, strict=False):
            _draw(axes, sweep, quantity, part)
        for axes in places[len(quantities) :]:
            axes.set_visible(False)
    return figure


def _quantities(sweep: Sweep, chosen: Sequence[Choice]) -> list[Quantity]:
    """The accuracy, its difference to unguided expansion, and the other values that are drawn."""
    found = []
    picked = [choice.twin or choice.chosen for choice in chosen]
    marked = tuple(each for each in picked if not each.is_unguided)
    unguided_marked = tuple(each for each in picked if each.is_unguided)
    for name in sweep.panels:
        words = value_title(sweep, name)
        if name == ACCURACY and sweep.split:
            words += f" ({sweep.split})"
        level = _level(sweep.settings, name)
        unguided = {} if level else {id(each): each.unguided[name] for each in sweep.settings if name in each.unguided}
        found.append(
            Quantity(
                words,
                {id(each): Estimate.of(each.of(name)) for each in sweep.settings if each.of(name)},
                level,
                {key: Estimate.of(values) for key, values in unguided.items()},
                marked if name == ACCURACY else (),
                unguided_marked if name == ACCURACY else (),
                name,
            )
        )
        gains = [gain for choice in chosen for gain in choice.gains]
        if name == ACCURACY and gains:
            differences = {id(gain.setting): Estimate(gain.difference.mean, gain.difference.interval) for gain in gains}
            found.append(Quantity("accuracy − unguided, paired", differences, Estimate(0.0)))
    return found


def _level(settings: Sequence[Setting], name: str) -> Estimate | None:
    """Unguided expansion, if it is the same for all settings."""
    known = [setting.unguided[name] for setting in settings if name in setting.unguided]
    return Estimate.of(known[0]) if known and all(values == known[0] for values in known) else None


def _most_important(sweep: Sweep) -> dict[str, list[Setting]]:
    """The groups that have the best settings, if there are more than can be told apart."""
    best_first = dict.fromkeys(sweep.group(setting) for setting in sweep.ranked)
    kept = list(best_first)[:MOST_SERIES]
    return {group: settings for group, settings in sweep.grouped().items() if group in kept}


def _drawn_as_dots(sweep: Sweep, settings: Sequence[Setting]) -> list[Setting]:
    """The best of the settings, in their own order, if there are more than there is room for. The same in all figures."""
    kept = {id(setting) for setting in sweep.ranked[:MOST_LINES]}
    return [setting for setting in settings if id(setting) in kept]


def not_drawn(sweep: Sweep) -> str:
    """What figures leave out because there is too much of it, in words; empty if nothing."""
    groups, count = len(sweep.grouped()), len(sweep.settings)
    if len(sweep.axes) == 2 and groups > MOST_MAPS:
        return f"The figures show the first {MOST_MAPS} of {groups} groups; the table has all."
    if sweep.axes and groups > MOST_SERIES:
        return f"The figures show {_which(sweep, MOST_SERIES)} of {groups} groups; the table has all."
    if not sweep.axes and count > MOST_LINES:
        return f"The figures show {_which(sweep, MOST_LINES)} of {count} settings; the table has all."
    return ""


def _which(sweep: Sweep, count: int) -> str:
    """Which of more settings or groups are drawn: those that `Sweep.ranked` has first."""
    if sweep.leading is None:
        return f"the first {count}"
    name, higher = sweep.leading
    return f"the {count} with the {'highest' if higher else 'lowest'} {title(name, None)}"


def _panel(sweep: Sweep, quantity: Quantity, part: Groups) -> Panel:
    with styled():
        figure = Figure(figsize=_size(sweep, quantity, part), layout="constrained")
        _draw(figure.subplots(), sweep, quantity, part)
    against = " and ".join(map(key_title, sweep.axes)) or "setting"
    group = f" ({next(iter(part))})" if len(sweep.axes) == 2 and next(iter(part)) else ""
    return Panel(f"{quantity.title} by {against}{group}", _described(sweep, quantity, part), figure)


def _size(sweep: Sweep, quantity: Quantity, part: Groups) -> tuple[float, float]:
    if not sweep.axes:
        return LARGE[0], 1.2 + 0.27 * min(MOST_LINES, sum(map(len, part.values())))
    if len(sweep.axes) == 2:
        rows = len({setting.number(sweep.axes[1]) for setting in sweep.settings})
        return LARGE[0], min(8.0, max(2.6, 1.2 + 0.4 * rows))
    return LARGE if quantity.name == ACCURACY else SMALL


def _described(sweep: Sweep, quantity: Quantity, part: Groups) -> str:
    told, chosen = [], []
    for group, settings in part.items():
        for setting, estimate in quantity.of(settings):
            keys = ", ".join(f"{key} {setting.given[key]}" for key in sweep.axes)
            name = " ".join(filter(None, (group, keys))) or "the setting"
            told.append(f"{name}: {estimate}")
            chosen += [name] if quantity.marks(setting) else []
    if len(told) > MOST_TOLD:
        told = [*told[:MOST_TOLD], f"and {len(told) - MOST_TOLD} more, which are in the table"]
    told += [f"unguided: {quantity.level}"] if quantity.level else []
    chosen += ["unguided"] if quantity.chosen_unguided else []
    return "; ".join([*told, *(f"chosen: {name}" for name in chosen)])


def _draw(axes: Axes, sweep: Sweep, quantity: Quantity, part: Groups) -> None:
    if len(sweep.axes) == 2:
        (settings,) = part.values()
        _draw_map(axes, sweep, quantity, settings)
        return
    if sweep.axes:
        _draw_lines(axes, sweep, quantity, part)
    else:
        _draw_dots(axes, sweep, quantity, [setting for settings in part.values() for setting in settings])
    axes.set_axisbelow(True)
    handles = dict(zip(*reversed(axes.get_legend_handles_labels()), strict=True))  # each name once
    if handles:
        axes.legend(handles.values(), handles, ncols=min(3, len(handles)), **LEGEND)


def _draw_level(estimate: Estimate, line, span) -> None:
    line(estimate.mean, color=MUTED, linestyle="--", linewidth=1, label="unguided")
    if estimate.interval is not None:
        span(estimate.interval.low, estimate.interval.high, color=MUTED, alpha=0.13, linewidth=0)


def _draw_lines(axes: Axes, sweep: Sweep, quantity: Quantity, part: Groups) -> None:
    (key,) = sweep.axes
    scale = Scale.of([setting.number(key) for setting in sweep.settings])
    chosen_places = quantity.place_of_chosen([setting for settings in part.values() for setting in settings])
    if quantity.level:
        _draw_level(quantity.level, axes.axhline, axes.axhspan)
        if quantity.chosen_unguided:  # at no strength: at the end of the line
            axes.plot([1], [quantity.level.mean], "o", transform=axes.get_yaxis_transform(), clip_on=False, **RING)
    for place, (group, settings) in enumerate(part.items()):
        shift = APART * scale.width * (place - (len(part) - 1) / 2)
        known = [(scale.place(each.number(key)) + shift, each, found) for each, found in quantity.of(settings)]
        colour, style = SERIES[place % len(SERIES)], {"marker": MARKERS[place % len(MARKERS)], "markersize": 5}
        text = label(group) if group else ("guided" if quantity.level or quantity.unguided else None)
        halves = [found.half for *_, found in known]
        places, means = [where for where, *_ in known], [found.mean for *_, found in known]
        bars = halves if any(halves) else None
        if len(known) > MOST_TOLD:  # bars would cover each other
            axes.plot(places, means, color=colour, linewidth=1, label=text)
            ends = [[mean + sign * half for mean, half in zip(means, halves, strict=True)] for sign in (-1, 1)]
            axes.fill_between(places, *ends, color=colour, alpha=0.15, linewidth=0)
        else:
            axes.errorbar(places, means, bars, color=colour, capsize=3, linewidth=1.4, label=text, **style)
        for where, setting, found in known:
            if len(part) == 1 and len(known) <= MOST_TOLD and quantity.name and found.interval:  # the data seeds
                values = list(setting.of(quantity.name).values())
                axes.plot([where] * len(values), values, ".", color=colour, alpha=0.4, markersize=5, zorder=1)
            if quantity.marks(setting):
                axes.plot([where], [found.mean], "o", **RING)
        if all(id(setting) in quantity.unguided for _, setting, _ in known) and known:
            of_group = [quantity.unguided[id(setting)].mean for _, setting, _ in known]
            axes.plot(places, of_group, "--", color=MUTED, linewidth=1, marker=".", label="unguided")
            for where, setting, _ in known:
                if any(setting is each for each in chosen_places):
                    axes.plot([where], [quantity.unguided[id(setting)].mean], "o", **RING)
    axes.set_xticks([scale.place(value) for value in scale.ticks], [f"{value:g}" for value in scale.ticks])
    axes.minorticks_off()
    if scale.zero is not None:  # the axis is broken between 0, which has no logarithm, and the smallest strength
        middle = (scale.zero + scale.place(next(value for value in scale.values if value > 0))) / 2
        axes.text(middle, 0, "//", transform=axes.get_xaxis_transform(), ha="center", va="center", color=MUTED)
    axes.set_xlabel(label(key_title(key), longest=50) + (", logarithmic" if scale.is_log else ""))
    axes.set_ylabel(label(quantity.title))
    axes.grid(axis="y", color=GRID, linewidth=0.6)


def _draw_dots(axes: Axes, sweep: Sweep, quantity: Quantity, settings: Sequence[Setting]) -> None:
    shown = quantity.of(_drawn_as_dots(sweep, settings))
    chosen_places = quantity.place_of_chosen([setting for setting, _ in shown])
    if quantity.level:
        _draw_level(quantity.level, axes.axvline, axes.axvspan)
        if quantity.chosen_unguided:  # in no setting's row: at the end of the line
            axes.plot([quantity.level.mean], [1], "o", transform=axes.get_xaxis_transform(), clip_on=False, **RING)
    halves = [found.half for _, found in shown]
    bars = halves if any(halves) else None
    style = {"fmt": "o", "color": SERIES[0], "capsize": 3, "markersize": 5}
    axes.errorbar([found.mean for _, found in shown], range(len(shown)), xerr=bars, **style)
    for place, (setting, found) in enumerate(shown):
        if id(setting) in quantity.unguided:
            axes.plot([quantity.unguided[id(setting)].mean], [place], "|", color=MUTED, markersize=14, label="unguided")
        if quantity.marks(setting):
            axes.plot([found.mean], [place], "o", **RING)
        if any(setting is each for each in chosen_places):
            axes.plot([quantity.unguided[id(setting)].mean], [place], "o", **RING)
    names = _apart([sweep.group(setting) or "the setting" for setting, _ in shown])
    axes.set_yticks(range(len(shown)), [label(name, longest=28) for name in names])
    axes.set_ylim(len(shown) - 0.5, -0.5)
    axes.set_xlabel(label(quantity.title))
    axes.grid(axis="x", color=GRID, linewidth=0.6)


def _apart(names: Sequence[str]) -> list[str]:
    """The names without the folders that all of them begin with.

    >>> _apart(["outputs/expanded/a", "outputs/expanded/b"]), _apart(["a/b"])
    (['a', 'b'], ['a/b'])
    """
    folders = [name.split("/")[:-1] for name in names]
    same = [len(set(parts)) == 1 for parts in zip(*folders, strict=False)]
    shared = same.index(False) if False in same else len(same)
    return list(names) if len(names) < 2 else ["/".join(name.split("/")[shared:]) for name in names]


def _draw_map(axes: Axes, sweep: Sweep, quantity: Quantity, settings: Sequence[Setting]) -> None:
    across, up = sweep.axes
    columns, rows = (sorted({setting.number(key) for setting in sweep.settings}) for key in sweep.axes)
    known = [(each.number(across), each.number(up), found.mean) for each, found in quantity.of(settings)]
    means = [found.mean for found in quantity.estimates.values()]
    low, high = min(means), max(means)
    steps = [low + (high - low or 1.0) * step / len(SCALE) for step in range(len(SCALE) + 1)]
    norm = BoundaryNorm(steps, len(SCALE))
    marked = [(each.number(across), each.number(up)) for each in settings if quantity.marks(each)]
    if 2 * len(known) < len(columns) * len(rows):  # numbers that a sweeper has drawn, of which hardly any two are equal
        _draw_points(axes, known, Scale.of(columns), Scale.of(rows), norm, marked)
    else:
        _draw_cells(axes, known, columns, rows, norm, marked)
    axes.set_xlabel(label(key_title(across), longest=50))
    axes.set_ylabel(label(up, longest=30))
    axes.set_title("; ".join([label(quantity.title), *_legend_of_map(quantity, marked)]), fontsize=10)


def _legend_of_map(quantity: Quantity, marked: Sequence[object]) -> list[str]:
    """What is chosen, for the title of a heat map, which has no place for unguided expansion."""
    values = [f"{setting.mean(quantity.name):.3f}" for setting in quantity.chosen_unguided]
    return [*(["framed: chosen"] if marked else []), *(f"chosen: unguided, {value}" for value in values)]


def _draw_points(
    axes: Axes,
    known: Sequence[tuple[float, float, float]],
    across: Scale,
    up: Scale,
    norm: BoundaryNorm,
    marked: Sequence[tuple[float, float]],
) -> None:
    columns, rows = [across.place(column) for column, *_ in known], [up.place(row) for _, row, _ in known]
    colours = {"c": [mean for *_, mean in known], "cmap": COLOUR_MAP, "norm": norm}
    drawn = axes.scatter(columns, rows, edgecolors=INK, linewidths=0.6, s=45, **colours)
    for column, row in marked:
        axes.plot(across.place(column), up.place(row), "s", markerfacecolor="none", markeredgecolor=INK, markersize=14)
    axes.set_xticks([across.place(value) for value in across.ticks], [f"{value:.3g}" for value in across.ticks])
    axes.set_yticks([up.place(value) for value in up.ticks], [f"{value:.3g}" for value in up.ticks])
    axes.figure.colorbar(drawn, ax=axes, format="%.3g").outline.set_edgecolor(MUTED)


def _draw_cells(
    axes: Axes,
    known: Sequence[tuple[float, float, float]],
    columns: Sequence[float],
    rows: Sequence[float],
    norm: BoundaryNorm,
    marked: Sequence[tuple[float, float]],
) -> None:
    cells = [[math.nan] * len(columns) for _ in rows]
    for column, row, mean in known:
        cells[rows.index(row)][columns.index(column)] = mean
    axes.pcolormesh(cells, cmap=COLOUR_MAP, norm=norm, edgecolors=GRID, linewidth=0.5)
    for place, of_row in enumerate(cells):
        for column, value in enumerate(of_row):
            if not math.isnan(value) and len(columns) * len(rows) <= MOST_CELLS:
                step = min(len(SCALE) - 1, max(0, int(norm(value))))
                style = {"ha": "center", "va": "center", "color": ON_SCALE[step], "fontsize": 8.5}
                axes.text(column + 0.5, place + 0.5, f"{value:.3g}", **style)
    for column, row in marked:
        corner = (columns.index(column), rows.index(row))
        axes.add_patch(Rectangle(corner, 1, 1, fill=False, edgecolor=INK, linewidth=2.2))
    axes.set_xticks([place + 0.5 for place in range(len(columns))], [f"{value:g}" for value in columns])
    axes.set_yticks([place + 0.5 for place in range(len(rows))], [f"{value:g}" for value in rows])
