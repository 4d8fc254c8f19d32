"""`amqp-lite run`: the broker, on this Python or on MicroPython."""

import errno
import signal
import sys

from .errors import CommandError
from .files import read_config

_HINT = """
Publish to it with pika (pip install pika):

    import pika
    connection = pika.BlockingConnection(pika.URLParameters("{scheme}://{login}@{host}:{port}/"))
    channel = connection.channel()
    channel.queue_declare("telemetry")
    channel.basic_publish("", "telemetry", b"21.5")
    connection.close()

Ctrl-C ends it.
"""


_STORE = "amqp-lite.ring"
_STORE_OCTETS = 64 << 20
_BOARD_STORE = "amqp-lite-board.ring"  # its sectors are a board's
_BOARD_OCTETS = 256 << 10


def do_run(args):
    # Both signals end it as KeyboardInterrupt, also when a shell started us with SIGINT ignored.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    # Whoever waits for "listening on" may read it through a pipe.
    sys.stdout.reconfigure(line_buffering=True)
    changes = {"profile": args.profile, "log_level": args.log_level}
    changes = {key: value for key, value in changes.items() if value is not None}
    try:
        settings, profile = read_config(args.config, **changes)
        if args.host is not None or args.port is not None:
            settings["listeners"] = [_listener(settings["listeners"], args.host, args.port)]
        settings["store"] = _store(settings["store"], args)
        if args.micropython:
            from .micropython import serve
        else:
            serve = _serve
        serve(settings, profile)
    except KeyboardInterrupt:
        print("ended")


def _store(configured, args):
    """Where durable messages are kept: as asked for, else as configured, else a file here."""
    if args.no_store:
        return None
    if configured is not None and args.store is None:
        return configured
    if configured is not None and configured["kind"] == "file":
        return dict(configured, path=args.store)
    if args.micropython:
        path = args.store or _BOARD_STORE
        store = {"kind": "file", "path": path, "size": _BOARD_OCTETS}
        return dict(store, sector_size=4096, page_size=256)
    return {"kind": "file", "path": args.store or _STORE, "size": _STORE_OCTETS}


def _listener(listeners, host, port):
    """The first of *listeners*, at *host* and *port* where they are not None."""
    first = dict(listeners[0]) if listeners else {"host": "127.0.0.1", "port": 5672}
    if host is not None:
        first["host"] = host
    if port is not None:
        first["port"] = port
    return first


def _serve(settings, profile):
    from amqp_lite.node import Node

    try:
        node = Node(settings, profile)
    except (OSError, UnicodeError) as error:
        raise CommandError(why_not(settings["listeners"], error), 1) from None
    except MemoryError:
        raise CommandError("there is not enough memory for such limits", 1) from None
    try:
        if settings["listeners"]:
            print(hint(settings, node.reactor.listeners[0].port))
        node.run()
    finally:
        node.close()


def why_not(listeners, error):
    """In one line, why there is no listening."""
    where = " or ".join(f"{row['host']}:{row['port']}" for row in listeners)
    if getattr(error, "errno", None) == errno.EADDRINUSE:
        return f"{where} is in use, another --port may be free"
    return f"cannot listen on {where}: {getattr(error, 'strerror', None) or error}"


def hint(settings, port):
    """How to publish to the first listener, which is at *port*."""
    first = settings["listeners"][0]
    host = first["host"]
    return _HINT.format(
        scheme="amqps" if "tls" in first else "amqp",
        login="guest:guest" if "guest" in settings["users"] else "USER:PASSWORD",
        host="127.0.0.1" if host == "0.0.0.0" else host,
        port=port,
    )
