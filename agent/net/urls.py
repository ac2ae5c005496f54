"""http and https URLs: read, joined with a redirect's Location, and shown without what may be secret in them."""

from __future__ import annotations

from yarl import URL

from agent.keys import valid_host

SCHEMES = ("http", "https")


def read_url(text: str, base: URL | None = None) -> URL:
    """Read an absolute URL, or one relative to a base.

    What is plain ASCII is sent as it was written: signed URLs do not survive another way of quoting. The message of the
    ValueError completes `expected …, got URL: …` and does not hold the URL.
    """
    plain = text.isascii() and text.isprintable() and " " not in text
    try:
        url = URL(text, encoded=plain)
        if base is not None and not url.scheme:
            url = base.join(url)
        port = url.port
    except ValueError:
        raise ValueError("it is not a URL") from None
    if url.scheme not in SCHEMES:
        raise ValueError(f"its scheme is not {' or '.join(SCHEMES)}")
    if not url.raw_host:
        raise ValueError("it names no host")
    if not valid_host(url.raw_host):
        raise ValueError("its host is not a host name or an IP address")
    if not port:
        raise ValueError("its port is not a port")
    return url


def host_of(url: URL) -> str:
    """The host to resolve and to verify: ASCII, an IPv6 address without brackets."""
    return url.raw_host or ""


def port_of(url: URL) -> int:
    return url.port or 0


def printable(url: URL) -> str:
    """scheme://host[:port]/path: user, password, query and fragment are left out."""
    return f"{url.scheme}://{url.host_port_subcomponent}{url.raw_path}"


def trusted_with_credentials(url: URL, first: URL) -> bool:
    """Whether what was configured for `first` may be sent to `url`, to which it redirects.

    The same scheme, host and port; or, as in Python's requests, the same host after an upgrade from http to https on
    their default ports.
    """
    if host_of(url).lower() != host_of(first).lower():
        return False
    here, there = (first.scheme, port_of(first)), (url.scheme, port_of(url))
    return here == there or (here == ("http", 80) and there == ("https", 443))
