"""Servers that are reached and give answers nobody can use."""

from __future__ import annotations

from agent.diagnosis import Cause
from tests.lab.http_servers import redirect, response
from tests.lab.scenarios.base import MEDIUM, Expected, Scenario
from tests.lab.world import Change, World, target

TARGETS = ("cluster-dns", "kubernetes-api", "database", "broker", "web", "api", "shop")
HTML = {"Content-Type": "text/html; charset=utf-8"}
PORTAL = "http://portal.guest.test/start"
PORTAL_PAGE = response(body=b"<html><title>Welcome to our guest network</title></html>", headers=HTML)
TEXT = {"body_matches": "^hello"}
SITES = (target("website", expect=TEXT), target("shop", name="store", url="http://shop.example.net/", expect=TEXT))
"""Unrelated names of the internet, in plain text."""
NGINX_502 = b"<html><head><title>502 Bad Gateway</title></head><body><center>nginx</center></body></html>"


def in_plain_text(world: World) -> None:
    """One more site of the internet speaks plain HTTP."""
    world.site("shop", tls=False, port=80)
    world.records({"portal.guest.test": ["203.0.113.99"]})
    world.serve("internet", "203.0.113.99", 80, _portal)


async def _portal(reader: object, writer: object) -> None:
    await reader.readuntil(b"\r\n\r\n")  # type: ignore[attr-defined]
    writer.write(PORTAL_PAGE)  # type: ignore[attr-defined]
    await writer.drain()  # type: ignore[attr-defined]


def sent_to_portal(world: World) -> None:
    for name in ("website", "shop"):
        world.site(name, reply=redirect(PORTAL))


def shown_portal(world: World) -> None:
    for name in ("website", "shop"):
        world.site(name, reply=PORTAL_PAGE)


def login_wall(world: World) -> Change:
    page = response(body=b"<html><title>Sign in - Example SSO</title></html>", headers=HTML)
    return world.site(
        "api", reply=lambda received: page if received.target.startswith("/sso") else redirect("/sso/login?next=/")
    )


def broker_password(world: World) -> Change:
    redis = ("redis-cli", "-h", "10.244.2.40")
    world.execute("cluster", *redis, "config", "set", "requirepass", "secret")
    return world.undo(
        lambda: world.execute(
            "cluster", *redis, "-a", "secret", "--no-auth-warning", "config", "set", "requirepass", ""
        )
    )


SCENARIOS = (
    Scenario(
        name="http-500",
        title="An API answers 500",
        targets=TARGETS,
        break_=lambda world: world.site("api", reply=response("500 Internal Server Error", b"oops")),
        expected=(Expected(Cause.SERVER_ERROR, ("api",), says=("HTTP 500",)),),
        recovers=True,
    ),
    Scenario(
        name="http-502",
        title="A gateway in front of an application answers 502",
        targets=TARGETS,
        break_=lambda world: world.site(
            "web", reply=response("502 Bad Gateway", NGINX_502, {"Server": "nginx/1.25.3", **HTML})
        ),
        expected=(Expected(Cause.SERVER_ERROR, ("web",), says=("A gateway in front of", "nginx/1.25.3")),),
        recovers=True,
    ),
    Scenario(
        name="http-broken-off",
        title="An application breaks its answers off",
        targets=TARGETS,
        break_=lambda world: world.site("web", reply=response(body=b"hel", headers={"Content-Length": "5"})),
        expected=(Expected(Cause.SERVER_ERROR, ("web",), says=("breaks its answers off",)),),
        recovers=True,
    ),
    Scenario(
        name="http-401",
        title="An API does not accept the token any more",
        targets=TARGETS,
        break_=lambda world: world.site(
            "api", reply=response("401 Unauthorized", b"{}", {"WWW-Authenticate": 'Bearer error="invalid_token"'})
        ),
        expected=(Expected(Cause.CREDENTIALS_REJECTED, ("api",), says=("HTTP 401",)),),
        recovers=True,
    ),
    Scenario(
        name="broker-password",
        title="The broker begins to want a password",
        targets=TARGETS,
        break_=broker_password,
        expected=(Expected(Cause.CREDENTIALS_REJECTED, ("broker",), says=("redis-cli",)),),
        recovers=True,
    ),
    Scenario(
        name="http-403",
        title="An API's firewall forbids the pod's address",
        targets=TARGETS,
        break_=lambda world: world.site("shop", reply=response("403 Forbidden", b"your address is not allowed")),
        expected=(Expected(Cause.ACCESS_DENIED, ("shop",), says=("HTTP 403",)),),
        recovers=True,
    ),
    Scenario(
        name="mesh-policy-denies",
        title="A mesh's policy at the server forbids the pod",
        targets=TARGETS,
        break_=lambda world: world.site(
            "web", reply=response("403 Forbidden", b"RBAC: access denied", {"server": "istio-envoy"})
        ),
        expected=(Expected(Cause.ACCESS_DENIED, ("web",), says=("AuthorizationPolicy",)),),
        recovers=True,
    ),
    Scenario(
        name="captive-portal",
        title="A captive portal sends plain HTTP of unrelated names to its own page",
        targets=("cluster-dns", "kubernetes-api", "api", *SITES),
        prepare=in_plain_text,
        break_=sent_to_portal,
        expected=(Expected(Cause.WRONG_CONTENT, ("website", "store"), says=("portal.guest.test",)),),
        recovers=True,
    ),
    Scenario(
        name="captive-portal-in-place",
        title="A captive portal answers in the place of unrelated names",
        targets=("cluster-dns", "kubernetes-api", "api", *SITES),
        prepare=in_plain_text,
        break_=shown_portal,
        expected=(Expected(Cause.WRONG_CONTENT, ("website", "store"), MEDIUM, says=("guest network",)),),
    ),
    Scenario(
        name="login-page",
        title="An API is put behind single sign-on: a login page comes in place of JSON",
        targets=TARGETS,
        break_=login_wall,
        expected=(Expected(Cause.WRONG_CONTENT, ("api",), says=("login page", "/sso/login")),),
        recovers=True,
    ),
    Scenario(
        name="another-application",
        title="Another application answers at the API's name",
        targets=TARGETS,
        break_=lambda world: world.site("api", reply=response("404 Not Found", b"no such page")),
        expected=(Expected(Cause.WRONG_CONTENT, ("api",), says=("HTTP 404",)),),
        recovers=True,
    ),
)
