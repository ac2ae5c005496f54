"""The options of `netprobe inject`. Light to import: every command reads them."""

from __future__ import annotations

import argparse

FORMATS = ("pod", "chart-values", "hook-snippet")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of the command."""
    add = parser.add_argument
    add("file", nargs="?", default="-", metavar="FILE", help="what to read (default: standard input)")
    what = parser.add_argument_group("what happens")
    add = what.add_argument
    add("--remove", action="store_true", help="take the sidecar out again: what was there before, to the byte")
    add("--diff", action="store_true", help="print what would change instead of the result")
    add("--in-place", action="store_true", help="write the result into FILE instead of printing it")
    add(
        "--format",
        choices=FORMATS,
        default="pod",
        help="""what FILE is: a pod or what makes pods (default), or the values of Airflow's official chart; with
        hook-snippet, no FILE is read and what pod_mutation_hook needs is printed""",
    )
    add(
        "--chart-version",
        metavar="1.20",
        help="of chart-values: the chart's version, where it is older than 1.21, which has its lists elsewhere",
    )
    where = parser.add_argument_group("where it goes")
    add = where.add_argument
    add(
        "--mode",
        choices=("native", "legacy"),
        default="native",
        help="a native sidecar (default; Kubernetes 1.29), or an ordinary container that ends with the task",
    )
    add(
        "--position",
        choices=("first", "last"),
        default="first",
        help="of a native sidecar, among the init containers (default: first, so that it sees the others fail)",
    )
    add("--container", metavar="NAME", help="the container of the task (default: base, of a Celery worker: worker)")
    add(
        "--no-share-process-namespace",
        action="store_true",
        help="of a legacy sidecar: leave the pod's process namespaces apart; Airflow's listener then has to end it",
    )
    sidecar = parser.add_argument_group("what the sidecar is")
    add = sidecar.add_argument
    add("--image", help="its image (default: netprobe, of this version)")
    add("--image-pull-policy", choices=("Always", "IfNotPresent", "Never"), help="(default: what Kubernetes does)")
    add(
        "--config-map",
        default="netprobe",
        metavar="NAME",
        help="the ConfigMap with its configuration, and the Secret with what that refers to, where there is one "
        "(default: netprobe, for both)",
    )
    add("--requests", metavar="cpu=10m,memory=64Mi", help="what it asks for (this is the default)")
    add("--limits", metavar="cpu=500m,memory=128Mi", help="what it may use (this is the default)")
    add(
        "--share-env",
        action="append",
        default=[],
        metavar="PATTERN",
        help="""give it the variables of the task's container that fit, such as 'AIRFLOW_CONN_*' or HTTPS_PROXY; may be
        repeated""",
    )
    add("--share-env-from", action="store_true", help="give it the envFrom of the task's container")
    add(
        "--no-startup-probe",
        action="store_true",
        help="let the task start without waiting for the sidecar to say that the network is there",
    )
