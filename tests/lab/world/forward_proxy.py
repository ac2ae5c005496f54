"""squid as the cluster's way to the internet: in a pod at 10.244.2.99."""

from __future__ import annotations

import shutil
from collections.abc import Sequence

from tests.lab.world.change import Change
from tests.lab.world.places import NAMESERVER_PODS
from tests.lab.world.world import World

PROXY_IP, PROXY_PORT = "10.244.2.99", 3128
PROXY_URL = f"http://{PROXY_IP}:{PROXY_PORT}"

_SQUID = """
http_port {ip}:{port}
pid_filename none
cache_log {directory}/cache.log
access_log none
coredump_dir {directory}
cache deny all
cache_mem 8 MB
memory_pools off
max_filedescriptors 1024
visible_hostname squid.example.test
shutdown_lifetime 0 seconds
pinger_enable off
dns_nameservers {nameserver}
connect_timeout 5 seconds
{rules}
http_access allow all
"""


def squid(world: World, rules: Sequence[str] = ()) -> Change:
    """Start it. `rules` are lines of its configuration before `http_access allow all`."""
    home = world.directory / "squid"
    home.mkdir(exist_ok=True)
    shutil.chown(home, "proxy", "proxy")
    configuration = home / "squid.conf"
    configuration.write_text(
        _SQUID.format(
            ip=PROXY_IP, port=PROXY_PORT, directory=home, nameserver=NAMESERVER_PODS[0], rules="\n".join(rules)
        )
    )
    # The user is changed first: the kernel forgets whom a process wants to die with when its user changes.
    become = ("setpriv", "--reuid=proxy", "--regid=proxy", "--init-groups", "--pdeathsig", "KILL")
    return world.process("cluster", *become, "squid", "-N", "-f", configuration, port=PROXY_PORT)
