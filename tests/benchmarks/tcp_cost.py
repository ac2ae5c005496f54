"""CPU per TCP and TLS probe, as a ratio against blackbox_exporter in the same minute on the same machine.

    python -m tests.benchmarks.tcp_cost [PROBES]

As in http_cost: one server process answers both, each probe is a fresh connection to 127.0.0.1, the two take turns, and
the median round counts. A dialogue is one line sent and one line expected.
"""

from __future__ import annotations

import asyncio
import shutil
import ssl
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from agent.probers import PROBERS
from agent.runner import run
from tests.benchmarks.http_cost import process, theirs, wait_until_ready
from tests.lab.certificates import Certificates
from tests.lab.misbehaving import echoing, refusing_port
from tests.lab.targets import target

ROUNDS = 5

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


async def ours(keys: dict[str, Any], probes: int) -> float:
    """CPU seconds of this process per probe."""
    prober = PROBERS["tcp"].prober()
    subject = target("tcp", **keys)
    await run(prober, subject)  # builds the TLS context, once for all
    before = time.process_time()
    for _ in range(probes):
        outcome = await run(prober, subject)
        if not outcome.success:
            raise SystemExit(f"netprobe failed: {outcome.failure}")
    return (time.process_time() - before) / probes


def main(probes: int) -> None:
    exporter = shutil.which("prometheus-blackbox-exporter")
    if exporter is None:
        raise SystemExit("prometheus-blackbox-exporter is not installed (Debian package of that name)")
    with tempfile.TemporaryDirectory() as directory:
        certificates = Certificates(Path(directory))
        modules = Path(directory, "blackbox.yml")
        modules.write_text(_MODULES.format(ca_file=certificates.ca_file))
        good, port = certificates.good, refusing_port()
        with (
            process(sys.executable, "-m", __spec__.name, "serve", str(good.chain_file), str(good.key_file)) as server,
            process(exporter, f"--config.file={modules}", f"--web.listen-address=127.0.0.1:{port}") as blackbox,
        ):
            assert server.stdout is not None
            plain, tls = (f"127.0.0.1:{number}" for number in server.stdout.readline().split())
            wait_until_ready(port)
            subjects: dict[str, dict[str, Any]] = {
                "connect": {"address": plain},
                "dialogue": {"address": plain, "dialogue": [{"send": "PING\n"}, {"expect": "PING\n"}]},
                "tls": {"address": tls, "tls": {"ca_file": str(certificates.ca_file), "server_name": "localhost"}},
            }
            for module, keys in subjects.items():
                asyncio.run(ours(keys, 50))
                theirs(blackbox.pid, port, module, keys["address"], 50)
                rounds = [
                    (
                        asyncio.run(ours(keys, probes)),
                        theirs(blackbox.pid, port, module, keys["address"], probes),
                    )
                    for _ in range(ROUNDS)
                ]
                mine, other = (statistics.median(column) for column in zip(*rounds, strict=True))
                print(
                    f"{module:8}  netprobe {mine * 1e3:.3f} ms  "
                    f"blackbox_exporter {other * 1e3:.3f} ms (with the scrape)  ratio {mine / other:.2f}"
                )


if __name__ == "__main__":
    if sys.argv[1:2] == ["serve"]:
        asyncio.run(serve(*sys.argv[2:4]))
    else:
        main(int(sys.argv[1]) if len(sys.argv) > 1 else 1000)
