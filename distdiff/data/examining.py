"""Reads every image of a dataset once, to find the unreadable ones and to hash the content of the others."""

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

from distdiff.console.bar import with_progress
from distdiff.data.cache.examined import Examined, Seen, Stamp
from distdiff.data.images import LabelledImages
from distdiff.data.reading.decoding import READING, UnreadableImage, is_transparent
from distdiff.data.reading.prefetch import prefetched
from distdiff.errors import first_line


def examine(images: LabelledImages) -> tuple[dict[int, str], str]:
    """Returns {position: why the image cannot be read}, and the identity of all other images.

    The identity is a hash of the class names and of each image's label, key and content. The content of a file is its
    bytes and, if the image has transparency, the background colour. The content of an image without a file is its size
    and pixels.
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
    return lost, digest.hexdigest()[:16]


def identity_of(images: LabelledImages) -> str:
    """The identity of all readable images (see `examine`)."""
    return examine(images)[1]


def _contents(images: LabelledImages) -> Iterator[bytes | UnreadableImage]:
    """Yields for each image the bytes that identify its content, or the error if the image cannot be read."""
    options = images.options
    if images.file is None:
        yield from prefetched(lambda position: _pixels(images, position), range(len(images)), options.num_workers)
        return
    memory = Examined(options.cache_dir, images.listing)
    found = [_known(images, position, memory) for position in range(len(images))]
    unknown = [position for position, seen in enumerate(found) if seen is None]
    made = prefetched(lambda position: _look(images, position, memory), unknown, options.num_workers)
    for position, seen in zip(with_progress(unknown, "images: examine"), made, strict=True):
        found[position] = seen
    memory.save()
    for seen in found:
        if isinstance(seen, UnreadableImage):
            yield seen
        else:
            yield f"{seen.content}|{options.background if seen.transparent else ''}|".encode()


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
        seen = memory.content(content) or Seen(content, is_transparent(file, name))
    except UnreadableImage as error:
        return error
    memory.note(seen)
    return seen


def _look_at_path(path: Path | str, memory: Examined) -> Seen:
    try:
        stamp = Stamp.of(path)
        with open(path, "rb") as file:
            content = hashlib.file_digest(file, "sha256").hexdigest()
        seen = memory.content(content) or Seen(content, is_transparent(path))
        unchanged = Stamp.of(path) == stamp
    except OSError as error:
        raise UnreadableImage(str(path), error.strerror or first_line(error)) from None
    memory.note(seen, *((os.path.abspath(path), stamp) if unchanged else ()))
    return seen
