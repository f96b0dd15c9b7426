"""The time left for a whole study: known from the stages that are done, and not before."""

from dataclasses import dataclass

import pytest
from terminal import Clock, lines_of, no_terminal

from distdiff.console import stages
from distdiff.console.stages import EVERY, FIRST, Display
from distdiff.console.whole import SETTLED, Step, Whole


@dataclass
class Bar:
    """A bar as the whole reads it."""

    done: float
    remaining: float
    elapsed: float
    before: float = 0.0

    @property
    def rate(self) -> float | None:
        return self.done / self.elapsed if self.done else None


def row(name: str, size: int | None = 100, kind: str = "img2img") -> Step:
    return Step(name, (f"row {name.split(': ')[-1]}", kind), size)


@pytest.fixture
def clock() -> Clock:
    return Clock()


def take(whole: Whole, clock: Clock, name: str, seconds: float, items: float, before: float = 0.0) -> None:
    """A step that makes `items` in `seconds`, after `before` seconds of getting ready."""
    with whole.step(name):
        clock.now += before + seconds
        if items:
            whole.count(Bar(items, 0, seconds))


def test_a_row_of_as_many_images_costs_what_the_last_one_cost(clock: Clock) -> None:
    whole = Whole([row("0: none"), row("0: direct"), row("0: mix", 200)], clock)
    assert whole.remaining() is None
    take(whole, clock, "0: none", seconds=50, items=100, before=10)
    assert whole.remaining() == pytest.approx(60 + 10 + 100)
    assert whole.words() == "stage 1 of 3, 0:01:00 so far, about 2.8 minutes left for all stages"
    take(whole, clock, "0: direct", seconds=80, items=100)
    assert whole.remaining() == pytest.approx(160)  # of the latest, not of a mean


def test_the_time_is_unknown_while_a_stage_is_left_that_is_like_none_so_far(clock: Clock) -> None:
    whole = Whole([row("0: none"), row("0: direct"), Step("0: train", ("train",), 500)], clock)
    take(whole, clock, "0: none", seconds=50, items=100)
    assert whole.remaining() is None
    assert whole.words().endswith("time left unknown")
    take(whole, clock, "0: direct", seconds=50, items=100)
    with whole.step("0: train"):
        clock.now += SETTLED
        whole.bar = Bar(done=100, remaining=400, elapsed=SETTLED)
        assert whole.remaining() == pytest.approx(4 * SETTLED)


def test_the_same_row_of_an_earlier_seed_counts_more_than_a_later_row_of_its_kind(clock: Clock) -> None:
    whole = Whole([row("0: none"), row("0: direct"), row("1: none")], clock)
    take(whole, clock, "0: none", seconds=50, items=100)
    take(whole, clock, "0: direct", seconds=80, items=100)
    assert whole.remaining() == pytest.approx(50)


def test_the_stage_in_progress_tells_about_those_of_its_kind_once_its_rate_is_settled(clock: Clock) -> None:
    whole = Whole([row("0: none"), row("0: direct")], clock)
    with whole.step("0: none"):
        clock.now = 5.0
        whole.bar = Bar(done=10, remaining=90, elapsed=SETTLED / 2)
        assert whole.remaining() is None
        whole.bar = Bar(done=10, remaining=90, elapsed=4.0)
        assert whole.remaining() == pytest.approx(
            36 + 1 + 40
        )  # the second needs a second to get ready, as this one did


def test_stages_found_in_the_cache_are_done_at_no_cost_and_tell_nothing(clock: Clock) -> None:
    whole = Whole([row("0: none"), row("0: direct", 0), row("1: none"), row("1: direct", 0)], clock)
    take(whole, clock, "0: none", seconds=0.1, items=0)
    assert whole.remaining() is None  # the next may have to be made
    with whole.step("0: direct"):
        assert whole.words().startswith("stage 2 of 4, ")
    take(whole, clock, "1: none", seconds=30, items=100)
    assert whole.remaining() == 0


