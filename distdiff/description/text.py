"""The summary of a dataset on the console."""

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from rich import box
from rich.table import Table
from rich.text import Text

from distdiff.console.progress import console
from distdiff.data.splits.carving import TEST, TRAIN, VALIDATION
from distdiff.wording import counted

SHOWN = 3  # number of images that a line names; description.json names all images
UNBALANCED = 1.5  # balancing is suggested if the largest class is at least this many times the smallest
MOST_CLASSES = 30  # number of rows; of more classes, only the largest and the smallest are shown


def print_summary(summary: Mapping[str, Any]) -> None:
    """Prints a table of classes, then one line for each subject. The sign `!` marks a problem."""
    title = f"{summary['dataset']}: {counted(summary['images'], 'image')}, {counted(len(summary['classes']), 'class')}"
    console.print()
    console.print(classes_table(summary, title), soft_wrap=False)
    lines = Table.grid(padding=(0, 2))
    for subject, line, wrong in subjects(summary):
        lines.add_row(Text("!" if wrong else " "), Text(subject), Text(line))
    console.print(lines, soft_wrap=False)


def classes_table(summary: Mapping[str, Any], title: str) -> Table:
    """One row for each class, with the number of its images in each split, and its prompts."""
    table = Table(title=Text(title), box=box.SIMPLE_HEAD, title_justify="left")
    table.add_column("class")
    for split in (TRAIN, VALIDATION, TEST):
        table.add_column(split + (" (carved)" if summary["splits"][split]["carved"] else ""), justify="right")
    table.add_column("prompt")
    classes = summary["classes"]
    if len(classes) > MOST_CLASSES:
        classes = sorted(classes, key=lambda row: -row["images"][TRAIN])
        half = MOST_CLASSES // 2
        classes = [*classes[:half], None, *classes[-half:]]
    for row in classes:
        if row is None:
            table.add_row(Text(f"… {len(summary['classes']) - MOST_CLASSES:,} more"))
            continue
        more = f" and {len(row['prompts']) - 1} more" if len(row["prompts"]) > 1 else ""
        counts = [Text(f"{row['images'][split]:,}") for split in (TRAIN, VALIDATION, TEST)]
        table.add_row(Text(row["name"]), *counts, Text(row["prompts"][0] + more))
    totals = [Text(f"{summary['splits'][split]['images']:,}") for split in (TRAIN, VALIDATION, TEST)]
    table.add_section()
    table.add_row(Text("together"), *totals, Text(""))
    return table


def subjects(summary: Mapping[str, Any]) -> Iterator[tuple[str, str, bool]]:
    """Yields (subject, text, whether there is a problem).

    The most important subjects come last, at the end of the output, where users see them.
    """
    if len(summary["classes"]) == 1:
        yield "classes", "one: nothing to tell apart; a classifier, and so the guide, needs two", True
    yield from _missing(summary)
    ends = summary["balance"]
    low, high = ends["smallest"], ends["largest"]
    yield "balance", _balance(low, high), False
    if summary["per_class"] is not None:
        fewer = ", or all of a class that has fewer" if low["images"] < summary["per_class"] else ""
        yield (
            "few-shot",
            f"each study seed draws {summary['per_class']} of these a class{fewer} (dataset.per_class)",
            False,
        )
    yield "sizes", _sizes(summary["sizes"]), False
    if (files := summary["files"]) is not None:
        turned = f"; {files['rotated']:,} turned upright by their EXIF orientation" if files["rotated"] else ""
        yield "files", f"{_counts(files['formats'])}; modes {_counts(files['modes'])}{turned}", False
    if (values := summary["value_range"]) is not None:
        yield "grey values", _value_range(values), False
    for assumed in summary["assumed"]:
        yield assumed["about"], assumed["message"], False
    for left_out in summary["left_out"]:
        yield "left out", left_out["reason"], True
    unreadable = summary["unreadable"]
    named = [f"{_place(image)}: {image['reason']}" for image in unreadable]
    yield "unreadable", _listed(counted(len(unreadable), "image"), named), bool(unreadable)
    yield from _duplicates(summary)
    for leak in summary["leaks"]:
        yield f"leaks {leak['in']} > {leak['split']}", _leak(leak, summary), bool(leak["exact"] + leak["near"])


