"""Which network addresses are public, and which hosts are on a list."""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import IPv6Address, ip_address, ip_network

# Addresses that carry another one inside, or that Python counts as global although no host of the public lives there.
_DOORS = tuple(
    ip_network(each)
    for each in (
        "192.0.0.0/24",  # protocols of the IETF
        "192.88.99.0/24",  # relays of 6to4
        "::/96",  # IPv4 in IPv6, the old way
        "::ffff:0:0/96",  # IPv4 in IPv6
        "::ffff:0:0:0/96",  # IPv4, translated
        "64:ff9b::/96",  # NAT64
        "64:ff9b:1::/48",  # NAT64, local
        "2001::/23",  # Teredo, ORCHID and other protocols
        "2002::/16",  # 6to4
        "fec0::/10",  # sites
        "5f00::/16",  # segment routing
    )
)


def is_public(address: str) -> bool:
    """Whether ``address`` (as ``getaddrinfo`` writes it) is that of one host of the public internet."""
    try:
        parsed = ip_address(address)
    except ValueError:
        return False
    if isinstance(parsed, IPv6Address) and parsed.scope_id:
        return False
    if not parsed.is_global or parsed.is_multicast or parsed.is_reserved or parsed.is_unspecified:
        return False
    return not any(parsed in door for door in _DOORS if door.version == parsed.version)


def is_listed(host: str, port: int, allowed: Sequence[str]) -> bool:
    """Whether a list as in :class:`~unireel.serving.intake.limits.Limits` has ``host`` (lower case) at ``port``."""
    for entry in allowed:
        name, separator, entry_port = entry.rpartition(":")
        if not separator or entry.endswith("]"):
            name, entry_port = entry, "443"
        if str(port) != entry_port:
            continue
        if name in ("*", host) or (name.startswith("*.") and host.endswith(name[1:])):
            return True
    return False
