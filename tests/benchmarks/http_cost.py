"""CPU per HTTP and HTTPS probe, as a ratio against blackbox_exporter in the same minute on the same machine.

    python -m tests.benchmarks.http_cost [PROBES]

One server process answers both. blackbox_exporter's CPU is that of its process over as many scrapes of /probe, on one
kept connection; ours is that of this process over as many runs. Both ask one after the other, over a fresh connection
to 127.0.0.1 each time, with verified certificates where there is TLS. The two take turns; the median round counts.
"""

from __future__ import annotations

import asyncio
import http.client
import os
import resource
import shutil
import ssl
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from agent.probers import PROBERS
from agent.runner import run
from tests.lab.certificates import Certificates
from tests.lab.misbehaving import refusing_port
from tests.lab.targets import target

ROUNDS = 5
_TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
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


@contextmanager
def process(*command: str) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as child:
        try:
            yield child
        finally:
            child.terminate()


def cpu_seconds(pid: int) -> float:
    """User and system time of a process, proc_pid_stat(5)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS_PER_SECOND


def theirs(pid: int, port: int, module: str, address: str, probes: int) -> float:
    """CPU seconds of blackbox_exporter per probe."""
    connection = http.client.HTTPConnection("127.0.0.1", port)
    before = cpu_seconds(pid)
    for _ in range(probes):
        connection.request("GET", f"/probe?module={module}&target={address}")
        page = connection.getresponse().read()
        if b"\nprobe_success 1" not in page:
            raise SystemExit(f"blackbox_exporter failed: {page.decode()}")
    spent = cpu_seconds(pid) - before
    connection.close()
    return spent / probes


async def ours(address: str, ca_file: Path, probes: int) -> float:
    """CPU seconds of this process per probe."""
    prober = PROBERS["http"].prober()
    tls = {"ca_file": str(ca_file)} if address.startswith("https") else {}
    subject = target("http", url=address, proxy="none", tls=tls, expect={"body_matches": '"ok"'})
    await run(prober, subject)  # builds the TLS context, once for all
    before = time.process_time()
    for _ in range(probes):
        outcome = await run(prober, subject)
        if not outcome.success:
            raise SystemExit(f"netprobe failed: {outcome.failure}")
    return (time.process_time() - before) / probes


def wait_until_ready(port: int) -> None:
    deadline = time.monotonic() + 10
    while True:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=1)
        try:
            connection.request("GET", "/-/healthy")
            connection.getresponse().read()
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)
        else:
            return
        finally:
            connection.close()


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
            plain, tls = server.stdout.readline().split()
            wait_until_ready(port)
            for module, address in (("plain", f"http://127.0.0.1:{plain}/"), ("tls", f"https://127.0.0.1:{tls}/")):
                asyncio.run(ours(address, certificates.ca_file, 50))
                theirs(blackbox.pid, port, module, address, 50)
                rounds = [
                    (
                        asyncio.run(ours(address, certificates.ca_file, probes)),
                        theirs(blackbox.pid, port, module, address, probes),
                    )
                    for _ in range(ROUNDS)
                ]
                mine, other = (statistics.median(column) for column in zip(*rounds, strict=True))
                scheme = address.partition(":")[0]
                print(
                    f"{scheme:5}  netprobe {mine * 1e3:.3f} ms  "
                    f"blackbox_exporter {other * 1e3:.3f} ms (with the scrape)  ratio {mine / other:.2f}"
                )
    print(f"peak memory of this process: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024} MiB")


if __name__ == "__main__":
    if sys.argv[1:2] == ["serve"]:
        asyncio.run(serve(*sys.argv[2:4]))
    else:
        main(int(sys.argv[1]) if len(sys.argv) > 1 else 1000)
