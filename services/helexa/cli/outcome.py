# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""How a command ends: its exit code, and one line when something is wrong."""

import argparse
import os
import sys
from collections.abc import Callable

from helexa.process.lifecycle import EXIT_FAILED, EXIT_USAGE
from helexa.process.settings import SettingsError
from helexa.protocol.errors import HelexaError

INTERRUPTED = 130
"""What a shell expects of a program that Ctrl-C ended."""


def run_command(run: Callable[[argparse.Namespace], int], arguments: argparse.Namespace) -> int:
    """Return the exit code of `run`; what it raises becomes one line on stderr."""
    try:
        code = run(arguments)
        sys.stdout.flush()
    except SettingsError as error:
        return _say(str(error), EXIT_USAGE)
    except HelexaError as error:
        return _say(error.message, EXIT_FAILED)
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        # Whoever read our output has gone; the interpreter must not complain when it flushes.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_FAILED
    return code


def _say(message: str, code: int) -> int:
    sys.stderr.write(f"helexa: {message}\n")
    return code
