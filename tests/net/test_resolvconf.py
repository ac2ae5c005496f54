"""resolv.conf is read as glibc reads it (resolv/res_init.c)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from agent.net.resolvconf import ResolvConf


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", {"nameservers": ("127.0.0.1",), "search": ()}),
        ("nameserver 10.0.0.10\nnameserver fd00::a\n", {"nameservers": ("10.0.0.10", "fd00::a")}),
        ("nameserver\t10.0.0.10 # the cluster's", {"nameservers": ("10.0.0.10",)}),
        ("nameserver 10.1\n", {"nameservers": ("10.0.0.1",)}),
        ("nameserver fe80::1%eth0", {"nameservers": ("fe80::1%eth0",)}),
        (
            "".join(f"nameserver 10.0.0.{n}\n" for n in range(1, 6)),
            {"nameservers": ("10.0.0.1", "10.0.0.2", "10.0.0.3")},
        ),
        ("nameserver dns.example\nnameserver 10.0.0.10:53\nnameserver 10.0.0.9", {"nameservers": ("10.0.0.9",)}),
        ("# nameserver 10.0.0.1\n;nameserver 10.0.0.1\n nameserver 10.0.0.1", {"nameservers": ("127.0.0.1",)}),
        ("nameserver", {"nameservers": ("127.0.0.1",)}),
        ("search a.b c.d.\tE.f", {"search": ("a.b", "c.d", "E.f")}),
        ("search .", {"search": ("",)}),
        ("search .a.b", {"search": ("a.b",)}),
        ("search a\nsearch b c\nsearch\n", {"search": ("b", "c")}),
        ("search a b\ndomain c d", {"search": ("c",)}),
        ("domain c\nsearch a b", {"search": ("a", "b")}),
        ("options ndots:5 timeout:2 attempts:3", {"ndots": 5, "timeout_seconds": 2, "attempts": 3}),
        ("options ndots:5\noptions ndots:2 rotate", {"ndots": 2, "rotate": True}),
        ("options ndots:99 timeout:99 attempts:99", {"ndots": 15, "timeout_seconds": 30, "attempts": 5}),
        ("options ndots:0 timeout:0 attempts:0", {"ndots": 0, "timeout_seconds": 1, "attempts": 1}),
        ("options ndots:x timeout: attempts:3x", {"ndots": 0, "timeout_seconds": 1, "attempts": 3}),
        ("options use-vc no-tld-query unknown:1 edns0", {"use_vc": True, "no_tld_query": True}),
        ("options", {"ndots": 1, "timeout_seconds": 5, "attempts": 2, "rotate": False, "use_vc": False}),
        ("sortlist 10.0.0.0\nlookup file bind\n\x00\nnameserver 10.0.0.1", {"nameservers": ("10.0.0.1",)}),
    ],
)
def test_lines(text: str, expected: dict[str, Any]) -> None:
    conf = ResolvConf.parse(text)
    assert {name: getattr(conf, name) for name in expected} == expected


@pytest.mark.parametrize(
    ("hostname", "text", "search"),
    [
        ("pod-1.workers.example", "", ("workers.example",)),
        ("pod-1.workers.example", "search a.b", ("a.b",)),
        ("pod-1", "", ()),
    ],
)
def test_the_hosts_domain_is_searched_where_nothing_else_is_said(
    hostname: str, text: str, search: tuple[str, ...]
) -> None:
    assert ResolvConf.parse(text, hostname=hostname).search == search


def test_a_file_that_cannot_be_read_means_the_defaults(tmp_path: Path) -> None:
    (tmp_path / "latin").write_bytes(b"# caf\xe9\nnameserver 10.0.0.1\n")
    assert ResolvConf.read(tmp_path / "missing").nameservers == ("127.0.0.1",)
    assert ResolvConf.read(tmp_path).nameservers == ("127.0.0.1",)
    assert ResolvConf.read(tmp_path / "latin").nameservers == ("10.0.0.1",)
