"""The configuration: what it becomes when it is right, and the line that says what is wrong."""

import json

from amqp_lite.access import Access
from amqp_lite.config import check_room, load
from amqp_lite.errors import ConfigError
from amqp_lite.limits import complete
from amqp_lite.store.open import open_device

HASH = "kI3GCqW5JLMJa4iX1lo7X4D6XbYqlLgxIs30+P6tENUV2POR"


def error(settings):
    """The line that refuses *settings*."""
    try:
        load(settings)
    except ConfigError as refused:
        line = str(refused)
        assert "\n" not in line and len(line) < 200, line
        return line
    raise AssertionError("not refused: %s" % (settings,))


def queue(**fields):
    return {"queues": [{"name": "first"}, dict({"name": "second"}, **fields)]}


def queue_arguments(**arguments):
    return queue(arguments={"x-" + key.replace("_", "-"): arguments[key] for key in arguments})


def exchange(**fields):
    return {"exchanges": [dict({"name": "telemetry", "type": "topic"}, **fields)]}


def binding(**fields):
    row = dict({"source": "amq.headers", "destination": "all"}, **fields)
    return {"queues": [{"name": "all"}], "bindings": [row]}


def user(**fields):
    return {"users": {"ann": dict({"password_hash": HASH}, **fields)}}


# --- what it becomes ---


def test_nothing_is_the_default_configuration():
    settings = load()
    assert settings == load({}) == load("{}") == load(b" {}\n")
    assert settings["device"] == "amqp-lite" and settings["vhost"] == "/"
    assert settings["profile"] == "linux" and settings["limits"] == {}
    assert settings["log_level"] == "info"
    assert settings["listeners"] == [{"host": "127.0.0.1", "port": 5672}]
    assert settings["exchanges"] == settings["queues"] == settings["bindings"] == []


def test_by_default_guest_logs_in_as_guest():
    access = Access(load()["users"])
    found = access.login(b"guest", b"guest", "127.0.0.1")
    assert found.may("configure", b"a") and found.may("write", b"a") and found.may("read", b"a")
    assert access.login(b"guest", b"guess", "127.0.0.1") is None


def test_every_row_is_completed():
    given = queue(durable=False)
    given.update(exchange())
    given["bindings"] = [{"source": "telemetry", "destination": "first"}]
    given["listeners"] = [{"port": 0}, {"host": "0.0.0.0"}]
    settings = load(given)
    assert settings["exchanges"] == [
        {
            "name": "telemetry", "type": "topic", "durable": True, "auto_delete": False,
            "internal": False, "arguments": {},
        }
    ]  # fmt: skip
    assert settings["queues"] == [
        {"name": "first", "durable": True, "auto_delete": False, "arguments": {}},
        {"name": "second", "durable": False, "auto_delete": False, "arguments": {}},
    ]
    assert settings["bindings"] == [
        {
            "source": "telemetry", "destination": "first", "destination_type": "queue",
            "routing_key": "", "arguments": {},
        }
    ]  # fmt: skip
    assert settings["listeners"] == [
        {"host": "127.0.0.1", "port": 0},
        {"host": "0.0.0.0", "port": 5672},
    ]
    assert load(user())["users"] == {
        "ann": {"password_hash": HASH, "configure": [], "write": [], "read": []}
    }


def test_listeners_with_tls():
    files = {"certificate": "edge.pem", "key": "edge-key.pem"}
    settings = load({"listeners": [{}, {"tls": files}, {"port": 0, "tls": files}]})
    assert settings["listeners"] == [
        {"host": "127.0.0.1", "port": 5672},
        {"host": "127.0.0.1", "port": 5671, "tls": files},
        {"host": "127.0.0.1", "port": 0, "tls": files},
    ]
    check_room(settings, complete())
    files["client_ca"] = "ca.pem"
    assert load({"listeners": [{"tls": files}]})["listeners"][0]["tls"] == files


def test_the_same_as_text():
    settings = queue_arguments(message_ttl=60000, overflow="reject-publish")
    assert load(json.dumps(settings)) == load(settings)


def test_what_was_given_stays_as_it_was():
    given = queue()
    load(given)["queues"][0]["name"] = "changed"
    assert given == queue()
    load()["users"]["guest"]["read"].append("more")
    assert load()["users"]["guest"]["read"] == ["*"]


