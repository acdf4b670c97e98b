"""Builds this node, and its check for staleness, from the settings."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from datetime import timedelta
from importlib.metadata import version

from responder.config import Settings
from responder.names import Name
from responder.nodes.membership import RENEW_INTERVAL, Membership, Myself
from responder.nodes.nodes import Nodes
from responder.nodes.staleness import Staleness, asking
from responder.store import Store
from responder.store.schema import REVISION

LONE_LEASE, LONE_RENEWAL = 90, 30.0
"""Seconds, for the only node of an SQLite database. No node waits for it, but `responder node list` shows it."""


def build_nodes(settings: Settings, store: Store, instance: str) -> Nodes:
    """Return the nodes on the database of *store*. *instance* is the id of the service until it is stopped."""
    is_alone = settings.database.path is not None
    myself = Myself(
        name=settings.node.name,
        instance=instance,
        address=settings.node.address or settings.dns.listen[0].host,
        version=version("acme-responder"),
        schema_min=REVISION,
        schema_max=REVISION,
        statics=settings.digests,
        lease=timedelta(seconds=LONE_LEASE if is_alone else settings.node.lease),
    )
    interval = LONE_RENEWAL if is_alone else RENEW_INTERVAL
    return Nodes(Membership(store, myself, interval=interval, is_alone=is_alone), settings.propagation.deadline)


def build_staleness(
    settings: Settings,
    membership: Membership,
    *,
    published: Callable[[], Mapping[Name, int]],
    catch_up: Callable[[], Awaitable[None]],
    vouch: Callable[[float], object],
) -> Staleness:
    """
    Return the comparison of this node with the other nameservers of its zones; see `Staleness` for the functions.

    The other nameservers are asked at the port on which this node has its own address in the zones.
    """
    ours = {endpoint.host: endpoint.port for endpoint in settings.dns.listen}
    servers = {
        zone.name: [str(address) for addresses in zone.nameservers.values() for address in addresses]
        for zone in settings.zones
    }
    named = [address for addresses in servers.values() for address in addresses if address in ours]
    return Staleness(
        membership=membership,
        published=published,
        catch_up=catch_up,
        servers={apex: [each for each in addresses if each not in ours] for apex, addresses in servers.items()},
        ask=asking(ours[named[0]] if named else settings.dns.listen[0].port),
        vouch=vouch,
    )


def listen_url(settings: Settings) -> str | None:
    """Return where to listen for hints, as `Store.hints` takes it."""
    return {"": None, "off": ""}.get(settings.database.listen_url, settings.database.listen_url)
