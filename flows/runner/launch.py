"""Start a command of `edda` in several processes: torchrun, whose failure is one line in place of a traceback.

python -m flows.runner.launch --nproc-per-node=2 train my.toml
"""

from __future__ import annotations

import logging
import os
import signal
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from flows.output.console import inform
from flows.runner.failures import FAILURE, describe_error

if TYPE_CHECKING:
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

_NO_FILE = "<N/A>"
"""What torch has in place of the error file of a process that wrote none."""


def launch(arguments: Sequence[str]) -> int:
    """Run a command of `edda` in the processes that torchrun starts.

    Args:
        arguments: options of torchrun, then the command and its arguments.

    Returns:
        The exit status: 0, FAILURE, or 128 and the number of the signal that ended all of them.
    """
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # as torchrun does, with a warning of six lines
    from torch.distributed import run
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

    options = run.parse_args(["--module", *arguments])  # type: ignore[no-untyped-call]
    options.training_script_args = [options.training_script, *options.training_script_args]
    options.training_script = "flows.cli"
    logging.disable(logging.ERROR)  # torchrun's own lines; this process has no others
    try:
        run.run(options)  # type: ignore[no-untyped-call]
    except ChildFailedError as error:
        if problem := _describe_failure(error):
            inform(f"edda: {problem}")
        return FAILURE
    except SignalException as error:
        return 128 + int(error.sigval)
    except (OSError, RuntimeError, ValueError) as error:  # no other process answered, or options do not fit
        inform(f"edda: {' '.join(describe_error(error).split())}")
        return FAILURE
    return 0


def _describe_failure(error: ChildFailedError) -> str:
    """The process that failed first and how; empty if it was the first one, which has printed its error."""
    first, failures = error.get_first_failure()[0], error.failures
    killed = (rank for rank, each in failures.items() if each.exitcode < 0 and each.exitcode != -signal.SIGTERM)
    rank = next(killed, first)
    failure = failures[rank]
    if failure.exitcode < 0:
        how = f"was ended by {failure.signal_name()}"
    elif failure.error_file == _NO_FILE:
        how = f"ended with status {failure.exitcode}"
    elif rank:
        how = f"failed: {failure.error_file_data['message']['message'].removeprefix('edda: ')}"
    else:
        return ""
    return f"process {rank} {how}; what was finished is kept, the same command continues from there"


if __name__ == "__main__":
    sys.exit(launch(sys.argv[1:]))
