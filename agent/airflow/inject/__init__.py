"""A pod template in, the same template with the sidecar out: `netprobe inject`. Contacts nothing."""
