"""Signals to the processes that a test starts."""

import signal


def heeding_interrupts() -> None:
    """Undo what a shell does to commands in the background: let them ignore Ctrl-C."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
