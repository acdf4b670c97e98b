"""
The command line: it reads arguments, calls the store, and prints the results.

Every command works on the database itself; a running service follows within a second. Results go to stdout, as text or
with `--output json` as JSON; faults go to stderr, one line each. The exit status is 0 if the command succeeded, 1 if it
was refused or failed, and 2 for wrong usage: an unknown command or option, an option with a value of the wrong kind, or
options that contradict each other. A name, an id or a file is not usage: if it is invalid, unknown or unreadable, it is
refused, with status 1 in every command.
Each noun has a module of its own. `commands` finds it, and turns its errors into an exit status.
"""

from responder.cli.commands import main

__all__ = ["main"]