def test_a_complete_configuration_stays_the_same():
    for given in (None, queue(), exchange(), binding(), {"profile": {"queues": 4}}):
        settings = load(given)
        assert load(settings) == settings


def test_a_whole_profile_becomes_limits():
    settings = load({"profile": {"queues": 4, "bindings": 9}, "limits": {"queues": 5}})
    assert settings["profile"] is None
    assert settings["limits"] == {"queues": 5, "bindings": 9}


def test_arguments_the_broker_honours_are_kept():
    arguments = {
        "x-message-ttl": 0, "x-expires": 1, "x-max-length": 0, "x-max-length-bytes": 1 << 29,
        "x-overflow": "drop-head", "x-queue-type": "classic",
    }  # fmt: skip
    assert load(queue(arguments=arguments))["queues"][1]["arguments"] == arguments
    arguments = {"alternate-exchange": "amq.fanout"}
    assert load(exchange(arguments=arguments))["exchanges"][0]["arguments"] == arguments
    arguments = {"x-match": "any", "kind": "alarm", "level": 3, "new": True, "place": None}
    assert load(binding(arguments=arguments))["bindings"][0]["arguments"] == arguments


def test_what_a_board_does_besides_has_defaults():
    settings = load()
    assert settings["wifi"] is None and settings["watchdog"] == 30
    assert settings["clock"] == {"server": "pool.ntp.org", "interval": 3600}
    assert load({"clock": None})["clock"] is None
    assert load({"clock": {"server": "10.0.0.1"}})["clock"]["interval"] == 3600
    assert load({"watchdog": 0})["watchdog"] == 0
    assert load({"wifi": {"ssid": "home"}})["wifi"] == {
        "ssid": "home", "password": "", "country": "", "power_save": "performance",
        "hostname": "",
    }  # fmt: skip
    wifi = {
        "ssid": "x" * 32, "password": "12345678", "country": "DE", "power_save": "none",
        "hostname": "Edge-1",
    }  # fmt: skip
    assert load({"wifi": wifi})["wifi"] == wifi


def test_the_store_can_be_whatever_the_board_has():
    store = {"kind": "board", "size": 262144}
    assert load({"store": store})["store"] == store


# --- what is refused ---


def test_text_that_is_not_json():
    for text in ("", "{", "{'a': 1}", "[" * 3000, b"\xff"):
        assert error(text).startswith("not JSON: "), text
    assert error("[]") == "configuration: expected an object, got []"


def test_unknown_keys_are_named_with_the_nearest_known_one():
    assert error({"queue": []}) == 'configuration: unknown key "queue", did you mean "queues"?'
    assert error({"Listeners": []}).endswith('"Listeners", did you mean "listeners"?')
    assert error({"xyzzy": 1}) == 'configuration: unknown key "xyzzy"'
    assert error(queue(durabel=1)) == 'queues[1]: unknown key "durabel", did you mean "durable"?'
    assert error(queue_arguments(mesage_ttl=1)) == (
        'queues[1].arguments: unknown key "x-mesage-ttl", did you mean "x-message-ttl"?'
    )
    assert error(exchange(arguments={"alternate": 1})).startswith("exchanges[0].arguments: unkn")
    assert error({"limits": {"queus": 1}}) == 'limits: unknown key "queus", did you mean "queues"?'
    assert error({"profile": {"block-size": 1}}).endswith('did you mean "block_size"?')
    assert error({7: 1}) == "configuration: unknown key 7"


def test_missing_keys():
    assert error({"queues": [{}]}) == "queues[0].name: missing"
    assert error({"exchanges": [{"name": "a"}]}) == "exchanges[0].type: missing"
    assert error({"bindings": [{"source": "amq.topic"}]}) == "bindings[0].destination: missing"
    assert error({"users": {"ann": {}}}) == "users.ann.password_hash: missing"


