"""
The command line: what an administrator says, turned into calls of the store, and the answers turned into text.

Every command works on the database itself; a running service notices within a second. Results go to stdout (text, or
JSON with `--output json`), faults to stderr in one clear line. Exit status: 0 done, 1 refused or failed, 2 wrong usage:
no such command or option, a value of another kind than the option takes, options that contradict each other. A name
that is none is not wrong usage but refused, as is one that no token may be minted for.
Each noun has a module of its own; this one finds it, and turns what goes wrong in it into an exit status.
"""

from responder.cli.commands import main

__all__ = ["main"]
