"""The progress of the stages in hand: one live display on a terminal, elsewhere a plain line every minute."""

import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from distdiff.console.output import console
from distdiff.console.whole import Step, Whole
from distdiff.wording import duration

# Without a terminal, a stage that lasts longer than `FIRST` seconds says how far it is, at most once in `EVERY` seconds.
FIRST, EVERY = 10.0, 60.0
TICK = 1.0  # seconds between two looks at whether a line is due
SOON = 2.0  # seconds after which a stage that is usually brief is shown on a terminal


class RateColumn(ProgressColumn):
    """Items per second since the stage began."""

    def render(self, task: Task) -> Text:
        made = task.completed - task.fields["before"]
        speed = made / task.elapsed if task.elapsed and made else None
        return Text(rate_in_words(speed, task.fields["unit"]) if speed else "", style="progress.data.speed")


def rate_in_words(speed: float, unit: str) -> str:
    """
    >>> rate_in_words(35.21, "steps"), rate_in_words(0.0213, "images")
    ('35.2 steps/s', '0.021 images/s')
    """
    return f"{speed:.1f} {unit}/s" if speed >= 0.1 else f"{speed:.2g} {unit}/s"


class Bar:
    """A stage: how many of its items are done. `Display.begin` makes it."""

    def __init__(
        self, display: "Display", title: str, total: int, unit: str, before: int, counts: bool, brief: bool
    ) -> None:
        self.display = display
        self.counts = counts
        self.brief = brief
        self._progress = Progress(
            TextColumn("{task.description:<34}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            RateColumn(),
            TimeRemainingColumn(elapsed_when_finished=True, compact=True),
            console=display.console,
            auto_refresh=False,
            get_time=display.clock,
        )
        self._id = self._progress.add_task(title, total=total, completed=before, unit=unit, before=before)

    def advance(self, count: int = 1) -> None:
        """Counts further items as done."""
        self._progress.advance(self._id, count)

    def update(self, completed: int) -> None:
        """Says how many items are done in all."""
        self._progress.update(self._id, completed=completed)

    def end(self) -> None:
        """Ends the stage, which leaves its line on the console."""
        self.display.end(self)

    @property
    def elapsed(self) -> float:
        return self._task.elapsed or 0.0

    @property
    def before(self) -> float:
        """The number of items that were done when the bar began."""
        return self._task.fields["before"]

    @property
    def done(self) -> float:
        """The number of items that were done since the bar began."""
        return self._task.completed - self.before

    @property
    def remaining(self) -> float:
        return max(0.0, self._task.total - self._task.completed)

    @property
    def rate(self) -> float | None:
        return self.done / self.elapsed if self.done and self.elapsed else None

    def row(self) -> Table:
        """The stage's line with its bar."""
        return self._progress.make_tasks_table(self._progress.tasks)

    def words(self) -> str:
        """The stage's line without a bar."""
        task = self._task
        words = f"{task.description}: {task.completed:,} of {task.total:,} {task.fields['unit']}"
        if not self.rate:
            return f"{words}, time left unknown"
        left = duration(round(self.remaining / self.rate), 2)
        return f"{words}, {rate_in_words(self.rate, task.fields['unit'])}, about {left} left"

    @property
    def _task(self) -> Task:
        (task,) = self._progress.tasks
        return task


class Display:
    """Shows all stages in hand on `console`, and above them how far the whole is of which they are a part.

    There is one live display, however the stages are nested, since rich has one at a time. On a console that is not a
    terminal, nothing is drawn: a stage that lasts prints a plain line from time to time. In either case, a stage that
    ends leaves its line. These lines are not written to the log.
    """

    def __init__(self, console: Console, clock: Callable[[], float] = time.monotonic) -> None:
        self.console = console
        self.clock = clock
        self._bars: list[Bar] = []  # the innermost is the last
        self._whole: Whole | None = None
        self._live: Live | None = None
        self._ticker: Ticker | None = None
        self._said = -EVERY  # when the latest plain line was printed
        self._lock = threading.RLock()

    @contextmanager
    def whole(self, steps: Iterable[Step]) -> Iterator[Whole]:
        """Inside the block, shows how far the `steps` have come. Each is a block of its own, `whole.step(name)`."""
        whole = Whole(steps, self.clock)
        with self._lock:
            before, self._whole = self._whole, whole
            self._open()
        try:
            yield whole
        finally:
            with self._lock:
                self._whole = before
                self._close()

    @contextmanager
    def stage(self, title: str, total: int, unit: str, counts: bool = False, brief: bool = False) -> Iterator[Bar]:
        """The block is a stage of `total` items, as in `begin`."""
        bar = self.begin(title, total, unit, counts=counts, brief=brief)
        try:
            yield bar
        finally:
            bar.end()

    def begin(
        self, title: str, total: int, unit: str, before: int = 0, counts: bool = False, brief: bool = False
    ) -> Bar:
        """Begins a stage of `total` items, of which `before` were done earlier; the caller has to end it.

        `counts` says that its items are those that the current step of the whole makes. A stage that is usually `brief`
        is shown, and leaves a line, only if it lasts.
        """
        bar = Bar(self, title, total, unit, before, counts, brief)
        with self._lock:
            self._bars.append(bar)
            if counts and self._whole is not None:
                self._whole.bar = bar
            self._open()
        return bar

    def end(self, bar: Bar) -> None:
        """Ends a stage, unless it has ended."""
        with self._lock:
            if bar not in self._bars:
                return
            self._bars.remove(bar)
            if bar.counts and self._whole is not None:
                self._whole.count(bar)
            if not bar.brief or bar.elapsed >= FIRST:
                self._print(bar.row())
            if self._ticker is not None and self._whole is not None and self._is_due():
                self._say(self._whole.words())
            self._close()

    def end_all(self) -> None:
        """Ends what is still in hand, as after an exception."""
        for bar in reversed(self._bars):
            self.end(bar)
        with self._lock:
            self._whole = None
            self._close()

    def tick(self) -> None:
        """Prints a plain line if one is due."""
        with self._lock:
            if not self._is_due():
                return
            lasting = next((bar for bar in reversed(self._bars) if bar.elapsed >= FIRST), None)
            whole = self._whole
            if lasting is not None:
                self._say(lasting.words() if whole is None else f"{lasting.words()}; {whole.words()}")
            elif whole is not None and whole.current is not None and whole.seconds_in_step >= FIRST:
                self._say(f"{whole.current.name}; {whole.words()}")

    def _is_due(self) -> bool:
        return self.clock() - self._said >= EVERY

    def _say(self, line: str) -> None:
        self._said = self.clock()
        self._print(Text(line))

    def _print(self, renderable: RenderableType) -> None:
        Console.print(self.console, renderable)  # and not to the log, as a `LoggedConsole` would

    def _open(self) -> None:
        if self.console.quiet or self._live is not None or self._ticker is not None:
            return
        if self.console.is_interactive or self.console.is_jupyter:
            self._live = Live(get_renderable=self._rows, console=self.console, transient=True)
            self._live.start()
        else:
            self._ticker = Ticker(self.tick)
            self._ticker.start()

    def _close(self) -> None:
        if self._bars or self._whole is not None:
            return
        if self._live is not None:
            self._live.stop()
        if self._ticker is not None:
            self._ticker.ended.set()
        self._live = self._ticker = None

    def _rows(self) -> RenderableType:
        # The display's thread calls this function, so it must not wait for the lock, which may wait for that thread.
        whole = self._whole
        current = None if whole is None else whole.current
        rows = [bar.row() for bar in list(self._bars) if not bar.brief or bar.elapsed >= SOON]
        if not rows and current is not None:
            rows = [Text(current.name, no_wrap=True, overflow="ellipsis")]
        above = [] if whole is None else [Text(whole.words(), no_wrap=True, overflow="ellipsis")]
        return Group(*above, *rows)


class Ticker(threading.Thread):
    """Calls `tick` every `TICK` seconds, until `ended` is set."""

    def __init__(self, tick: Callable[[], None]) -> None:
        super().__init__(daemon=True)
        self.tick = tick
        self.ended = threading.Event()

    def run(self) -> None:
        while not self.ended.wait(TICK):
            self.tick()


display = Display(console)
