"""TLS for the peers of a listener, on gateways only.

There is no handshake to wait for: it is a part of reading a peer's first octets, within the time
that everybody has until the login, and costs nobody but this peer.
"""

from ..compat import accept, tls_server
from ..log import log
from .tls import identify, trust


class ServerTls:
    """
    settings  the object "tls" of a listener
    path      of that object, for errors
    metrics   of the broker

    Reads the files. Raises ConfigError.
    """

    def __init__(self, settings, path, metrics):
        self._metrics = metrics
        self._server = tls_server()
        identify(
            self._server, settings["certificate"], settings["key"],
            path + ".certificate", path + ".key",
        )  # fmt: skip
        if "client_ca" in settings:
            trust(self._server, settings["client_ca"], path + ".client_ca")

    def accept(self, listening):
        """(TLS socket, address) of the next peer that waits at the socket *listening*, or None."""
        while True:
            accepted = accept(listening)
            if accepted is None:
                return None
            try:
                return self._server.wrap(accepted[0]), accepted[1]
            except OSError as error:
                log.debug("%s: %s", accepted[1], error)

    def subject(self, sock):
        """The common name in the certificate of the peer, which was verified; or None."""
        return self._server.subject(sock)

    def dropped(self, name, why):
        """The peer called *name* is gone; *why*: an error of its socket, or anything else."""
        words = self._server.explain(why)
        if words is not None:
            self._metrics.connections_refused += 1
            log.warning("%s refused: TLS: %s", name, words)
