"""Passwords: what we accept, and Argon2id hashes of them."""

from __future__ import annotations

import threading
import unicodedata

from argon2 import PasswordHasher
from argon2.exceptions import Argon2Error, InvalidHashError

from crony.errors import Invalid

SHORTEST, LONGEST = 10, 1024
"""Fewest characters, most bytes."""

_HASHER = PasswordHasher(time_cost=2, memory_cost=46 * 1024, parallelism=1)
_AT_ONCE = threading.Semaphore(2)  # 46 MiB each: a flood of sign-ins must not take the machine's memory
_DUMMY = "$argon2id$v=19$m=47104,t=2,p=1$c29tZXRoaW5nLXNhbHR5$G3rnVTnWKcHdUyRGUpYO4P9zwGBv0n6QyEFy6HRkf0E"

_COMMON = frozenset(
    """
    1234567890 0123456789 0987654321 1234554321 1212121212 1q2w3e4r5t 1q2w3e4r5t6y 1qaz2wsx3edc qwertyuiop
    qwerty12345 qwerty123456 qwertyuiop123 asdfghjkl1 asdfghjkl123 zxcvbnm123 password12 password123
    password1234 password12345 password123456 password1! password123! passw0rd123 p@ssw0rd123 p@ssword123
    p@ssw0rd1234 mypassword mypassword1 yourpassword newpassword newpassword1 letmein123 letmein1234 welcome123
    welcome1234 welcome2024 welcome2025 welcome2026 iloveyou123 iloveyou12 iloveyou1234 princess123 sunshine123
    football123 baseball123 basketball superman123 batman1234 dragon1234 monkey1234 michael123 charlie123
    jennifer12 liverpool1 chelsea123 arsenal123 starwars123 pokemon123 administrator adminadmin admin12345
    admin123456 admin1234567 administrator1 changeme123 changeme1234 changeit123 default123 default1234
    rootroot123 root123456 test123456 testtest123 temp123456 guest12345 user123456 useruser123 secret1234
    secret12345 trustno1234 abcdefghij abcdefghijk abcd123456 abc123456789 abcde12345 aa12345678 a123456789
    a1234567890 q123456789 qq123456789 woaini1314 woaini520 5201314520 5201314521 1314520520 11223344556
    112233445566 123123123123 123456123456 123456789a 123456789q 12345678910 123456789012 1234567890a 12345qwert
    123qwe123qwe 123abc123abc 1234qwerasdf qazwsxedc123 qazwsxedcrfv 147258369a 147258369147 159753159753
    789456123789 789456123a 987654321a 9876543210 9876543211 correcthorsebatterystaple thisismypassword
    iamthebest1 nothing123 whatever123 summer2024! summer2025! summer2026! winter2024! winter2025! winter2026!
    spring2026! autumn2026! company123 company1234 crony12345 crony123456 cronycrony scheduler123 celery12345
    mysql123456 mariadb123 database123 localhost1 localhost123
    """.split()  # noqa: SIM905
)


def check(password: str, name: str = "") -> str:
    """The password as it is hashed (NFKC). Raises `Invalid` saying what is wrong with it, never repeating it."""
    password = _normal(password)
    if len(password) < SHORTEST:
        raise Invalid(
            "password", f"must have at least {SHORTEST} characters", hint="a few unrelated words make a good one"
        )
    if len(password.encode()) > LONGEST:
        raise Invalid("password", f"must have at most {LONGEST} bytes")
    folded = password.casefold()
    if folded in _COMMON or len(set(folded)) <= 3 or folded in "01234567890123456789abcdefghijklmnopqrstuvwxyz":
        raise Invalid("password", "is one of those that are tried first", hint="a few unrelated words make a good one")
    if len(name) >= 4 and folded.replace(name.casefold(), "").strip("0123456789!.-_ ") == "":
        raise Invalid("password", "is the name itself with little added")
    return password


def hash_of(password: str) -> str:
    """The Argon2id hash of a checked password."""
    with _AT_ONCE:
        return _HASHER.hash(_normal(password))


def matches(stored: str | None, password: str) -> bool:
    """Whether the password fits; takes as long when there is no hash (or no user) to compare with."""
    text = _normal(password)
    if len(text.encode()) > LONGEST:
        text = ""
    try:
        with _AT_ONCE:
            return _HASHER.verify(stored or _DUMMY, text) and stored is not None
    except (Argon2Error, InvalidHashError):
        return False


def outdated(stored: str) -> bool:
    """Whether the hash was made with other parameters than today's."""
    return _HASHER.check_needs_rehash(stored)


def _normal(password: str) -> str:
    try:
        return unicodedata.normalize("NFKC", password).encode().decode()
    except UnicodeEncodeError:
        raise Invalid("password", "holds characters that are not text") from None
