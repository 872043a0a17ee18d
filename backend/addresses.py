"""Where a webhook may lead. A tenant names the address, so without a check they could reach into our own network.

Invariant: the address that is connected to is one that was checked. A name is resolved once, all of its addresses must
be public, and the connection goes to one of those: a name that resolves differently a moment later changes nothing.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from dataclasses import dataclass
from urllib.parse import urlsplit

import httpx

from backend.errors import InvalidRequest


class Forbidden(InvalidRequest):
    """The address is not one that webhooks may go to."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Destination:
    """Where to connect, and who is meant."""

    url: httpx.URL
    host: str
    name: str
    """For TLS: the certificate must be for it."""


def check_address(url: str, *, private: bool) -> None:
    """What can be told without a look at DNS. Raises `Forbidden`."""
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
        httpx.URL(url)
    except (ValueError, httpx.InvalidURL) as error:
        raise Forbidden("The webhook's URL cannot be read: write https://host/path.") from error
    if not host or parts.username or parts.password:
        raise Forbidden("The webhook's URL must name a host, and no user or password.")
    if private:
        return
    if parts.scheme != "https":
        raise Forbidden("Webhooks go over https.")
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return
    _refuse_private(host, str(address))


async def resolve(url: str, *, private: bool) -> Destination:
    """The checked address to connect to. Raises `Forbidden`, and `OSError` if the name cannot be resolved."""
    check_address(url, private=private)
    target = httpx.URL(url)
    port = target.port or (443 if target.scheme == "https" else 80)
    found = await asyncio.get_running_loop().getaddrinfo(target.host, port, type=socket.SOCK_STREAM)
    addresses = [str(entry[4][0]) for entry in found]
    if not private:
        for address in addresses:
            _refuse_private(target.host, address)
    host = target.netloc.decode()
    return Destination(url=target.copy_with(host=addresses[0]), host=host, name=target.host)


def _refuse_private(host: str, address: str) -> None:
    found = ipaddress.ip_address(address.partition("%")[0])
    mapped = getattr(found, "ipv4_mapped", None)
    if not (mapped or found).is_global or found.is_multicast:
        raise Forbidden(f"Webhooks go to public addresses, and {host} is none.")
