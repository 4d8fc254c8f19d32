"""pika: who is let in, and how readable the refusal is.

Each refused login is followed by a good one: it shows that the refusal costs nobody else
anything, and it ends the growing delay after failed logins.
"""

import pytest

from interop_support import client_library

pika = client_library("pika")
errors = pika.exceptions


def test_a_wrong_password_is_told_as_403(connect):
    with pytest.raises(errors.ProbableAuthenticationError) as caught:
        connect(password="not the password")
    assert "403" in str(caught.value)
    assert "ACCESS_REFUSED" in str(caught.value)
    assert connect().is_open


def test_an_unknown_user_hears_the_same_as_a_wrong_password(connect):
    with pytest.raises(errors.ProbableAuthenticationError) as caught:
        connect(user="nobody")
    assert "403" in str(caught.value)
    assert connect().is_open


def test_an_unknown_vhost_is_told_as_530(connect):
    with pytest.raises(errors.ProbableAccessDeniedError) as caught:
        connect(virtual_host="there-is-no-such-vhost")
    assert "530" in str(caught.value)
    assert connect().is_open
