"""Writes the dashboards that Grafana reads: `python -m grafana`."""

from __future__ import annotations

from grafana.write import write

write()
