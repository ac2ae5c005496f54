"""What the exit code of every command means."""

FINE = 0
A_TARGET_FAILED = 1
USAGE = 2
"""The command line or the configuration is wrong."""
NOT_STARTED = 3
"""Also where there is nowhere to write to."""
INTERRUPTED = 130
"""128 and the number of SIGINT, as shells count."""