def test_wrong_types():
    assert error(queue(durable="yes")) == 'queues[1].durable: expected true or false, got "yes"'
    assert error(queue(auto_delete=1)) == "queues[1].auto_delete: expected true or false, got 1"
    assert error({"queues": {}}) == "queues: expected a list, got {}"
    assert error({"queues": ["a"]}) == 'queues[0]: expected an object, got "a"'
    assert error({"users": []}) == "users: expected an object, got []"
    assert error({"device": 5}) == "device: expected a string, got 5"
    assert error({"device": None}) == "device: expected a string, got null"
    assert error({"limits": 5}) == "limits: expected an object, got 5"
    assert error({"profile": 5}) == "profile: expected a string, got 5"
    assert error(user(read="*")) == 'users.ann.read: expected a list, got "*"'
    assert error(user(read=[1])) == "users.ann.read[0]: expected a string, got 1"
    for port in ("5672", True, 5672.0, None):
        assert error({"listeners": [{"port": port}]}).startswith("listeners[0].port: expected a")
    long = error({"device": ["x" * 500]})
    assert long.startswith("device: expected a string, got [") and long.endswith("...")


def test_impossible_values():
    assert error({"listeners": [{"port": 65536}]}) == (
        "listeners[0].port: 65536 is not in 0 to 65535"
    )
    assert error({"limits": {"queues": 0}}) == "limits.queues: 0 is not in 1 to 1073741823"
    assert error({"profile": {"frame_max": 100}}).startswith("profile.frame_max: 100 is not in")
    assert error({"log_level": "loud"}) == (
        'log_level: expected debug or info or warning or error, got "loud"'
    )
    assert error(exchange(type="x-random")) == (
        'exchanges[0].type: expected direct or fanout or topic or headers, got "x-random"'
    )
    assert error(queue_arguments(expires=0)).startswith("queues[1].arguments.x-expires: 0 is not")
    assert error(queue_arguments(message_ttl=1 << 40)).startswith("queues[1].arguments.x-message")
    assert error(queue_arguments(max_length=-1)).startswith("queues[1].arguments.x-max-length: -1")
    assert error(queue_arguments(overflow="reject-publish-dlx")).startswith(
        "queues[1].arguments.x-overflow: expected drop-head or reject-publish, got"
    )
    assert error(queue_arguments(queue_type="quorum")) == (
        'queues[1].arguments.x-queue-type: expected classic, got "quorum"'
    )
    assert error(binding(destination_type="topic")).startswith("bindings[0].destination_type: exp")
    assert error(binding(arguments={"x-match": "some"})).startswith(
        "bindings[0].arguments.x-match: expected all or any or all-with-x or any-with-x,"
    )
    assert error(binding(arguments={"list": [1]})).startswith("bindings[0].arguments.list: expect")


def test_names():
    assert error(queue(name="")) == "queues[1].name: expected a name, got an empty string"
    assert error(queue(name="n" * 256)) == "queues[1].name: 256 octets, at most 255 are allowed"
    assert error(queue(name="\u00e9" * 128)) == (
        "queues[1].name: 256 octets, at most 255 are allowed"
    )
    load(queue(name="\u00e9" * 127))
    assert error(queue(name="a\nb")) == r'queues[1].name: "a\nb" holds NUL, CR or LF'
    assert error(queue(name="amq.mine")) == (
        'queues[1].name: "amq.mine" begins with "amq.", which is reserved'
    )
    assert error(exchange(name="amq.topic")).startswith('exchanges[0].name: "amq.topic" begins')
    assert error(queue(name="first")) == 'queues[1].name: "first" is there twice'
    assert error({"users": {"": {}}}).startswith("users: expected a name")
    assert error({"users": {"a\nb": {}}}).startswith(r'users: "a\nb" holds')


def test_tls_of_listeners():
    def tls_error(**fields):
        return error({"listeners": [{}, {"tls": fields}]})

    assert tls_error() == "listeners[1].tls.certificate: missing"
    assert tls_error(certificate="a") == "listeners[1].tls.key: missing"
    assert tls_error(certificate="a", key=5) == "listeners[1].tls.key: expected a string, got 5"
    assert tls_error(certificate="a", key="b", ca="c") == 'listeners[1].tls: unknown key "ca"'
    assert error({"listeners": [{"tls": True}]}) == (
        "listeners[0].tls: expected an object, got true"
    )
    assert error({"listeners": [{"tls": None}]}).startswith("listeners[0].tls: expected an obj")


