"""What is remembered of image files: a process that was killed while it wrote it leaves nothing for good."""

import os
import time
from pathlib import Path

from distdiff.data.cache.examined import FORSAKEN, Examined, Seen
from distdiff.data.reading.decoding import Facts


def test_what_a_killed_process_was_writing_is_removed_once_nobody_can_be_writing_it(tmp_path: Path) -> None:
    examined = Examined(tmp_path, "somewhere")
    examined.note(Seen("content", Facts()))
    examined.save()
    (kept,) = tmp_path.rglob("*.json")
    left, fresh, other = (kept.with_name(name) for name in (f".{kept.name}-1", f".{kept.name}-2", ".other.json-3"))
    for path, age in ((left, FORSAKEN + 10), (fresh, 0), (other, FORSAKEN + 10)):
        path.write_text("{")
        os.utime(path, (time.time() - age,) * 2)
    examined.note(Seen("more", Facts(transparent=True)))
    examined.save()
    assert sorted(kept.parent.iterdir()) == sorted([kept, fresh, other])
    assert Examined(tmp_path, "somewhere").content("more") == Seen("more", Facts(transparent=True))
