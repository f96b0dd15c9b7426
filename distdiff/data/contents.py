"""Tells images with the same content from all others, without decoding files."""

import hashlib
import os
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from distdiff.console.bar import with_progress
from distdiff.data.cache.examined import Examined, Stamp
from distdiff.data.images import LabelledImages
from distdiff.data.reading.decoding import UnreadableImage
from distdiff.data.reading.prefetch import prefetched


@dataclass
class _Content:
    """What is known of one image: its size in bytes, its hash, and the path and stamp of its file if it has one.

    `hash` is None until the file is read. Images without a file have the size -1.
    """

    size: int
    hash: bytes | None = None
    path: str | None = None
    stamp: Stamp | None = None


def contents_of(splits: Mapping[str, LabelledImages]) -> dict[str, list[bytes | None]]:
    """For each image of each split, a value that only images with the same content have.

    The content of a file is its bytes; that of an image without a file is its size and pixels. The value is None for an
    image that can be equal to no image of another split: a file is read only if a file of the same size is in another
    split. It is None, too, for a file that is empty or cannot be read. The hashes are kept with the notes on examined
    files, so that a file is read only once unless it changes.
    """
    found = {split: _glimpses(images) for split, images in splits.items()}
    sizes = Counter(size for contents in found.values() for size in {content.size for content in contents if content})
    unknown: list[tuple[_Content, Examined]] = []
    memories = []
    for split, images in splits.items():
        memories.append(Examined(images.options.cache_dir, images.listing))
        for content in found[split]:
            if content is None or content.path is None or sizes[content.size] < 2:
                continue
            known = memories[-1].hash_of(content.path, content.stamp)
            content.hash = None if known is None else bytes.fromhex(known)
            if known is None:
                unknown.append((content, memories[-1]))
    workers = next(iter(splits.values())).options.num_workers
    hashed = prefetched(lambda item: _hash(*item), unknown, workers)
    for _ in zip(hashed, with_progress(unknown, "images: compare"), strict=True):
        pass
    for memory in memories:
        memory.save()
    return {split: [content and content.hash for content in contents] for split, contents in found.items()}


def _glimpses(images: LabelledImages) -> list[_Content | None]:
    """What can be known of each image without reading its file. Streams and pixels are hashed at once."""
    if images.file is not None and images.called is None:  # paths, which cost too little for threads
        return [_glimpse(images, position) for position in range(len(images))]
    return list(prefetched(lambda position: _glimpse(images, position), range(len(images)), images.options.num_workers))


def _glimpse(images: LabelledImages, position: int) -> _Content | None:
    try:
        if images.file is None:
            image = images.image(position)
            return _Content(-1, hashlib.sha256(f"{image.size}|".encode() + image.tobytes()).digest())
        file = images.file(int(images.indices[position]))
        if isinstance(file, (str, Path)):
            stamp = Stamp.of(file)
            return _Content(stamp.size, None, os.path.abspath(file), stamp) if stamp.size else None
        content = file.read()
        return _Content(len(content), hashlib.sha256(content).digest()) if content else None
    except (OSError, UnreadableImage):
        return None


def _hash(content: _Content, memory: Examined) -> None:
    """Reads a file and notes its hash, unless the file changes meanwhile or cannot be read."""
    try:
        with open(content.path, "rb") as file:
            digest = hashlib.file_digest(file, "sha256")
        unchanged = Stamp.of(content.path) == content.stamp
    except OSError:
        return
    content.hash = digest.digest()
    if unchanged:
        memory.note_hash(content.path, content.stamp, digest.hexdigest())
