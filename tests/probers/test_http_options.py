"""The keys of an http target: what is read, what is refused and in which words, what is shown."""

from __future__ import annotations

from datetime import date
from pathlib import Path
from typing import Any

import pytest
import voluptuous as vol
from yarl import URL

from agent.keys import keys_of, section
from agent.model import Secret, secrets_of
from agent.probers import PROBERS
from agent.probers.http_options import BasicAuth, HttpOptions

OPTIONS = section(HttpOptions)


def read(**keys: Any) -> HttpOptions:
    return OPTIONS({"url": "https://api.example.test/health", **keys})


def test_defaults() -> None:
    """Every default that the documentation promises."""
    options = read()
    assert OPTIONS.show(options) == {
        "url": "https://api.example.test/health",
        "method": "GET",
        "tls": {"min_version": "1.2", "verify": True},
        "max_redirects": 10,
        "proxy": "environment",
        "body_limit": "1MiB",
        "expect": {"status": ["2xx"]},
        "addresses": "first",
        "family": "any",
        "resolv_conf": "/etc/resolv.conf",
    }


@pytest.mark.parametrize(
    ("url", "address", "host"),
    [
        ("HTTPS://Api.example.test", "https://Api.example.test/", "Api.example.test"),
        ("http://api:80/a?token=1#b", "http://api/a", "api"),
        ("http://api:8080/", "http://api:8080/", "api"),
        ("https://[2001:db8::1]:8443/x", "https://[2001:db8::1]:8443/x", "2001:db8::1"),
        ("https://bücher.example.test/", "https://xn--bcher-kva.example.test/", "xn--bcher-kva.example.test"),
        ("http://my_service.namespace.svc/", "http://my_service.namespace.svc/", "my_service.namespace.svc"),
    ],
)
def test_the_address_that_is_shown(url: str, address: str, host: str) -> None:
    options = read(url=url)
    assert (options.printable_address, options.host) == (address, host)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"url": 5}, "expected a URL such as https://api.example.com/health, got 5"),
        (
            {"url": "ftp://x/"},
            "expected a URL such as https://api.example.com/health, got 'ftp://x/': its scheme is not http or https",
        ),
        (
            {"url": "api.example.test"},
            (
                "expected a URL such as https://api.example.com/health, got 'api.example.test': "
                "its scheme is not http or https"
            ),
        ),
        (
            {"url": "http:///path"},
            "expected a URL such as https://api.example.com/health, got 'http:///path': it names no host",
        ),
        (
            {"url": "http://h:99999/"},
            "expected a URL such as https://api.example.com/health, got 'http://h:99999/': it is not a URL",
        ),
        (
            {"url": "http://h:0/"},
            "expected a URL such as https://api.example.com/health, got 'http://h:0/': its port is not a port",
        ),
        (
            {"url": "http://ho st/"},
            (
                "expected a URL such as https://api.example.com/health, got 'http://ho st/': "
                "its host is not a host name or an IP address"
            ),
        ),
        (
            {"url": "https://ann:s3cret@h/"},
            (
                "expected a URL such as https://api.example.com/health, got one with a user name in it: "
                "that belongs under basic_auth"
            ),
        ),
        (
            {"url": "https//ann:s3cret@h/"},
            "expected a URL such as https://api.example.com/health, got another text: its scheme is not http or https",
        ),
        ({"method": "CONNECT"}, "expected one of GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS, got 'CONNECT'"),
        ({"headers": ["a"]}, "expected a mapping of header names to strings, got a list"),
        ({"headers": {"A B": "x"}}, "expected the name of a header, got 'A B'"),
        ({"headers": {"Authorization": "s3cret\r\nX: y"}}, "expected a string on one line, got a string"),
        ({"headers": {"A": 5}}, "expected a string on one line, got a number"),
        (
            {"headers": {"content-length": "5"}},
            "expected a header that does not frame the message, got one that netprobe sets itself",
        ),
        ({"body": "a", "body_file": "b"}, "expected body or body_file, got both"),
        (
            {"basic_auth": {"username": "a", "password": "b", "password_file": "c"}},
            "expected password or password_file, got both",
        ),
        ({"basic_auth": {"password": "s3cret"}}, "expected a string, got nothing"),
        (
            {"basic_auth": {"username": "a"}, "bearer_token": "s3cret"},
            "expected one way to authenticate, got basic_auth and bearer_token",
        ),
        (
            {"bearer_token_file": "/x", "headers": {"AUTHORIZATION": "s3cret"}},
            "expected one way to authenticate, got bearer_token_file and the header AUTHORIZATION",
        ),
        ({"max_redirects": 21}, "expected a whole number from 0 to 20, got 21"),
        (
            {"proxy": "socks5://ann:s3cret@proxy:1080"},
            (
                "expected environment, none, or a URL such as http://proxy:3128 or https://user:password@proxy, "
                "got a URL where its scheme is socks5"
            ),
        ),
        (
            {"proxy": "ann:s3cret@proxy"},
            "none, or a URL such as http://proxy:3128 or https://user:password@proxy, got a string",
        ),
        (
            {"proxy": "http:///s3cret"},
            (
                "expected environment, none, or a URL such as http://proxy:3128 or https://user:password@proxy, "
                "got a URL where it names no host"
            ),
        ),
        ({"body_limit": "0B"}, "expected a size such as 64KiB, from 1B to 256MiB, got '0B'"),
        ({"expect": {"status": []}}, "expected a non-empty list, each item a status code or range such as 200, 2xx"),
        ({"expect": {"status": ["6xx"]}}, "expected a status code or range such as 200, 2xx or 200-399"),
        ({"expect": {"status": ["399-200"]}}, "expected a status code or range such as 200, 2xx or 200-399"),
        ({"expect": {"status": [99]}}, "expected a status code or range such as 200, 2xx or 200-399"),
        ({"expect": {"status": [True]}}, "expected a status code or range such as 200, 2xx or 200-399"),
        ({"expect": {"headers": {"A": "("}}}, "expected a regular expression, got '('"),
        ({"expect": {"body_matches": "("}}, "expected a regular expression, got '('"),
        ({"expect": {"body_matches": []}}, "expected a regular expression or a non-empty list of them, got a list"),
        ({"expect": {"body_not_matches": ["a", "("]}}, "expected a regular expression, got '('"),
        ({"expect": {"json": [{"pointer": "a/b"}]}}, "expected a JSON pointer such as /status/0/name (RFC 6901)"),
        ({"expect": {"json": [{"pointer": "/~2"}]}}, "expected a JSON pointer such as /status/0/name (RFC 6901)"),
        (
            {"expect": {"json": [{"pointer": "/a", "equals": None, "matches": "x"}]}},
            "expected equals or matches, got both",
        ),
        (
            {"expect": {"json": [{"pointer": "/a", "equals": date(2026, 1, 1)}]}},
            "expected a value that JSON can hold, got",
        ),
        ({"expct": {}}, "perhaps expect, got the unknown key 'expct'"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_what_is_refused(keys: dict[str, Any], message: str) -> None:
    """At load, in a sentence, and without a password in it."""
    with pytest.raises(vol.MultipleInvalid) as caught:
        read(**keys)
    messages = [error.error_message for error in caught.value.errors]
    assert len(messages) == 1
    assert message in messages[0]
    assert "s3cret" not in messages[0]


def test_no_secret_is_shown() -> None:
    options = read(
        url="https://api.example.test/?token=s3cret",
        headers={"X-Api-Key": "s3cret", "Accept": "text/html"},
        body="s3cret",
        basic_auth={"username": "ann", "password": "s3cret"},
        proxy="http://ann:s3cret@proxy:3128",
    )
    shown = OPTIONS.show(options)
    assert "s3cret" not in f"{shown} {options!r}".replace("url=URL('https://api.example.test/?token=s3cret')", "")
    assert shown["url"] == "https://api.example.test/?***"
    assert shown["headers"] == {"X-Api-Key": "***", "Accept": "text/html"}
    assert shown["proxy"] == "http://***@proxy:3128"
    assert {secret.reveal() for secret in options.secrets} == {"s3cret", "YW5uOnMzY3JldA==", "token=s3cret"}


def test_every_secret_among_the_keys_is_known() -> None:
    """The options name their secrets one by one; a key that is added later must not be forgotten there."""
    every = {
        "headers": {"X-Api-Key": "1"},
        "body": "2",
        "body_file": "3",
        "basic_auth": None,
        "bearer_token": "6",
        "bearer_token_file": "7",
        "proxy": "http://a:8@proxy",
    }
    kinds = keys_of(HttpOptions)
    # Built by hand: together, they exclude each other.
    values: dict[str, Any] = {name: kinds[name].kind(value) for name, value in every.items() if name != "basic_auth"}
    password = {"password": Secret("4"), "password_file": Secret(path=Path("5"))}
    options = HttpOptions(url=URL("http://api/"), basic_auth=BasicAuth(username="a", **password), **values)
    found = secrets_of(options)
    assert len(found) == len(every) + 1
    assert set(found) <= set(options.secrets)


def test_a_secret_file_that_is_missing_hides_no_other_secret() -> None:
    options = read(bearer_token_file="/nonexistent/token", headers={"X-Key": "s3cret"})
    assert Secret("s3cret") in options.secrets


@pytest.mark.parametrize("header", ["Authorization", "proxy-authorization", "Cookie", "X-API-Key", "X-Auth-Token"])
def test_headers_that_hold_secrets(header: str) -> None:
    assert OPTIONS.show(read(headers={header: "s3cret"}))["headers"] == {header: "***"}


@pytest.mark.parametrize(
    ("url", "keys"),
    [
        ("https://api.example.test/a?b=c", {"url": "https://api.example.test/a?b=c"}),
        ("http://api.example.test:8080", {"url": "http://api.example.test:8080"}),
        ("http://api/?mail=a@b", {"url": "http://api/?mail=a@b"}),
        (
            "https://ann:p%40ss@api.example.test:8443/a@b?c",
            {
                "url": "https://api.example.test:8443/a@b?c",
                "basic_auth": {"username": "ann", "password": "p@ss"},
            },
        ),
        ("https://ann@[::1]/", {"url": "https://[::1]/", "basic_auth": {"username": "ann"}}),
    ],
)
def test_a_url_on_the_command_line(url: str, keys: dict[str, Any]) -> None:
    """Credentials are accepted there, and leave the URL before it is shown anywhere."""
    spec = PROBERS["http"]
    assert url.partition("://")[0] in spec.url_schemes
    assert spec.from_url(url) == keys
    OPTIONS(keys)


def test_a_url_on_the_command_line_that_is_none() -> None:
    with pytest.raises(ValueError, match="it is not a URL") as caught:
        PROBERS["http"].from_url("https://ann:s3cret@[::1/")
    assert "s3cret" not in str(caught.value)
