"""The live view on a terminal: a frame of a few short lines that fits its width and height, whatever there is to tell."""

import math
from collections.abc import Callable, Sequence

from rich import box
from rich.console import Console, ConsoleOptions, Group, RenderResult
from rich.panel import Panel
from rich.text import Text

from tinyworld.engine.live_numbers import LiveNumbers, Smooth, Validation, WarningsKept
from tinyworld.engine.signals import StopRequest

LABEL, GAP = 8, 3
SLOW_LOADING, STARVING = 0.1, 0.3
"""Shares of the time waiting for data from which on it is told in yellow, and in red with what to do."""
MOST_LINES = 2
"""Of one row, where its items do not fit beside each other."""
CURVE_WIDTH = 16
TRENDS = {1: ("up", "↑", "red"), -1: ("down", "↓", "green"), 0: ("even", "→", "bright_black")}
BARS, ASCII_BARS = "▁▂▃▄▅▆▇█", "_.-=^"


class LiveView:
    """Draws `numbers` in the width and height that the console has now. memory: in MiB. stop: whether the run is
    about to. What fails in drawing is kept as `failure`, and nothing is drawn from then on: whoever prints a line draws too,
    and an error of the view is none of theirs."""

    def __init__(
        self,
        numbers: LiveNumbers,
        warnings: WarningsKept,
        memory: Callable[[], float],
        stop: StopRequest,
    ) -> None:
        self.numbers, self.warnings, self.memory, self.stop = numbers, warnings, memory, stop
        self.failure: Exception | None = None

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        if self.failure is None:
            try:
                frame = self._frame(console, options)
            except Exception as error:  # noqa: BLE001 - told by whom it is drawn for
                self.failure = error
            else:
                yield frame

    def _frame(self, console: Console, options: ConsoleOptions) -> Panel:
        width, plain = max(options.max_width, 20), options.ascii_only
        numbers = self.numbers
        inside = width - 4
        rows = [_bar(numbers, inside, plain)]
        for label, items in self._rows(plain):
            rows += _flow(label, items, inside, plain)
        now = numbers.clock()
        warned = [_warning(text, now - moment, inside, plain) for moment, text in list(self.warnings.kept)]
        room = max(console.size.height - 4, 1)  # the frame, a line of the log above and the cursor below
        warned = warned[-max(1, room - len(rows)) :]
        lines = [*rows[: max(1, room - len(warned))], *warned][:room]
        done = f"step {numbers.step:,}/{numbers.total:,}"
        done += f", resumed at {numbers.start:,}" if numbers.start else ""
        title = Text.assemble((numbers.name, "bold"), "  ", done)
        title = _cut(title, inside - 2, plain)
        return Panel(Group(*lines), box=box.ROUNDED, width=width, padding=(0, 1), title=title, title_align="left")

    def _rows(self, plain: bool) -> list[tuple[str, list[Text]]]:
        numbers = self.numbers
        rows = [
            ("loss", _losses(numbers, plain)),
            ("rate", _rates(numbers)),
            ("next", _next(numbers)),
            ("valid", _validation(numbers.validation, numbers.metric)),
            ("state", self._state()),
            ("faults", [Text(f"{what}: {count}", "yellow") for what, count in numbers.counts.items() if count]),
            ("now", self._now()),
        ]
        return [(label, items) for label, items in rows if items]

    def _state(self) -> list[Text]:
        numbers, items = self.numbers, []
        if numbers.learning_rate is not None:
            items.append(Text(f"learning rate {numbers.learning_rate:.3g}"))
        if numbers.norm is not None:
            items.append(Text(f"gradient norm {numbers.norm:.3g}"))
        return [*items, Text(f"memory {self.memory():,.0f} MiB")]

    def _now(self) -> list[Text]:
        numbers, items = self.numbers, []
        if numbers.doing:
            items.append(Text(f"{numbers.doing}, {clock(numbers.clock() - numbers.doing_since)}", "cyan"))
        if self.stop.is_set:
            items.append(Text(f"{self.stop.signal_name}: saves and ends; Ctrl-C again ends at once", "yellow"))
        return items


