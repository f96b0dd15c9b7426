"""Reads every image of a dataset once, to find the unreadable ones and to hash the content of the others."""

import hashlib
import os
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from distdiff.console.bar import with_progress
from distdiff.data.cache.examined import Examined, Seen, Stamp
from distdiff.data.images import LabelledImages
from distdiff.data.reading.decoding import READING, UnreadableImage, facts_of
from distdiff.data.reading.options import ReadingOptions
from distdiff.data.reading.prefetch import prefetched
from distdiff.data.reading.value_range import SIXTEEN_BITS, ValueRange
from distdiff.errors import first_line


def examine(images: LabelledImages) -> tuple[dict[int, str], str]:
    """Returns {position: why the image cannot be read}, and the identity of all other images.

    The identity is a hash of the class names and of each image's label, soft label (if any), key and content. The content
    of a file is its bytes and those reading options that change its pixels. The content of an image without a file is
    its size and pixels.
    """
    digest = hashlib.sha256(repr(images.class_names).encode())
    if images.file is not None:
        digest.update(f"|files {READING}|".encode())
    lost = {}
    for position, content in enumerate(_contents(images)):
        if isinstance(content, UnreadableImage):
            lost[position] = content.reason
            continue
        digest.update(f"{images.keys[position]}|{images.labels[position]}|".encode())
        digest.update(content)
        if images.soft is not None:
            digest.update(f"|{images.soft.label(position)}".encode())
    return lost, digest.hexdigest()[:16]


def identity_of(images: LabelledImages) -> str:
    """The identity of all readable images (see `examine`)."""
    return examine(images)[1]


def largest_value(images: LabelledImages) -> int | None:
    """The largest value of the images that are 16-bit greyscale files, or None if there are none."""
    found = (seen.facts.largest for seen in _look_at_all(images) if isinstance(seen, Seen))
    return max((largest for largest in found if largest is not None), default=None)


def find_range_in(images: LabelledImages) -> None:
    """Lets the range of the grey values in `images.options` be found in `images`, if an image ever needs it."""
    plain = replace(images, options=replace(images.options, value_range=ValueRange()))
    images.options.value_range.find_by(lambda: largest_value(plain))


def _contents(images: LabelledImages) -> Iterator[bytes | UnreadableImage]:
    """Yields for each image the bytes that identify its content, or the error if the image cannot be read."""
    if images.file is None:
        positions = range(len(images))
        yield from prefetched(lambda position: _pixels(images, position), positions, images.options.num_workers)
        return
    for seen in _look_at_all(images):
        yield seen if isinstance(seen, UnreadableImage) else _content(seen, images.options)


def _content(seen: Seen, options: ReadingOptions) -> bytes:
    """The bytes that identify the content of a file. An option is among them only if it changes the file's pixels."""
    facts, parts = seen.facts, [seen.content, f"{options.background}" if seen.facts.transparent else ""]
    if facts.rescued:
        parts.append("rescued")
    if facts.negative:
        parts.append("negative")
    if facts.deep and (options.value_range.given or facts.largest is not None):
        limits = options.value_range.limits()
        if facts.largest is None or limits != SIXTEEN_BITS:
            parts.append(f"values {limits[0]:g} to {limits[1]:g}")
    return "".join(f"{part}|" for part in parts).encode()


def _look_at_all(images: LabelledImages) -> list[Seen | UnreadableImage]:
    """What is known of each image file of `images`. Files that are not known yet are decoded."""
    options = images.options
    memory = Examined(options.cache_dir, images.listing)
    found = [_known(images, position, memory) for position in range(len(images))]
    unknown = [position for position, seen in enumerate(found) if seen is None]
    made = prefetched(lambda position: _look(images, position, memory), unknown, options.num_workers)
    in_main = (
        threading.current_thread() is threading.main_thread()
    )  # another thread may run beside a bar of the main one
    shown = with_progress(unknown, "images: examine") if in_main else unknown
    for position, seen in zip(shown, made, strict=True):
        found[position] = seen
    memory.save()
    return found


def _pixels(images: LabelledImages, position: int) -> bytes | UnreadableImage:
    try:
        image = images.image(position)
    except UnreadableImage as error:
        return error
    return f"{image.size}|".encode() + image.tobytes()


def _known(images: LabelledImages, position: int, memory: Examined) -> Seen | None:
    """What `memory` knows about an image's path, or None if nothing is known.

    The result is also None for an image in a stream, which has no path.
    """
    if images.called is not None:
        return None
    try:
        file = images.file(int(images.indices[position]))
        return memory.file(os.path.abspath(file), Stamp.of(file)) if isinstance(file, (str, Path)) else None
    except (OSError, UnreadableImage):
        return None


def _look(images: LabelledImages, position: int, memory: Examined) -> Seen | UnreadableImage:
    """Hashes the file of an image, and decodes the image unless `memory` knows a file with the same bytes."""
    try:
        file, name = images.file_of(position)
        if isinstance(file, (str, Path)):
            return _look_at_path(file, memory)
        content = hashlib.sha256(file.read()).hexdigest()
        file.seek(0)
        seen = memory.content(content) or Seen(content, facts_of(file, name))
    except UnreadableImage as error:
        return error
    memory.note(seen)
    return seen


def _look_at_path(path: Path | str, memory: Examined) -> Seen:
    try:
        stamp = Stamp.of(path)
        content = memory.hash_of(os.path.abspath(path), stamp)  # known if the file was compared, but never decoded
        if content is None:
            with open(path, "rb") as file:
                content = hashlib.file_digest(file, "sha256").hexdigest()
        seen = memory.content(content) or Seen(content, facts_of(path))
        unchanged = Stamp.of(path) == stamp
    except OSError as error:
        raise UnreadableImage(str(path), error.strerror or first_line(error)) from None
    memory.note(seen, *((os.path.abspath(path), stamp) if unchanged else ()))
    return seen
