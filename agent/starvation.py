"""How short of CPU this process is: event-loop lag and cgroup throttling, measured beside every latency."""