def clock(seconds: float) -> str:
    """0:07, 12:30, 3:04:05."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def _bar(numbers: LiveNumbers, width: int, plain: bool) -> Text:
    share = numbers.step / max(numbers.total, 1)
    left = numbers.seconds_left()
    times = f" {share:4.0%}  {clock(numbers.clock() - numbers.began)} gone"
    times += f"  {clock(left)} left" if left is not None else ""
    cells = max(width - len(times), 4)
    full = round(share * cells)
    done, rest = ("#", "-") if plain else ("━", "─")
    line = Text.assemble((done * full, "green"), (rest * (cells - full), "bright_black"), times)
    return _cut(line, width, plain)


def _losses(numbers: LiveNumbers, plain: bool) -> list[Text]:
    points, terms = numbers.curve.points, list(numbers.terms.items())
    if not points:  # the training's thread adds to them last
        return []
    shown = [_smoothed("", numbers.loss, plain, "bold"), Text(_curve(points, plain), "cyan")]
    if len(terms) > 1:  # one term alone is the total
        shown += [_smoothed(f"{name} ", value, plain) for name, value in terms]
    return shown


def _smoothed(name: str, number: Smooth, plain: bool, style: str = "") -> Text:
    shown = Text.assemble((name, "bright_black"), (f"{number.value:.4g}", style))
    if number.trend is not None:
        word, arrow, colour = TRENDS[number.trend]
        shown.append(f" {word if plain else arrow}", colour)
    return shown


def _curve(points: Sequence[float], plain: bool) -> str:
    """Bars of the last of equal parts of all points (one at least), on a logarithmic scale where there is one."""
    bars = ASCII_BARS if plain else BARS
    step = max(-(-len(points) // CURVE_WIDTH), 1)
    means = [sum(part) / len(part) for part in (points[i : i + step] for i in range(0, len(points), step))]
    heights = [math.log(mean) for mean in means] if min(means) > 0 else means
    low, high = min(heights), max(heights)
    return "".join(bars[round((height - low) / ((high - low) or 1) * (len(bars) - 1))] for height in heights)


def _rates(numbers: LiveNumbers) -> list[Text]:
    seconds = numbers.seconds_per_step
    if not seconds:
        return []
    share = numbers.share_waiting
    style = "red" if share > STARVING else "yellow" if share > SLOW_LOADING else ""
    items = [
        Text(f"{1 / seconds:.3g} steps/s" if seconds < 1 else f"{seconds:.3g} s/step"),
        Text(f"{numbers.samples_per_second:.3g} clips/s"),
        Text(f"waits for data {share:.0%} of the time", style),
    ]
    return [*items, Text("more data.num_workers?", style)] if share > STARVING else items


def _next(numbers: LiveNumbers) -> list[Text]:
    items = []
    for what, every in (("validation", numbers.validate_every), ("checkpoint", numbers.save_every)):
        steps = numbers.steps_to(every)
        if steps is not None and numbers.seconds_per_step is not None:
            items.append(Text(f"{what} at {numbers.step + steps:,} in {clock(steps * numbers.seconds_per_step)}"))
    return items


def _validation(last: Validation | None, metric: str) -> list[Text]:
    """The metric that decides first, with the best value so far, then the others."""
    if last is None:
        return []
    items = []
    if last.best_value is not None:
        text = f"{metric} {last.metrics.get(metric, math.nan):.4g} at {last.step:,}"
        best = "best so far" if last.best_step == last.step else f"best {last.best_value:.4g} at {last.best_step:,}"
        items = [Text(text, "bold"), Text(best, "green" if last.best_step == last.step else "")]
    return items + [Text(f"{name} {value:.4g}") for name, value in last.metrics.items() if name != metric or not items]


def _warning(text: str, ago: float, width: int, plain: bool) -> Text:
    text = text.encode("ascii", "replace").decode() if plain else text
    return _cut(Text.assemble((f"! {clock(ago)} ago  ", "bright_black"), (text, "yellow")), width, plain)


def _cut(line: Text, width: int, plain: bool) -> Text:
    line.truncate(width, overflow="crop" if plain else "ellipsis")
    return line


def _flow(label: str, items: Sequence[Text], width: int, plain: bool) -> list[Text]:
    """The items one after another on as few lines as hold them, `MOST_LINES` at most; no line is wider than `width`."""
    lines = [Text.assemble((f"{label:<{LABEL}}", "bright_black"))]
    empty = True
    for item in items:
        needed = item.cell_len + (0 if empty else GAP)
        if not empty and lines[-1].cell_len + needed > width:
            if len(lines) == MOST_LINES:
                break
            lines.append(Text(" " * LABEL))
            empty = True
        lines[-1].append_text(Text.assemble("" if empty else " " * GAP, item))
        empty = False
    return [_cut(line, width, plain) for line in lines]
