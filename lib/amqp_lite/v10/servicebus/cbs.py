"""The node $cbs: tokens by which a peer gets in that logged in as nobody.

Claims-based security as Azure Service Bus has it. A token names a shared access key, a time and
the entity it is for, and is signed with the key (HMAC-SHA256, RFC 2104):

    SharedAccessSignature sr=<URI>&sig=<base64>&se=<seconds since 1970>&skn=<name of the key>

all percent-encoded; what is signed is the URI as it stands there, a line feed and the seconds. It
opens what the URI names and all below that. Signing needs no clock, judging does: on boards whose
time begins in 2000 all tokens have expired or none.

Imported with the first peer that may send one.
"""

from binascii import b2a_base64
from time import time

from ...broker.queue import text
from ...compat import const, sha256
from ...errors import AccessRefused, AMQPError, NotImplementedHere, ResourceLimitExceeded
from ...log import log
from ..address import decode
from ..node import answer_to
from ..values import Typed

_BLOCK = const(64)  # octets, of SHA-256
_MOST = const(256)  # tokens of one connection
_LONGEST_MS = const(3600000)  # until the next look whether tokens are still good
_SCHEME = "SharedAccessSignature "


def path_of(address):
    """The path of an entity in its *address*, which may have a scheme and a host."""
    _, found, behind = address.partition("://")
    if found:
        address = behind.partition("/")[2]
    return address.strip("/")


class Tokens:
    """What the peer of *connection* may do by the tokens that it has put."""

    def __init__(self, connection):
        self._connection = connection
        self._found = {}  # path -> (User, seconds since 1970 up to which)

    def __len__(self):
        return len(self._found)

    def put(self, token):
        """The User that a *token* makes of the peer.

        Raises AccessRefused when it is not good now, ResourceLimitExceeded.
        """
        user, path, expiry = _verify(self._connection.access, token)
        found = self._found
        now = time()
        for each in list(found):
            if found[each][1] <= now:
                del found[each]
        if len(found) >= _MOST and path not in found:
            raise ResourceLimitExceeded("more than %d tokens of one connection" % _MOST)
        found[path] = (user, expiry)
        log.info("%s may use '%s' as '%s'", self._connection.name, path, text(user.name))
        return user

    def demand(self, path):
        """The User by whose key the peer may use *path* now. Raises AccessRefused."""
        found = self._cover(path)
        if found is None:
            raise AccessRefused("no token for '%s'" % path)
        return found[0]

    def _cover(self, path):
        now = time()
        while True:
            if path in self._found and self._found[path][1] > now:
                return self._found[path]
            if not path:
                return None
            path = path[: max(0, path.rfind("/"))]

    def left_ms(self):
        """How long to wait for the next look; 0: no token is good."""
        now = time()
        left = [self._found[path][1] - now for path in self._found if self._found[path][1] > now]
        return min(_LONGEST_MS, 1000 * int(min(left) + 1)) if left else 0

    def expire(self):
        """End the links whose tokens have expired: left_ms()."""
        sessions = self._connection.sessions
        for channel in sessions:
            sessions[channel].expire(self)
        return self.left_ms()


def _verify(access, token):
    """(User, path, seconds since 1970 up to which) of a good *token*. Raises AccessRefused."""
    if not isinstance(token, str) or not token.startswith(_SCHEME):
        raise AccessRefused("no shared access signature")
    fields = {}
    for pair in token[len(_SCHEME) :].split("&"):
        name, _, value = pair.partition("=")
        fields[name] = value
    try:
        uri, sign, name = [_plain(fields.get(key, "")) for key in ("sr", "sig", "skn")]
    except AMQPError:
        raise AccessRefused("a shared access signature that cannot be read")
    expiry = fields.get("se", "")
    key, user = access.key(name)
    signed = (fields.get("sr", "") + "\n" + expiry).encode()
    good = b2a_base64(hmac_sha256(key, signed)).strip()
    difference = len(good) ^ len(sign)
    for k in range(min(len(good), len(sign))):
        difference |= good[k] ^ sign[k]
    if user is None or difference or not expiry.isdigit():
        raise AccessRefused("the signature of the token is wrong")
    if int(expiry) <= time():
        raise AccessRefused("the token has expired")
    return user, path_of(str(uri, "utf-8")), int(expiry)


def _plain(part):
    return decode(part.replace("+", " "), "of the token")


def hmac_sha256(key, octets):
    """The HMAC-SHA256 of *octets*. RFC 2104."""
    if len(key) > _BLOCK:
        key = sha256(key)
    key = key + bytes(_BLOCK - len(key))
    inner = sha256(bytes([octet ^ 0x36 for octet in key]) + octets)
    return sha256(bytes([octet ^ 0x5C for octet in key]) + inner)


class Cbs:
    """Answers requests of the node $cbs."""

    def __init__(self, link):
        self._connection = link.connection

    def answer(self, request):
        connection = self._connection
        status = 202
        said = "Accepted"
        try:
            if request.properties.get("operation") != "put-token":
                raise NotImplementedHere("only put-token")
            connection.admit(connection.tokens.put(request.body))
        except AMQPError as error:
            status = 501 if isinstance(error, NotImplementedHere) else 401
            said = error.text
            connection.broker.metrics.logins_refused += 1
            log.warning("%s: %s", connection.name, said)
        properties = {"status-code": Typed(0x71, status), "status-description": said}
        return answer_to(request, None, properties, None)