def test_tls_of_listeners_is_not_for_boards():
    settings = load({"listeners": [{}, {"tls": {"certificate": "a", "key": "b"}}]})
    line = "listeners[1].tls: a board has no memory for it"
    try:
        check_room(settings, complete({"heap": 60000000}))
    except ConfigError as refused:
        assert str(refused) == line
    else:
        raise AssertionError("not refused")


def test_shared_access_keys_are_of_users():
    assert load()["shared_access_keys"] == {}
    keys = {"root": {"key": "c2VjcmV0", "user": "guest"}}
    settings = load({"shared_access_keys": keys})
    assert settings["shared_access_keys"] == keys
    for row, said in (
        ({"key": "k", "user": "x"}, 'shared_access_keys.root.user: no user "x"'),
        (
            {"key": "", "user": "guest"},
            "shared_access_keys.root.key: expected a name, got an empty string",
        ),
        ({"key": "k"}, "shared_access_keys.root.user: missing"),
    ):  # fmt: skip
        assert error({"shared_access_keys": {"root": row}}) == said
    check_room(settings, complete())
    try:
        check_room(settings, complete(None, {"heap": 1000000}))
        assert False
    except ConfigError as found:
        assert str(found).startswith("shared_access_keys: a board has no memory")


def test_anonymous_is_one_of_the_users_or_nobody():
    assert load()["anonymous"] is None
    assert load({"anonymous": "guest"})["anonymous"] == "guest"
    assert error({"anonymous": "sensor"}) == 'anonymous: no user "sensor"'
    assert error(dict(user(), anonymous="guest")) == 'anonymous: no user "guest"'
    assert error({"anonymous": True}) == "anonymous: expected a string, got true"


def test_a_user_may_be_without_a_password():
    assert load(user(password_hash=None))["users"]["ann"]["password_hash"] is None


def test_bindings_lead_to_what_is_there():
    assert error(binding(source="telemetry")) == 'bindings[0].source: no exchange "telemetry"'
    assert error(binding(destination="al")) == 'bindings[0].destination: no queue "al"'
    assert error(binding(destination_type="exchange")) == (
        'bindings[0].destination: no exchange "all"'
    )
    assert error(binding(source="")) == "bindings[0].source: expected a name, got an empty string"
    load(binding(source="amq.topic", destination="amq.fanout", destination_type="exchange"))


def test_passwords_and_patterns():
    for bad in ("guest", "", HASH[:-4], HASH + "AAAA"):
        assert error(user(password_hash=bad)).startswith(
            "users.ann.password_hash: expected what `config hash-password` prints, got"
        ), bad
    load(user(configure=["*", "sensors.*", "one", ""]))
    assert error(user(write=["a", "a*b"])) == (
        'users.ann.write[1]: only the last letter may be *, got "a*b"'
    )


def test_more_than_the_profile_has_room_for():
    profile = complete({"queues": 2, "exchanges": 7, "bindings": 1})
    check_room(load(queue()), profile)
    check_room(load(exchange()), profile)
    for key, many, settings in (
        ("queues", 3, {"queues": [{"name": str(k)} for k in range(3)]}),
        ("exchanges", 8, {"exchanges": [{"name": n, "type": "direct"} for n in ("a", "b")]}),
    ):
        try:
            check_room(load(settings), profile)
        except ConfigError as refused:
            assert str(refused) == "%s: %d, the profile has room for %d" % (
                key, many, profile[key],
            )  # fmt: skip
        else:
            raise AssertionError(key)


# --- bridges ---


def bridge(uplink=None, downlink=None, **fields):
    row = dict({"name": "cloud", "hosts": ["rabbit.example.com"]}, **fields)
    if uplink is not None:
        row["uplinks"] = [dict({"queue": "telemetry"}, **uplink)]
    if downlink is not None:
        row["downlinks"] = [dict({"queue": "commands.{device}"}, **downlink)]
    return {"bridges": [row]}


def test_a_bridge_is_completed():
    settings = load(bridge({}, {}, tls={}))
    row = settings["bridges"][0]
    assert load(settings) == settings
    assert (row["vhost"], row["user"]) == ("/", "guest")
    assert (row["heartbeat"], row["retry_max"]) == (30, 300)
    link = row["uplinks"][0]
    assert (link["exchange"], link["routing_key"]) == ("{exchange}", "{routing_key}")
    assert (link["window"], link["refused"], link["declare"]) == (64, "park", "passive")
    assert row["downlinks"][0]["prefetch"] == 16
    assert row["tls"]["dangerously_accept_any_certificate"] is False
    assert load(bridge())["bridges"][0]["tls"] is None


