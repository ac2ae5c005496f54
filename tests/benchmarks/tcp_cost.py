"""CPU per TCP and TLS probe, as a ratio against blackbox_exporter in the same minute on the same machine.

    python -m tests.benchmarks.tcp_cost [PROBES]

As in http_cost: one server process answers both, each probe is a fresh connection to 127.0.0.1, the two take turns, and
the median round counts. A dialogue is one line sent and one line expected.
"""

from __future__ import annotations

import asyncio
import ssl
import sys
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

from tests.lab.blackbox import blackbox, cpu_seconds_per_run, medians, print_ratio, process
from tests.lab.certificates import Certificates
from tests.lab.misbehaving import echoing

_MODULES = """
modules:
  connect: {{prober: tcp, timeout: 5s, tcp: {{preferred_ip_protocol: ip4}}}}
  dialogue:
    prober: tcp
    timeout: 5s
    tcp: {{preferred_ip_protocol: ip4, query_response: [{{send: PING}}, {{expect: PING}}]}}
  tls:
    prober: tcp
    timeout: 5s
    tcp: {{preferred_ip_protocol: ip4, tls: true, tls_config: {{ca_file: {ca_file}, server_name: localhost}}}}
"""


async def serve(chain_file: str, key_file: str) -> None:
    """The server process: prints its two ports, the second with TLS, and sends back what it gets."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(chain_file, key_file)
    async with echoing() as plain, echoing(tls=context) as tls:
        print(plain.port, tls.port, flush=True)
        await asyncio.Event().wait()


def main(probes: int) -> None:
    with tempfile.TemporaryDirectory() as directory:
        certificates = Certificates(Path(directory))
        good, ca_file = certificates.good, str(certificates.ca_file)
        with (
            process(sys.executable, "-m", __spec__.name, "serve", str(good.chain_file), str(good.key_file)) as server,
            blackbox(Path(directory), _MODULES.format(ca_file=ca_file)) as peer,
        ):
            assert server.stdout is not None
            plain, tls = (f"127.0.0.1:{number}" for number in server.stdout.readline().split())
            subjects: dict[str, dict[str, Any]] = {
                "connect": {"address": plain},
                "dialogue": {"address": plain, "dialogue": [{"send": "PING\n"}, {"expect": "PING\n"}]},
                "tls": {"address": tls, "tls": {"ca_file": ca_file, "server_name": "localhost"}},
            }
            for module, keys in subjects.items():
                ours = partial(cpu_seconds_per_run, "tcp", **keys)
                theirs = partial(peer.cpu_seconds_per_probe, module, keys["address"])
                cost = medians({"ours": ours, "theirs": theirs}, probes)
                print_ratio(module, cost["ours"], cost["theirs"])


if __name__ == "__main__":
    if sys.argv[1:2] == ["serve"]:
        asyncio.run(serve(*sys.argv[2:4]))
    else:
        main(int(sys.argv[1]) if len(sys.argv) > 1 else 1000)
