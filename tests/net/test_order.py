"""How the order of addresses is bounded; that it is glibc's is shown beside libc, in test_resolve.py."""

from __future__ import annotations

from agent.net.order import ORDERED, ordered


def test_only_so_many_addresses_are_put_in_order() -> None:
    """An answer over TCP may hold thousands, and each costs the event loop a look at the routes."""
    last = [*["127.0.0.1"] * (ORDERED - 1), "::1"]
    assert ordered(last)[0] == "::1"
    beyond = [*["127.0.0.1"] * ORDERED, "::1"]
    assert ordered(beyond) == beyond