def test_a_row_that_goes_on_tells_what_a_whole_one_costs(clock: Clock) -> None:
    whole = Whole([row("0: none"), row("1: none")], clock)
    take(whole, clock, "0: none", seconds=5, items=10, before=2)
    assert whole.remaining() == pytest.approx(52)


def test_a_stage_with_several_bars_lasts_until_the_last_of_them(clock: Clock) -> None:
    """Classifiers of 100 steps each, one after the other, of which one goes on where an earlier run stopped."""
    whole = Whole([Step("0: train", ("train",), 400), row("0: none")], clock)
    with whole.step("0: train", 300):  # one of four is in the cache
        for left, before in ((250, 0), (110, 60), (50, 0)):
            done = 50 if before == 0 else 30
            whole.bar = Bar(done, 100 - before - done, SETTLED, before)
            assert whole._left_of_current() == pytest.approx(left / done * SETTLED)
            whole.count(Bar(100 - before, 0, 2 * SETTLED, before))
    with whole.step("0: none"):  # of 100 images, of which some are there
        whole.bar = Bar(done=10, remaining=30, elapsed=SETTLED)
        assert whole.remaining() == pytest.approx(3 * SETTLED)


def test_a_stage_without_a_bar_is_judged_by_its_size(clock: Clock) -> None:
    steps = [Step(f"{number}: measure", ("measure",), size, counted=False) for number, size in enumerate((100, 300))]
    whole = Whole(steps, clock)
    take(whole, clock, "0: measure", seconds=10, items=0)
    with whole.step("1: measure"):
        clock.now += 12
        assert whole.remaining() == pytest.approx(18)
        clock.now += 100
        assert whole.remaining() == 0  # it takes longer than was thought, and is never thought to end in the past


def test_a_stage_of_unknown_size_is_taken_to_be_as_large_as_the_last(clock: Clock) -> None:
    whole = Whole([row("0: none", None), row("1: none", None)], clock)
    take(whole, clock, "0: none", seconds=40, items=80)
    assert whole.remaining() == pytest.approx(40)


def test_stages_that_were_not_listed_or_are_left_out_do_not_confuse_the_count(clock: Clock) -> None:
    whole = Whole([row("0: none"), row("0: direct"), row("0: mix")], clock)
    with whole.step("0: none"):
        assert whole.words().startswith("stage 1 of 3")
    with whole.step("0: more"):
        assert whole.words().startswith("stage 2 of 4")
    with whole.step("0: mix"):
        assert whole.words().startswith("stage 4 of 4")


def test_a_stage_that_fails_tells_nothing(clock: Clock) -> None:
    whole = Whole([row("0: none"), row("1: none")], clock)

    def fail() -> None:
        with whole.step("0: none"):
            whole.count(Bar(1, 99, 0.1))
            raise ValueError("ours")

    with pytest.raises(ValueError, match="ours"):
        fail()
    assert whole.remaining() is None


def test_without_a_terminal_the_whole_is_told_with_its_stages_and_between_short_ones(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stages, "TICK", 1000.0)
    console = no_terminal()
    display = Display(console, clock)
    with display.whole(
        [row("0: none", 10), Step("0: measure", ("measure",), 10, counted=False), row("1: none", 10)]
    ) as whole:
        with whole.step("0: none"), display.stage("0: none", 10, "images", counts=True) as bar:
            clock.now = FIRST
            bar.advance(5)
            display.tick()
            clock.now = 2 * FIRST
            bar.advance(5)
        with whole.step("0: measure"):
            clock.now = FIRST + EVERY
            display.tick()
        with whole.step("1: none"), display.stage("1: none", 10, "images", counts=True) as bar:
            clock.now += EVERY
            bar.advance(10)
    lines = lines_of(console)
    assert lines[0] == (
        "0: none: 5 of 10 images, 0.5 images/s, about 10 seconds left; stage 1 of 3, 0:00:10 so far, time left unknown"
    )
    assert lines[1].split()[3] == "10/10"
    assert lines[2] == "0: measure; stage 2 of 3, 0:01:10 so far, time left unknown"
    assert lines[3].split()[3] == "10/10"
    assert lines[4] == "stage 3 of 3, 0:02:10 so far, nearly done"
