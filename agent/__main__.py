"""`python -m agent` is `netprobe`."""

from agent.cli import main

raise SystemExit(main())
