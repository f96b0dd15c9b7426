"""The process of one rank: `python -m distdiff.cli.member <folder> <place>`, which `ranks/launcher.py` starts."""

import json
import os
import signal
import sys
import threading
from pathlib import Path

from omegaconf import OmegaConf

from distdiff.cli.importing import import_as_told
from distdiff.cli.performing import end_now, perform
from distdiff.console.quiet import quiet_environment
from distdiff.errors import Stopped, UserError
from distdiff.ranks.arrangement import Rank
from distdiff.ranks.launcher import JOB, OUTCOME


def main() -> None:
    """Runs the job in `<folder>` as the rank that `<place>` describes.

    The figure that the job returns, or the reason why it ended early, is written to a file in `<folder>`.
    """
    folder, place = Path(sys.argv[1]), Rank(**json.loads(sys.argv[2]))
    end_with_the_parent()
    quiet_environment()
    import_as_told()
    outcome = {}
    try:
        job = json.loads((folder / JOB).read_text(encoding="utf-8"))
        config = OmegaConf.create(job["config"])  # checked and completed by the process that started this one
        OmegaConf.set_struct(config, True)
        figure = perform(job["task"], config, job["run_dir"] and Path(job["run_dir"]), place)
        outcome = {} if figure is None else {"figure": figure}
    except UserError as error:
        outcome = {"status": error.exit_status, "message": str(error), "shared": error.shared}
    except Stopped as stop:
        outcome = {"status": stop.exit_status, "stopped": stop.number}
    except KeyboardInterrupt:
        outcome = {"status": 128 + signal.SIGINT, "stopped": int(signal.SIGINT)}
    if outcome:
        (folder / OUTCOME.format(place.local_rank)).write_text(json.dumps(outcome), encoding="utf-8")
    end_now(outcome.get("status", 0))


def end_with_the_parent() -> None:
    """Ends this process once the one that started it has ended, even if that was killed by SIGKILL.

    Finished work is not lost, because it is already on disk.
    """

    def watch() -> None:
        os.read(sys.stdin.fileno(), 1)  # this read is unbuffered, so that no lock of sys.stdin is held at exit
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


if __name__ == "__main__":
    main()
