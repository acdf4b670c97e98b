"""`python -m responder` is the command line."""

import signal

if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # during the imports, Ctrl-C ends the program without a traceback
signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGINT])  # config/dev.py blocks it until here

from responder.cli import main  # noqa: E402

main()
