"""A board's configuration, from its files to what Node takes."""

import json

from . import __path__ as folder


def read(paths):
    """What the first of the JSON files *paths* says that is there and whole; None without any.

    A power cut while one is written may leave it torn.
    """
    for path in paths:
        try:
            with open(path) as file:
                return json.load(file)
        except (OSError, ValueError) as error:
            print("%s: %s" % (path, error))


def complete(settings, board):
    """*settings* and their profile for Node, with the store *board* has. Raises ConfigError."""
    from amqp_lite import __version__

    profile = None
    if settings.pop("checked", None) == __version__:
        settings["checked"] = __version__
    else:
        # Here that takes memory which is never given back: `amqp-lite deploy` does it before.
        from amqp_lite.config import load

        name = settings.get("profile")
        if isinstance(name, str):
            profile = read(["%s/%s/profile.json" % (folder, name)])
        settings = load(settings)
    store = settings["store"]
    if store and store["kind"] == "board":
        settings["store"] = own = board.flash(store["size"])
        if own["kind"] == "segments" and "commit_ms" in store:
            own["commit_ms"] = store["commit_ms"]
    return settings, profile