def test_what_a_bridge_cannot_be():
    for settings, line in (
        (bridge(hosts=[]), "bridges[0].hosts: expected at least one"),
        (bridge(hosts=["amqp://host"]), "bridges[0].hosts[0]: "),
        (bridge(hosts=["a b"]), 'bridges[0].hosts[0]: expected "host" or "host:port", got'),
        (bridge(hosts=["host:99999"]), "bridges[0].hosts[0]: "),
        (bridge(hosts=["host:x"]), "bridges[0].hosts[0]: "),
        (bridge(name="n" * 101), "bridges[0].name: more than 100 octets"),
        (bridge(tls={"cert": "a"}), "bridges[0].tls: cert and key belong together"),
        (bridge(tls={"verify": False}), 'bridges[0].tls: unknown key "verify"'),
        (bridge({"routing_key": "{queue}"}),
         "bridges[0].uplinks[0].routing_key: no {queue}, there are {device}, {exchange} and"),
        (bridge({"declare": "topic"}),
         "bridges[0].uplinks[0].declare: the exchange needs one name"),
        (bridge({"declare": "quorum", "routing_key": "q"}),
         'bridges[0].uplinks[0].declare: for a queue, exchange has to be ""'),
        (bridge({"refused": "dead-letter"}),
         "bridges[0].uplinks[0].dead_letter_routing_key: missing"),
        (bridge({"refused": "keep"}), "bridges[0].uplinks[0].refused: expected park or"),
        (bridge({"window": 0}), "bridges[0].uplinks[0].window: 0 is not in 1 to"),
        (bridge({"queue": "q" * 250}), "bridges[0].uplinks[0].queue: 257 octets"),
        (bridge({}, {"queue": "{routing_key}"}), "bridges[0].downlinks[0].queue: it needs one"),
        (bridge({}, {"bindings": [{"exchange": "{exchange}"}]}),
         "bridges[0].downlinks[0].bindings[0].exchange: it needs one name"),
        (bridge(hosts=["h:\u00b2"]), "bridges[0].hosts[0]: "),
        (bridge(hosts=["[::1]:99999"]), "bridges[0].hosts[0]: "),
        (bridge(hosts=["h:0"]), "bridges[0].hosts[0]: "),
        (bridge(hosts=[":5672"]), 'bridges[0].hosts[0]: expected "host" or "host:port", got'),
        (bridge(hosts=["a\tb"]), 'bridges[0].hosts[0]: expected "host" or "host:port", got'),
        (bridge({"headers": {"x-edge-hops": "1"}}),
         'bridges[0].uplinks[0].headers: "x-edge-..." is the bridge\'s own'),
        (bridge({"queue": "amq.upstream.cloud"}), "bridges[0].uplinks[0].queue: "),
        (bridge({"refused": "dead-letter", "dead_letter_routing_key": "telemetry"}),
         "bridges[0].uplinks[0].dead_letter_routing_key: the uplink's own queue"),
        (bridge({"refused": "dead-letter", "dead_letter_exchange": "amq.headers"}),
         "bridges[0].uplinks[0].dead_letter_exchange: not one of headers"),
        (bridge({}, {"queue": ""}), "bridges[0].downlinks[0].queue: expected a name"),
        ({"bridges": bridge()["bridges"] * 2}, 'bridges[1].name: "cloud" is there twice'),
        ({"device": "d" * 101}, "device: more than 100 octets"),
    ):  # fmt: skip
        assert error(settings).startswith(line), (error(settings), line)


def test_names_too_long_with_the_name_of_the_device():
    long = "{device}" * 3
    for settings, path in (
        (bridge({"exchange": long}), "bridges[0].uplinks[0].exchange: "),
        (bridge({"routing_key": long}), "bridges[0].uplinks[0].routing_key: "),
        (bridge({}, {"queue": long}), "bridges[0].downlinks[0].queue: "),
        (bridge({}, {"bindings": [{"exchange": long}]}), "bridges[0].downlinks[0].bindings[0]"),
    ):
        load(dict(settings, device="d" * 80))
        line = error(dict(settings, device="d" * 100))
        assert line.startswith(path) and line.endswith("300 octets, at most 255 are allowed"), line


