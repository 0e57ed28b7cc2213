"""The address of a Redis server: what it may be, and that a password in it is refused unseen."""

import re

import pytest

from tailchat_gate.config.values.redis_url import RedisAddress, redis_address, redis_url


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("redis://redis", RedisAddress("redis", 6379, "", 0, "", tls=False, ca_file="")),
        ("redis://gate@10.0.0.5:7/3", RedisAddress("10.0.0.5", 7, "", 3, "gate", False, "")),
        ("rediss://[::1]/1", RedisAddress("::1", 6379, "", 1, "", tls=True, ca_file="")),
        (
            "rediss://redis?ssl_ca_certs=/ca.pem",
            RedisAddress("redis", 6379, "", 0, "", tls=True, ca_file="/ca.pem"),
        ),
        ("unix:///run/r.sock?db=2", RedisAddress("", 0, "/run/r.sock", 2, "", False, "")),
        (
            "redis+sentinel://a,b:7,[::1]:8/main/3?sentinel_user=me",
            RedisAddress(
                *("", 0, "", 3, "", False, ""), (("a", 26379), ("b", 7), ("::1", 8)), "main", "me"
            ),
        ),
        (
            "rediss+sentinel://gate@a/main?ssl_ca_certs=/ca.pem",
            RedisAddress(*("", 0, "", 0, "gate", True, "/ca.pem"), (("a", 26379),), "main"),
        ),
        (
            "redis+cluster://gate@a:6379,b",
            RedisAddress(*("", 0, "", 0, "gate", False, ""), (("a", 6379), ("b", 6379))),
        ),
    ],
)
def test_an_address_is_read(text: str, address: RedisAddress) -> None:
    """Host, port, database, user, TLS and its authorities come from the address."""
    assert redis_address(text) == address
    assert redis_url(text) == text


@pytest.mark.parametrize(
    "text",
    [
        "redis",
        "http://redis",
        "redis://",
        "redis://redis:x",
        "redis://redis:70000",
        "redis://redis/x",
        "redis://redis/99999999",
        "redis://redis/0#x",
        "redis://redis?ssl_ca_certs=/ca.pem",
        "rediss://redis?ssl_cert_reqs=none",
        "rediss://redis?ssl_ca_certs=/a&ssl_ca_certs=/b",
        "redis://redis?retry_on_timeout=true",
        "unix://host/run/r.sock",
        "unix:///run/r.sock?db=x",
        "redis://re dis",
        "redis://redis\n",
    ],
)
def test_another_text_is_refused(text: str) -> None:
    """An option that would weaken TLS or the limits of time is refused as a wrong form is."""
    with pytest.raises(ValueError, match="redis://HOST:PORT/DB"):
        redis_address(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("redis-sentinel://a", "SERVICE"),
        ("sentinel://u:hush@a", "SERVICE"),
        ("redis+sentinel://a", "SERVICE"),
        ("redis+sentinel://a/", "SERVICE"),
        ("redis+sentinel://a/main/x", "SERVICE"),
        ("redis+sentinel://a/ma in", "redis://HOST"),
        ("redis+sentinel://a,/main", "SERVICE"),
        ("redis+sentinel://a,a/main", "SERVICE"),
        ("redis+sentinel://a:70000/main", "SERVICE"),
        ("redis+sentinel://a?x/main", "SERVICE"),
        ("redis+sentinel://a/main?ssl_ca_certs=/ca.pem", "SERVICE"),
        ("rediss+sentinel://a/main?ssl_cert_reqs=none", "SERVICE"),
        ("redis+sentinel://a/main#x", "SERVICE"),
        (f"redis+sentinel://{','.join('abcdefghijklmnopq')}/main", "SERVICE"),
        ("redis-cluster://a", "redis+cluster://HOST"),
        ("redis+cluster://a/0", "redis+cluster://HOST"),
        ("redis+cluster://a?sentinel_user=me", "redis+cluster://HOST"),
        ("redis+cluster://", "redis+cluster://HOST"),
        ("redis://a:6379,b:6379", "redis+cluster://HOST"),
        ("rediss://u:hush@a,b/0", "redis+cluster://HOST"),
    ],
)
def test_another_form_of_several_servers_is_refused(text: str, expected: str) -> None:
    """The message says how they are written, and repeats nothing."""
    with pytest.raises(ValueError, match=re.escape(expected)) as refused:
        redis_address(text)

    assert "hush" not in str(refused.value)


@pytest.mark.parametrize(
    "text",
    [
        "redis://:hush@redis",
        "rediss://u:hush@redis",
        "unix://u:hush@/s",
        "redis+sentinel://:hush@a:26379/main/0",
        "rediss+cluster://u:hush@a:6379",
    ],
)
def test_a_password_in_it_is_refused_unseen(text: str) -> None:
    """The message names the keys for a password, and repeats nothing."""
    with pytest.raises(ValueError, match=r"state\.password_file") as refused:
        redis_address(text)

    assert "hush" not in str(refused.value)
