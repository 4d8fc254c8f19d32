"""Who may log in, and what they may do.

A password is kept as RabbitMQ keeps it (`rabbit_password_hashing_sha256`), so that hashes can be
copied from one to the other: base64(salt + SHA-256(salt + password)), a salt of 4 octets.
Permissions are prefix patterns: "*" is everything, "sensors.*" every name that begins with
"sensors.", anything else one name.

SASL mechanisms, for both protocols: PLAIN; EXTERNAL, where a certificate was verified; ANONYMOUS,
where the configuration names the user that it stands for. AMQP 1.0 has ANONYMOUS also where there
are shared access keys: such a peer is nobody until it puts a token, see v10/cbs.py.
"""

from binascii import a2b_base64

from .compat import sha256, ticks_add, ticks_diff
from .errors import AccessRefused

CONFIGURE = "configure"
WRITE = "write"
READ = "read"

_SALT = 4
_SOURCES = 8  # addresses whose failed logins are remembered
_FIRST_DELAY_MS = 500
_LONGEST_DELAY_MS = 30000
_LOOPBACK = ("127.", "::ffff:127.")


def password_hash(password, salt):
    """The stored form, before base64, of *password* (octets)."""
    return salt + sha256(salt + password)


class User:
    def __init__(self, name, row):
        self.name = name
        kept = row["password_hash"]
        self.hash = a2b_base64(kept) if kept else None  # None: nobody's password is right
        self._patterns = {
            kind: [pattern.encode() for pattern in row[kind]] for kind in (CONFIGURE, WRITE, READ)
        }

    def may(self, kind, name):
        """Whether the user may *kind* the queue or exchange called *name*."""
        for pattern in self._patterns[kind]:
            if pattern == name or (pattern.endswith(b"*") and name.startswith(pattern[:-1])):
                return True
        return False

    def demand(self, kind, name, what):
        """Raises AccessRefused unless the user may *kind* the queue or exchange called *name*."""
        if not self.may(kind, name):
            raise AccessRefused(
                "%s access to %s '%s' in vhost '/' refused for user '%s'"
                % (kind, what, str(name, "utf-8"), str(self.name, "utf-8"))
            )


NOBODY = object()  # instead of a User: a peer that is one when it has put a token


class Access:
    """The users of one configuration, and the addresses that guessed wrong lately.

    anonymous  the name, of one of *users*, that peers without one become; None: they do not
    keys       shared access keys by their names: {"key": text, "user": name}
    """

    def __init__(self, users, anonymous=None, keys=None):
        self.keys = keys
        self._anonymous = anonymous and anonymous.encode()
        self._users = {name.encode(): User(name.encode(), users[name]) for name in users}
        self._nobody = password_hash(b"", b"none")
        self._failures = []  # [address, failures, ticks of the last], the oldest first

    def mechanisms(self, subject, tokens=False):
        """The SASL mechanisms to offer to a peer.

        subject  the common name in its certificate, which was verified; None: there is none
        tokens   it may put tokens later
        """
        found = ["PLAIN"]
        if subject is not None:
            found.append("EXTERNAL")
        if self._anonymous is not None or (tokens and self.keys):
            found.append("ANONYMOUS")
        return found

    def authenticate(self, mechanism, response, address, subject, tokens=False):
        """The User whom a peer's SASL *response* (octets) makes of it, or NOBODY, or None.

        subject, tokens  as mechanisms()
        """
        if mechanism == b"PLAIN":
            # Authorization identity NUL user NUL password, RFC 4616.
            parts = response.split(b"\0")
            return self.login(parts[1], parts[2], address) if len(parts) == 3 else None
        if mechanism == b"EXTERNAL" and subject is not None:
            # The authorization identity, RFC 4422 §A: none, or who it is anyway.
            return self._admit(subject, address) if response in (b"", subject) else None
        if mechanism == b"ANONYMOUS" and self._anonymous is not None:
            # Anything that might help in finding out who it was, RFC 4505.
            return self._admit(self._anonymous, address)
        if mechanism == b"ANONYMOUS" and tokens and self.keys:
            return NOBODY
        return None

    def key(self, name):
        """(octets, User) of the shared access key of this *name* (octets); (b"", None): none."""
        for each in self.keys:
            if each.encode() == name:
                row = self.keys[each]
                return row["key"].encode(), self._users[row["user"].encode()]
        return b"", None

    def login(self, name, password, address):
        """The User, or None. Takes the same time whether or not the name is known."""
        user = self._users.get(name)
        if user is not None and user.hash is None:
            user = None
        kept = self._nobody if user is None else user.hash
        given = password_hash(password, kept[:_SALT])
        same = len(given) == len(kept)
        difference = 0
        for k in range(len(given) if same else 0):
            difference |= given[k] ^ kept[k]
        if user is None or not same or difference:
            return None
        return self._admit(name, address)

    def _admit(self, name, address):
        """The User of this *name*, who need not prove it any more, or None."""
        user = self._users.get(name)
        if user is None or (name == b"guest" and not is_loopback(address)):
            return None
        self._forgive(address)
        return user

    def penalty(self, address, now):
        """Note a failed login from *address*: how many ms to wait before saying so."""
        failures = 0
        for row in self._failures:
            if row[0] == address:
                failures = row[1]
                # A long silence is forgiven.
                if ticks_diff(now, ticks_add(row[2], 10 * _LONGEST_DELAY_MS)) > 0:
                    failures = 0
        self._forgive(address)
        if len(self._failures) == _SOURCES:
            self._failures.pop(0)
        self._failures.append([address, failures + 1, now])
        return min(_FIRST_DELAY_MS << min(failures, 8), _LONGEST_DELAY_MS)

    def _forgive(self, address):
        self._failures = [row for row in self._failures if row[0] != address]


def is_loopback(address):
    for prefix in _LOOPBACK:
        if address.startswith(prefix):
            return True
    return address == "::1"