def test_bridges_whose_answers_would_be_mixed_up():
    row = bridge()["bridges"][0]
    for names in (("a", "a.b"), ("a.b", "a")):
        settings = {"bridges": [dict(row, name=name) for name in names]}
        assert error(settings).startswith("bridges[1].name: "), names
    load({"bridges": [dict(row, name=name) for name in ("a", "ab", "b.a")]})


def test_a_bridge_needs_a_connection_and_queues():
    settings = load(bridge({}, {}))
    for numbers, line in (
        ({"connections": 1, "unauthenticated": 1}, "bridges: 1, and no client could connect"),
        ({"queues": 1}, "queues: 2, the profile has room for 1"),
    ):
        try:
            check_room(settings, complete(None, numbers))
        except ConfigError as refused:
            assert str(refused).startswith(line), refused
        else:
            raise AssertionError(line)
    numbers = complete(None, {"connections": 1, "unauthenticated": 1})
    check_room(load(dict(bridge({}, {}), listeners=[])), numbers)
    two = load(bridge({}, {}))
    two.update(listeners=[], bridges=two["bridges"] * 2)
    try:
        check_room(two, numbers)
    except ConfigError as refused:
        assert str(refused) == "bridges: 2, the profile has room for 1 connections"
    else:
        raise AssertionError("two bridges")


def test_a_bridge_that_does_not_fit_a_boards_heap():
    numbers = complete(None, {"heap": 60000000})
    check_room(load(bridge({}, {})), numbers)
    numbers["heap"] = 50000
    try:
        check_room(load(bridge({}, {}, tls={})), numbers)
    except ConfigError as refused:
        assert str(refused).startswith("profile.heap: 50000 octets, but "), refused
    else:
        raise AssertionError("not refused")


# --- boards ---


def wifi_error(**fields):
    return error({"wifi": dict({"ssid": "home"}, **fields)})


def test_wifi():
    assert error({"wifi": {}}) == "wifi.ssid: missing"
    assert error({"wifi": "home"}) == 'wifi: expected an object, got "home"'
    assert wifi_error(ssid="") == "wifi.ssid: expected a name, got an empty string"
    assert wifi_error(ssid="\u00e4" * 17) == "wifi.ssid: more than 32 octets"
    # The password is not repeated: the line may end in a log.
    for password in ("1234567", "x" * 64):
        assert wifi_error(password=password) == (
            "wifi.password: expected 8 to 63 octets, or none for an open network"
        )
    for country in ("de", "DEU", "D1", "D"):
        assert wifi_error(country=country).startswith("wifi.country: expected two letters")
    assert wifi_error(power_save="max") == (
        'wifi.power_save: expected none or performance or powersave, got "max"'
    )
    for hostname in ("edge 1", "x" * 33, "edge_1", "\u00e4"):
        assert wifi_error(hostname=hostname).startswith("wifi.hostname: expected at most 32 let")
    assert "pasword" in wifi_error(pasword="") and "password" in wifi_error(pasword="")


def test_clock_and_watchdog():
    assert error({"clock": True}).startswith("clock: expected an object")
    assert error({"clock": {"server": ""}}).startswith("clock.server: expected a name")
    assert error({"clock": {"interval": 5}}) == "clock.interval: 5 is not in 60 to 604800"
    assert error({"watchdog": 14}) == "watchdog: 14, expected 0 or at least 15 seconds"
    assert error({"watchdog": 3601}) == "watchdog: 3601 is not in 0 to 3600"
    assert error({"watchdog": None}).startswith("watchdog: expected a whole number")


def test_the_store_of_a_board():
    assert error({"store": {"kind": "board"}}) == "store.size: missing"
    assert error({"store": {"kind": "board", "size": 200000}}) == (
        "store.size: 200000 is not a multiple of 32768"
    )
    try:
        open_device({"kind": "board", "size": 262144}, "store")
    except ConfigError as refused:
        assert str(refused).startswith('store.kind: "board" means something to firmware/main.py')
    else:
        raise AssertionError("it was opened")
