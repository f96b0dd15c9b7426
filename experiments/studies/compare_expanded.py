"""Compares expanded datasets with the first one: files, metadata, and pixels within 1 of 255 levels.

    python experiments/studies/compare_expanded.py outputs/expanded/one outputs/expanded/other ...

The exit status is 1 if any of them differs from the first.
"""

import sys
from pathlib import Path

from distdiff.console.quiet import quiet_environment


def main() -> None:
    quiet_environment()
    from distdiff.store.comparison import content_differences

    first, *others = map(Path, sys.argv[1:])
    problems = {other: content_differences(first, other) for other in others}
    for other, found in problems.items():
        print(f"{other} against {first}: {'; '.join(found) or 'the same'}")
    sys.exit(1 if any(problems.values()) else 0)


if __name__ == "__main__":
    main()
