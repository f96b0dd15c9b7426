"""The progress of stages: a live display on a terminal, a plain line from time to time elsewhere."""

import io

import pytest
from terminal import Clock, lines_of, no_terminal, printed, screen, terminal

from distdiff.console import bar as bars
from distdiff.console import stages
from distdiff.console.output import LoggedConsole
from distdiff.console.stages import EVERY, FIRST, Display
from distdiff.console.whole import Step


@pytest.fixture(autouse=True)
def only_when_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lines are printed when a test calls `tick`, not when real time has passed."""
    monkeypatch.setattr(stages, "TICK", 1000.0)


@pytest.fixture
def clock() -> Clock:
    return Clock()


def test_without_a_terminal_a_stage_that_lasts_says_each_minute_how_far_it_is(clock: Clock) -> None:
    console = no_terminal()
    display = Display(console, clock)
    with display.stage("seed 0: none: expand", 3000, "images") as bar:
        for second in range(1, 151):
            clock.now = float(second)
            bar.advance(10)
            display.tick()
    assert lines_of(console) == [
        "seed 0: none: expand: 100 of 3,000 images, 10.0 images/s, about 4.8 minutes left",
        "seed 0: none: expand: 700 of 3,000 images, 10.0 images/s, about 3.8 minutes left",
        "seed 0: none: expand: 1,300 of 3,000 images, 10.0 images/s, about 2.8 minutes left",
        f"seed 0: none: expand               {'━' * 12}{' ' * 12} 1500/3000 10.0 images/s 02:30",
    ]
    assert printed(console).replace("\n", "").isprintable()


def test_without_a_terminal_a_short_stage_leaves_its_line_alone(clock: Clock) -> None:
    console = no_terminal()
    display = Display(console, clock)
    for title in ("first", "second", "third"):  # together they last longer than `FIRST`
        with display.stage(title, 50, "steps") as bar:
            clock.now += FIRST - 1
            bar.advance(50)
            display.tick()
    assert [line.split()[0] for line in lines_of(console)] == ["first", "second", "third"]
    assert lines_of(console)[0].split()[2:] == ["50/50", "5.6", "steps/s", "00:09"]


def test_a_stage_that_has_made_nothing_yet_knows_no_time(clock: Clock) -> None:
    console = no_terminal()
    display = Display(console, clock)
    with display.stage("slow", 5, "images"):
        clock.now = FIRST
        display.tick()
        assert lines_of(console) == ["slow: 0 of 5 images, time left unknown"]


def test_work_of_an_earlier_run_is_no_part_of_the_rate(clock: Clock) -> None:
    console = no_terminal()
    display = Display(console, clock)
    bar = display.begin("pretrain denoiser", 1000, "steps", before=900)
    clock.now = FIRST
    bar.advance(5)
    display.tick()
    assert lines_of(console) == ["pretrain denoiser: 905 of 1,000 steps, 0.5 steps/s, about 3.2 minutes left"]
    bar.end()
    assert "905/1000 0.5 steps/s" in lines_of(console)[-1]


def test_of_nested_stages_the_innermost_that_lasts_is_told(clock: Clock) -> None:
    console = no_terminal()
    display = Display(console, clock)
    with display.stage("outer", 2, "images"):
        clock.now = FIRST
        with display.stage("inner", 2, "steps"):
            display.tick()
            clock.now += EVERY
            display.tick()
    told = [line.split(":")[0] for line in lines_of(console)]
    assert told[:2] == ["outer", "inner"]
    assert [line.split()[0] for line in lines_of(console)[2:]] == ["inner", "outer"]


def test_a_terminal_shows_one_display_however_stages_are_nested_and_keeps_a_line_for_each(clock: Clock) -> None:
    console = terminal()
    display = Display(console, clock)
    with display.whole([Step("train", ("train",), 4)]) as whole, whole.step("train"):
        with display.stage("outer", 2, "images") as outer:
            outer.advance()
            with display.stage("inner", 4, "steps") as inner:
                inner.advance(3)
                display._live.refresh()
                above, first, second = screen(console)
                assert above == "stage 1 of 1, 0:00:00 so far, time left unknown"
                assert (first.split()[0], first.split()[2]) == ("outer", "1/2")
                assert (second.split()[0], second.split()[2]) == ("inner", "3/4")
            console.print("said meanwhile")
        display._live.refresh()
        assert screen(console)[-1] == "train"  # the stage, which has no bar now
    assert [line.split()[0] for line in screen(console)] == ["inner", "said", "outer"]
    assert console._live_stack == []


def test_a_stage_that_fails_leaves_its_line_and_no_display(clock: Clock) -> None:
    console = terminal()
    display = Display(console, clock)

    def fail() -> None:
        with display.stage("broken", 4, "steps") as bar:
            bar.advance(3)
            raise ValueError("ours")

    with pytest.raises(ValueError, match="ours"):
        fail()
    display.begin("never ended", 4, "steps")
    display.end_all()
    assert [line.split()[2] for line in screen(console) if "━" in line] == ["3/4"]
    assert console._live_stack == []


def test_ranks_that_do_not_lead_show_nothing(clock: Clock) -> None:
    for console in (terminal(), no_terminal()):
        console.quiet = True
        display = Display(console, clock)
        with display.whole([]) as whole, whole.step("train"), display.stage("train", 4, "steps") as bar:
            clock.now += 2 * EVERY
            bar.advance(2)
            display.tick()
            assert (display._live, display._ticker) == (None, None)
        assert printed(console) == ""


def test_the_log_gets_no_progress(clock: Clock, tmp_path) -> None:
    console = LoggedConsole(file=io.StringIO(), force_terminal=False, width=140)
    display = Display(console, clock)
    with console.logging_to(tmp_path / "log.txt"), display.stage("train", 4, "steps") as bar:
        clock.now = FIRST
        bar.advance(2)
        display.tick()
        console.print("a finding")
    assert [line.split()[0] for line in lines_of(console)] == ["train:", "a", "train"]
    assert (tmp_path / "log.txt").read_text() == "a finding\n"


@pytest.mark.parametrize("make", [terminal, no_terminal])
@pytest.mark.parametrize(("count", "seconds", "told"), [(499, 1.0, False), (499, FIRST, True), (500, 1.0, True)])
def test_a_loop_is_shown_if_it_has_many_items_or_lasts(
    make, count: int, seconds: float, told: bool, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    console = make()
    monkeypatch.setattr(bars, "display", Display(console, clock))
    for place in bars.with_progress(range(count), "look"):
        clock.now = seconds * place / (count - 1)
    shown = screen(console) if make is terminal else lines_of(console)
    assert [f"{count}/{count}" in line for line in shown] == ([True] if told else [])
