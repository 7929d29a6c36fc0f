# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""The entry point `helexa`."""

import sys
from collections.abc import Sequence

from helexa.cli.commands import COMMANDS
from helexa.cli.parser import command_parser, overview, unknown_command


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code: 0 done, 1 failed, 2 a wrong argument or setting."""
    words = list(sys.argv[1:] if argv is None else argv) or ["--help"]
    name, *rest = words
    if name in ("-h", "--help", "help"):
        sys.stdout.write(overview())
        return 0
    name = "version" if name == "--version" else name
    if name not in COMMANDS:
        sys.stderr.write(unknown_command(name) + "\n")
        return 2
    arguments = command_parser(name).parse_args(rest)
    from helexa.cli.outcome import run_command  # noqa: PLC0415 - keeps `--help` fast

    return run_command(arguments.run, arguments)


if __name__ == "__main__":
    sys.exit(main())
