"""`distdiff <command> ...` and `python -m distdiff <command> ...`: the commands of `experiments/` in an installed package."""

import difflib
import sys

import distdiff
from distdiff.commands.launch import abouts, command


def main() -> None:
    """Runs the command that the first argument names with the other arguments, or lists all commands."""
    name, *rest = sys.argv[1:] or ["--help"]
    if name in ("-h", "--help", "help"):
        print(_listed())
        return
    if name == "--version":
        print(f"distdiff {distdiff.__version__}")
        return
    known = abouts()
    if name not in known:
        close = difflib.get_close_matches(name, known, n=1)
        hint = f"; did you mean {close[0]}?" if close else ""
        print(f"distdiff: {name} is no command: one of {', '.join(known)}{hint}", file=sys.stderr)
        sys.exit(2)
    sys.argv[:] = [f"{sys.argv[0]} {name}", *rest]
    command(name)()


def _listed() -> str:
    lines = [f"  {name:10}{about.partition(': ')[0]}" for name, about in abouts().items()]
    return "\n".join(
        [
            "usage: distdiff <command> [group=option] [group.key=value] [-m]",
            "",
            *lines,
            "",
            "distdiff <command> --help lists the command's groups, options and keys. distdiff --version prints the version.",
        ]
    )


if __name__ == "__main__":
    main()
