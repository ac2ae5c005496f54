"""squid and tinyproxy on loopback, each a process of its own in a directory of its own."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.lab.certificates import Certificates
from tests.lab.misbehaving import refusing_port
from tests.lab.nameservers import loopback_ip

USER, PASSWORD = "probe", "s3cret-of-the-proxy"
DENIED_HOST = "127.0.0.66"
"""An address that the proxies' access lists deny."""
_START_SECONDS = 20.0


@dataclass(frozen=True)
class RunningProxy:
    ip: str
    """An address of loopback of its own: there, no connection of another test can hold the port by chance."""
    port: int
    tls_port: int | None

    @property
    def address(self) -> str:
        return f"{self.ip}:{self.port}"

    @property
    def tls_address(self) -> str:
        return f"{self.ip}:{self.tls_port}"


_SQUID = """
http_port {ip}:{port}
{https_port}
pid_filename {directory}/squid.pid
cache_log {directory}/cache.log
access_log stdio:{directory}/access.log
coredump_dir {directory}
cache deny all
cache_mem 8 MB
memory_pools off
max_filedescriptors 1024
visible_hostname squid.example.test
cache_effective_user proxy
shutdown_lifetime 0 seconds
pinger_enable off
dns_nameservers 127.0.0.153
connect_timeout 5 seconds
{auth}
acl denied dst {denied}/32
http_access deny denied
http_access {rule}
http_access deny all
"""

_SQUID_AUTH = """
auth_param basic program /usr/lib/squid/basic_ncsa_auth {directory}/users
auth_param basic children 1 startup=1 idle=1
auth_param basic realm proxy
acl known proxy_auth REQUIRED
"""

_TINYPROXY = """
Port {port}
Listen {ip}
User nobody
Group nogroup
Timeout 60
LogFile "{directory}/tinyproxy.log"
LogLevel Info
MaxClients 50
Allow 127.0.0.0/8
Filter "{directory}/filter"
FilterExtended Yes
{auth}
"""


@asynccontextmanager
async def squid(
    directory: Path, *, auth: bool = False, certificates: Certificates | None = None
) -> AsyncIterator[RunningProxy]:
    """squid; with an authority it listens for TLS as well."""
    ip = loopback_ip()
    proxy = RunningProxy(ip, refusing_port(ip), refusing_port(ip) if certificates is not None else None)
    home = _home(directory, "squid")
    https_port = ""
    if certificates is not None:
        certificate = certificates.issue("squid", (ip,))
        chain = shutil.copy(certificate.chain_file, home / "squid.pem")
        key = shutil.copy(certificate.key_file, home / "squid.key")
        shutil.chown(key, "proxy")
        https_port = f"https_port {proxy.tls_address} tls-cert={chain} tls-key={key}"
    if auth:
        (home / "users").write_text(f"{USER}:{_digest(PASSWORD)}\n")
    (home / "squid.conf").write_text(
        _SQUID.format(
            ip=ip,
            port=proxy.port,
            https_port=https_port,
            directory=home,
            auth=_SQUID_AUTH.format(directory=home) if auth else "",
            denied=DENIED_HOST,
            rule="allow known" if auth else "allow all",
        )
    )
    shutil.chown(home, "proxy")
    async with _running(["squid", "-N", "-f", str(home / "squid.conf")], proxy, home / "cache.log"):
        yield proxy


@asynccontextmanager
async def tinyproxy(directory: Path, *, auth: bool = False) -> AsyncIterator[RunningProxy]:
    home = _home(directory, "tinyproxy")
    ip = loopback_ip()
    proxy = RunningProxy(ip, refusing_port(ip), None)
    (home / "filter").write_text(f"^{DENIED_HOST.replace('.', '[.]')}$\n")
    (home / "tinyproxy.conf").write_text(
        _TINYPROXY.format(ip=ip, port=proxy.port, directory=home, auth=f"BasicAuth {USER} {PASSWORD}" if auth else "")
    )
    shutil.chown(home, "nobody")
    async with _running(["tinyproxy", "-d", "-c", str(home / "tinyproxy.conf")], proxy, home / "tinyproxy.log"):
        yield proxy


def _home(directory: Path, name: str) -> Path:
    """A directory that the proxy's own user can reach and write to, below one made by pytest for root alone."""
    home = directory / name
    home.mkdir()
    for parent in (directory, *directory.parents):
        if parent.stat().st_mode & 0o001 == 0:
            parent.chmod(parent.stat().st_mode | 0o011)
    return home


def _digest(password: str) -> str:
    command = ["openssl", "passwd", "-apr1", password]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


@asynccontextmanager
async def _running(command: Sequence[str], proxy: RunningProxy, log: Path) -> AsyncIterator[None]:
    path = os.environ["PATH"] + ":/usr/sbin:/sbin"
    process = await asyncio.create_subprocess_exec(
        *command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env={**os.environ, "PATH": path}
    )
    try:
        for port in filter(None, (proxy.port, proxy.tls_port)):
            await _listening(proxy.ip, port, process, log)
        yield
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()


async def _listening(ip: str, port: int, process: asyncio.subprocess.Process, log: Path) -> None:
    deadline = asyncio.get_running_loop().time() + _START_SECONDS
    while True:
        try:
            _, writer = await asyncio.open_connection(ip, port)
        except OSError:
            if process.returncode is not None or asyncio.get_running_loop().time() > deadline:
                raise AssertionError(f"expected a proxy on port {port}, it said: {_said(log)}") from None
            await asyncio.sleep(0.05)
        else:
            writer.transport.abort()
            return


def _said(log: Path) -> str:
    return log.read_text() if log.exists() else "nothing"
