"""The bridges of a configuration, made once at the start: see start.py."""

from binascii import hexlify
from os import urandom

from ..errors import AMQPError, ConfigError, ResourceLimitExceeded
from ..log import log
from ..net.caller import Caller
from .client091 import Client
from .home import identity
from .upstream import Upstream


def make_bridges(broker, reactor, settings, profile):
    """A list of (Upstream, Caller), which connect when the reactor turns. Raises ConfigError."""
    boots = _boots(broker.store)
    device = settings["device"]
    bridges = []
    for k, row in enumerate(settings["bridges"]):
        tls = None
        if row["tls"] is not None:
            from ..net.tls import Tls  # late: who has none does not pay for it

            tls = Tls(row["tls"], path="bridges[%d].tls" % k)
            if tls.warning:
                log.warning("bridge %s: %s", row["name"], tls.warning)
        try:
            upstream = Upstream(broker, row, device, boots)
            client = Client(broker, upstream, profile, row, device)
        except AMQPError as error:
            raise ConfigError("bridges[%d]: %s" % (k, error.text))
        upstream.look = reactor.look
        bridges.append((upstream, Caller(reactor, client, tls, upstream.timeout_ms)))
    return bridges


def _boots(store):
    """What tells ids of this device's messages from those of other boots, see uplink.py."""
    this = hexlify(urandom(4))
    kept = this
    if store.keeps:
        try:
            kept = b"%08x" % identity(store)
        except ResourceLimitExceeded as error:
            log.error("ids of messages change with each start: %s", error.text)
    return kept, this