def _balance(low: Mapping[str, Any], high: Mapping[str, Any]) -> str:
    """How many training images the smallest and the largest class have."""
    if low["images"] == high["images"]:
        return f"{low['images']:,} training images of each class"
    ratio = f", {high['images'] / low['images']:.1f} times as many" if low["images"] else ""
    if high["images"] >= UNBALANCED * low["images"]:
        ratio += "; expansion.balance=true evens them out"
    return f"{low['images']:,} ({low['name']}) to {high['images']:,} ({high['name']}) training images{ratio}"


def _missing(summary: Mapping[str, Any]) -> Iterator[tuple[str, str, bool]]:
    """The classes without an image that can be read in a split that has images of others: commands refuse such a dataset."""
    broken = Counter((image["split"], image["class"]) for image in summary["unreadable"])
    for split, what in {TRAIN: "training", VALIDATION: "accuracy on validation images", TEST: "accuracy"}.items():
        readable = {row["name"]: row["images"][split] - broken[split, row["name"]] for row in summary["classes"]}
        lacking = [name for name, number in readable.items() if not number]
        if lacking and any(readable.values()):
            text = f"{counted(len(lacking), 'class')} without an image that can be read; {what} needs one of each class"
            yield f"{split} images", _listed(text, lacking), True


def _sizes(sizes: Mapping[str, Any]) -> str:
    width, height = (
        f"{name} {sizes[name]['min']:.0f}, {sizes[name]['median']:g}, {sizes[name]['max']:.0f}"
        for name in ("width", "height")
    )
    return (
        f"{width}; {height} (least, median, greatest); {sizes['smaller']:,} smaller than "
        f"dataset.image_size={sizes['image_size']}"
    )


def _value_range(values: Mapping[str, Any]) -> str:
    return (
        f"{values['black']:,} is black and {values['white']:,} is white in {counted(values['images'], 'image')} with more "
        f"than 8 bits (dataset.value_range={values['key']})"
    )


def _duplicates(summary: Mapping[str, Any]) -> Iterator[tuple[str, str, bool]]:
    exact, near = summary["exact_duplicates"], summary["near_duplicates"]
    line = "none"
    if exact["pictures"]:
        line = f"{counted(exact['images'], 'image')} show {counted(exact['pictures'], 'picture')} with the same pixels"
    yield "exact twins", line, bool(exact["pictures"])
    if conflicts := exact["conflicts"]:
        named = [" = ".join(map(_place, images)) for images in conflicts]
        yield "two classes", _listed(f"{counted(len(conflicts), 'picture')} labelled differently", named), True
    most = "at least " if near["cut_short"] else ""
    other = f", {near['conflicts']:,} of them between classes" if near["conflicts"] else ""
    line = f"{most}{counted(near['pairs'], 'pair')}{other}" if near["pairs"] else "none"
    yield "near twins", line, bool(near["pairs"])


def _leak(leak: Mapping[str, Any], summary: Mapping[str, Any]) -> str:
    if not leak["exact"] + leak["near"]:
        return "none"
    most = "at least " if summary["near_duplicates"]["cut_short"] else ""
    total, same = summary["splits"][leak["split"]]["images"], leak["same_file"]
    counts = [f"{leak['exact']:,} with the same pixels"] if leak["exact"] else []
    counts += [f"{leak['near']:,} nearly the same"] if leak["near"] else []
    named = [
        f"{_place(pair['first'])} {'=' if pair['distance'] is None else '~'} {_place(pair['second'])}"
        for pair in leak["pairs"]
    ]
    text = f"{most}{leak['exact'] + leak['near']:,} of {total:,} {leak['split']} images are in {leak['in']} too, "
    drops = f"; dataset.drop_leaks=true leaves the {same:,} with the same bytes out of {leak['in']}" if same else ""
    return _listed(text + " and ".join(counts), named) + drops


def _listed(text: str, named: list[str]) -> str:
    if not named:
        return "none"
    more = f"; and {len(named) - SHOWN:,} more" if len(named) > SHOWN else ""
    return f"{text}: {'; '.join(named[:SHOWN])}{more}"


def _counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {number:,}" for name, number in counts.items())


def _place(image: Mapping[str, str]) -> str:
    return f"{image['split']} {image['class']}/{image['key']}"
