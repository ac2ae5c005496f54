"""http: a request over a fresh connection, through redirects, and what is expected of the final answer."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial

from aiohttp import CookieJar
from yarl import URL

from agent import __version__
from agent.failures import redact
from agent.keys import HostPort, show_size
from agent.model import Addresses, Fact, Phase, Reason, Secret, Target
from agent.net.connect import Stream, connect
from agent.net.content import ACCEPTED, Content
from agent.net.http1 import Answer, Head, request_bytes
from agent.net.http_signs import note_head, note_page, note_proxy
from agent.net.proxy import ProxyEnvironment, ProxyMode, ProxyServer, demand_credentials, open_tunnel
from agent.net.resolve import Address, resolve_endpoint
from agent.net.tls import Contexts, confirm, start_tls
from agent.net.urls import host_of, port_of, printable, read_url, trusted_with_credentials
from agent.prober import ProbeFailure, Recorder, shorten
from agent.probers.http_expect import Mask, judge_body, judge_headers, judge_status
from agent.probers.http_options import HttpOptions, Method
from agent.runner import each

USER_AGENT = f"netprobe/{__version__}"

_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_KEEP_METHOD = frozenset({307, 308})
_SEE_OTHER = 303
_SECURE = "https"

_OF_ONE_HOP = frozenset(
    {fact for fact in Fact if fact.value.startswith(("tls_", "certificate_", "client_certificate_"))}
    | {Fact.HTTP_STATUS_CODE, Fact.HTTP_VERSION, Fact.HTTP_SERVER, Fact.HTTP_CONTENT_TYPE, Fact.CLOCK_AHEAD_SECONDS}
    | {Fact.ADDRESSES, Fact.PROXY, Fact.PROXY_ERROR, Fact.MESH_PROXY, Fact.MESH_ERROR}
    | {Fact.DNS_NAME, Fact.DNS_SERVER, Fact.DNS_ATTEMPTS, Fact.HOSTS_FILE, Fact.RETRANSMITTED_SEGMENTS}
)
"""Facts about a connection, which the next one does not inherit."""


class HttpProber:
    """Asks once, over one new connection a hop; nothing is pooled, cached or tried again."""

    def __init__(self) -> None:
        self._contexts = Contexts()
        self._environment = ProxyEnvironment()

    def prepare(self, target: Target[HttpOptions]) -> None:
        if target.options.url.scheme == _SECURE:
            self._contexts.get(target.options.tls)

    async def probe(self, target: Target[HttpOptions], recorder: Recorder) -> None:
        options = target.options
        endpoint = self._way(options.url, options, recorder)[1]
        addresses = await resolve_endpoint(endpoint, options, recorder, addresses=options.addresses)

        async def attempt(address: Address, notes: Recorder) -> None:
            await self._follow(target, {endpoint.host: address.ip}, notes)

        await each(addresses, target, recorder, attempt)

    async def aclose(self) -> None:
        pass

    async def _follow(self, target: Target[HttpOptions], chosen: dict[str, str], notes: Recorder) -> None:
        """One run, from the first request to the verdict on the last answer.

        `chosen` holds the address of each host; a host that comes again keeps its own, so that with `addresses: all`
        an attempt at one address does not end up at another.
        """
        options = target.options
        request = Request(options.url, options.method, with_body=options.sends_body)
        hops: list[dict[str, object]] = []
        notes.facts[Fact.HTTP_REDIRECTS] = hops
        jar: CookieJar | None = None
        while True:
            proxy, endpoint = self._way(request.url, options, notes)
            if endpoint.host not in chosen:
                (address,) = await resolve_endpoint(endpoint, options, notes, addresses=Addresses.FIRST)
                chosen[endpoint.host] = address.ip
            async with await connect(Address(chosen[endpoint.host], endpoint.port), notes) as stream:
                await self._secure(stream, request.url, proxy, options, notes)
                with notes.phase(Phase.REQUEST):
                    stream.writer.write(request.wire(options, proxy, jar))
                    answer = Answer(stream, notes, to_head=request.method is Method.HEAD)
                    head = await answer.head()
                notes.facts[Fact.HTTP_STATUS_CODE] = head.status
                notes.facts[Fact.HTTP_VERSION] = head.version
                note_head(head, notes)
                if proxy is not None and request.url.scheme != _SECURE:
                    note_proxy(head, notes)
                    demand_credentials(proxy, head, notes)
                location = head.headers.get("Location") if head.status in _REDIRECTS else None
                if location is None or not options.max_redirects:
                    _note_location(request.url, location, notes)
                    await _judge(target, answer, head, partial(redact, target=target, more=notes.secrets), notes)
                    return
            hops.append({"url": printable(request.url), "status": head.status})
            following = _join(request.url, location)
            notes.facts[Fact.HTTP_LOCATION] = shorten(printable(following))
            if len(hops) > options.max_redirects:
                detail = f"expected at most {options.max_redirects} redirects, got another to {printable(following)}"
                raise ProbeFailure(Reason.TOO_MANY_REDIRECTS, detail, phase=Phase.VERIFY)
            if cookies := head.headers.getall("Set-Cookie", ()):
                jar = jar or CookieJar(unsafe=True)  # "unsafe": cookies of IP addresses count too
                jar.update_cookies_from_headers(cookies, request.url)
            request = request.redirected(head.status, following)
            for fact in _OF_ONE_HOP:
                notes.facts.pop(fact, None)

    def _way(self, url: URL, options: HttpOptions, notes: Recorder) -> tuple[ProxyServer | None, HostPort]:
        """The proxy that leads to a URL, if any, and what to connect to."""
        proxy = options.proxy if isinstance(options.proxy, ProxyServer) else None
        if options.proxy is ProxyMode.ENVIRONMENT:
            proxy = self._environment.proxy_for(url)
        if proxy is None:
            return None, HostPort(host_of(url), port_of(url))
        notes.facts[Fact.PROXY] = str(proxy)
        notes.secrets += proxy.secrets
        return proxy, proxy.endpoint

    async def _secure(
        self, stream: Stream, url: URL, proxy: ProxyServer | None, options: HttpOptions, notes: Recorder
    ) -> None:
        """Make what lies between connection and request: TLS to the proxy, the tunnel, TLS to the server."""
        if proxy is not None and proxy.scheme == _SECURE:
            # The proxy is judged by the same authorities, but never shown the certificate meant for the target.
            tls = replace(options.tls, certificate_file=None, key_file=None)
            await start_tls(stream, self._contexts.get(tls), proxy.endpoint.host, notes)
            for fact in _OF_ONE_HOP - {Fact.PROXY, Fact.ADDRESSES}:
                notes.facts.pop(fact, None)
        if url.scheme == _SECURE:
            if proxy is not None:
                await open_tunnel(stream, proxy, HostPort(host_of(url), port_of(url)), USER_AGENT, notes)
            pinned = options.tls.server_name if host_of(url) == host_of(options.url) else None
            await start_tls(stream, self._contexts.get(options.tls), pinned or host_of(url), notes)
            # A server that does not take our certificate closes, and the reset that meets our request there overtakes
            # the alert.
            await confirm(stream, notes)


def _join(url: URL, location: str) -> URL:
    try:
        return read_url(location, url)
    except ValueError as error:
        detail = f"expected a Location with an http or https URL, got one where {error}"
        raise ProbeFailure(Reason.PROTOCOL_ERROR, detail, phase=Phase.REQUEST) from None


def _note_location(url: URL, location: str | None, notes: Recorder) -> None:
    """Write down where a redirect leads that is not followed: one that leads nowhere is no failure here."""
    if location is not None:
        with suppress(ValueError):
            notes.facts[Fact.HTTP_LOCATION] = shorten(printable(read_url(location, url)))


async def _judge(target: Target[HttpOptions], answer: Answer, head: Head, mask: Mask, notes: Recorder) -> None:
    """Read the body of the final answer, within its limit, and compare the answer with what is expected."""
    options = target.options
    with notes.phase(Phase.TRANSFER):
        content = Content(head.headers.get("Content-Encoding", ""), options.body_limit)
        while not content.overflowed and (piece := await answer.read()):
            content.feed(piece)
            notes.facts[Fact.HTTP_BODY_BYTES] = len(content.data)
        content.finish()
        notes.facts[Fact.HTTP_BODY_BYTES] = len(content.data)
    note_page(head, content.data, notes)
    with notes.phase(Phase.VERIFY):
        judge_status(options.expect, head, content.data, mask)
        if content.overflowed:
            detail = f"expected a body of at most {show_size(options.body_limit)}, got more"
            raise ProbeFailure(Reason.TOO_LARGE, detail, phase=Phase.TRANSFER)
        judge_headers(options.expect, head, mask)
        judge_body(options.expect, head, content.data, mask)


@contextmanager
def _reading(key: str, file: Secret | None) -> Iterator[None]:
    """Say which file of the configuration cannot be used: neither the peer nor netprobe is at fault."""
    try:
        yield
    except (OSError, UnicodeDecodeError) as error:
        if file is None:
            raise
        why = error.strerror if isinstance(error, OSError) else "it is not"
        detail = f"expected {key} of the configuration to be a file of UTF-8 text, got {file.path}: {why}"
        raise ProbeFailure(Reason.INTERNAL, detail) from None


@dataclass(frozen=True, slots=True)
class Request:
    """What is asked at one hop."""

    url: URL
    method: Method
    with_body: bool

    def redirected(self, status: int, url: URL) -> Request:
        """What is asked where an answer redirected to, RFC 9110, section 15.4: as every client in use does it."""
        if status in _KEEP_METHOD or self.method is Method.HEAD:
            return replace(self, url=url)
        if status == _SEE_OTHER or self.method is Method.POST:
            return Request(url, Method.GET, with_body=False)
        return replace(self, url=url)

    def wire(self, options: HttpOptions, proxy: ProxyServer | None, jar: CookieJar | None) -> bytes:
        """The bytes to send. ProbeFailure where a secret's file cannot be read, or holds what cannot be sent."""
        url = self.url
        own = trusted_with_credentials(url, options.url)
        headers = {
            "host": ("Host", url.host_port_subcomponent or ""),
            "user-agent": ("User-Agent", USER_AGENT),
            "accept": ("Accept", "*/*"),
            "accept-encoding": ("Accept-Encoding", ACCEPTED),
            "connection": ("Connection", "close"),
        }
        for name, value in options.headers:
            lower = name.lower()
            if (own or not (isinstance(value, Secret) or lower == "host")) and (
                self.with_body or not lower.startswith("content-")
            ):
                headers[lower] = (name, value.reveal() if isinstance(value, Secret) else value)
        if own:
            basic = options.basic_auth
            with (
                _reading("bearer_token_file", options.bearer_token_file),
                _reading("basic_auth.password_file", basic.password_file if basic is not None else None),
            ):
                if (authorization := options.authorization) is not None:
                    headers["authorization"] = ("Authorization", authorization.reveal())
        if jar is not None and (cookies := jar.filter_cookies(url).output(header="", sep=";").strip()):
            _, configured = headers.get("cookie", ("", ""))
            headers["cookie"] = ("Cookie", f"{configured}; {cookies}" if configured else cookies)
        body = b""
        if self.with_body:
            with _reading("body_file", options.body_file):
                body = options.request_body
            headers["content-length"] = ("Content-Length", str(len(body)))
        path = url.raw_path_qs
        if proxy is not None and url.scheme != _SECURE:
            path = f"{url.scheme}://{url.host_port_subcomponent}{path}"
            if (proxy_authorization := proxy.authorization) is not None:
                headers["proxy-authorization"] = ("Proxy-Authorization", proxy_authorization.reveal())
        return request_bytes(self.method, path, headers.values(), body)
