"""CPU per HTTP and HTTPS probe, as a ratio against blackbox_exporter in the same minute on the same machine.

    python -m tests.benchmarks.http_cost [PROBES]

One server process answers both. blackbox_exporter's CPU is that of its process over as many scrapes of /probe, on one
kept connection; ours is that of this process over as many runs. Both ask one after the other, over a fresh connection
to 127.0.0.1 each time, with verified certificates where there is TLS. The two take turns; the median round counts.
"""

from __future__ import annotations

import asyncio
import resource
import ssl
import sys
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

from tests.lab.blackbox import blackbox, cpu_seconds_per_run, medians, print_ratio, process
from tests.lab.certificates import Certificates

_ANSWER = b'HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 15\r\n\r\n{"status":"ok"}'

_MODULES = """
modules:
  plain: {{prober: http, timeout: 5s, http: {{preferred_ip_protocol: ip4, fail_if_body_not_matches_regexp: ['"ok"']}}}}
  tls:
    prober: http
    timeout: 5s
    http:
      preferred_ip_protocol: ip4
      fail_if_body_not_matches_regexp: ['"ok"']
      tls_config: {{ca_file: {ca_file}}}
"""


async def serve(chain_file: str, key_file: str) -> None:
    """The server process: prints its two ports and answers every request alike."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(chain_file, key_file)

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(_ANSWER)
            await writer.drain()
        except (OSError, EOFError):
            pass
        finally:
            writer.close()

    plain = await asyncio.start_server(answer, "127.0.0.1", 0)
    tls = await asyncio.start_server(answer, "127.0.0.1", 0, ssl=context)
    print(*(server.sockets[0].getsockname()[1] for server in (plain, tls)), flush=True)
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
            plain, tls = server.stdout.readline().split()
            subjects: dict[str, dict[str, Any]] = {
                "plain": {"url": f"http://127.0.0.1:{plain}/"},
                "tls": {"url": f"https://127.0.0.1:{tls}/", "tls": {"ca_file": ca_file}},
            }
            for module, keys in subjects.items():
                ours = partial(cpu_seconds_per_run, "http", proxy="none", expect={"body_matches": '"ok"'}, **keys)
                theirs = partial(peer.cpu_seconds_per_probe, module, keys["url"])
                cost = medians({"ours": ours, "theirs": theirs}, probes)
                print_ratio(keys["url"].partition(":")[0], cost["ours"], cost["theirs"])
    print(f"peak memory of this process: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024} MiB")


if __name__ == "__main__":
    if sys.argv[1:2] == ["serve"]:
        asyncio.run(serve(*sys.argv[2:4]))
    else:
        main(int(sys.argv[1]) if len(sys.argv) > 1 else 1000)
