"""Whether an etcd cluster can carry us: what is well, what is not, and the cure for a full one.

`examine` only reads. `cure` compacts, defragments and takes back the alarm of a full store.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from enum import StrEnum

from crony.errors import Conflict, CronyError
from crony.etcd.client import Client
from crony.etcd.errors import AuthFailed, BadRequest, Compacted, NoSpace
from crony.etcd.keys import Keys, prefix_end
from crony.etcd.txn import Txn, absent, exists
from crony.etcd.wire import Status

DEFAULT_QUOTA = 2 * 1024**3
"""etcd's own, where a member does not tell its quota (before 3.6)."""
ROOM = (0.60, 0.70)
"""Shares of the quota from which the store is getting full, and from which the leader holds fires."""
LOOSE = 0.5
"""Share of the quota from which a file that is mostly holes is worth defragmenting."""
LONG_HISTORY = 1_000_000
"""More revisions than this mean that nobody compacts: a centre keeps one to two minutes of them."""
SKEW = (1.0, 2.0)
"""Seconds between etcd's clock and ours that are worth a look, and from which a centre does not lead."""
SOUND = {(3, 4): 22, (3, 5): 6}
"""Oldest patch of each minor that etcd's maintainers recommend: earlier ones can lose or diverge data."""


class Level(StrEnum):
    """How a finding is meant: nothing to do, worth a look, or something does not work."""

    OK = "ok"
    LOOK = "look"
    BAD = "bad"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing looked at: what about, how it is, a sentence, what to try, whether `cure` helps."""

    about: str
    level: Level
    says: str
    hint: str = ""
    curable: bool = False


class Members:
    """The members of the cluster, each asked by itself. A context manager: closes its clients."""

    def __init__(self, endpoints: Sequence[str], connect: Callable[[Sequence[str]], Client]) -> None:
        """`connect` makes a client of some of the endpoints, with our account and certificates."""
        self._stack = ExitStack()
        self.all = self._stack.enter_context(connect(endpoints))
        self.each = {
            endpoint: self.all if len(endpoints) == 1 else self._stack.enter_context(connect([endpoint]))
            for endpoint in endpoints
        }

    def __enter__(self) -> Members:
        """The members themselves."""
        return self

    def __exit__(self, *_: object) -> None:
        """Closes."""
        self._stack.close()


def examine(members: Members, keys: Keys, *, quota: int = 0) -> list[Finding]:
    """Looks at everything that can be looked at. `quota`: bytes, where etcd does not tell (0: etcd's default)."""
    found: list[Finding] = []
    known: dict[str, Status] = {}
    for endpoint, client in members.each.items():
        try:
            known[endpoint] = client.status()
        except AuthFailed as error:
            found.append(_guarded(endpoint, client, keys, error))
        except CronyError as error:
            found.append(Finding("member", Level.LOOK, _said(endpoint, error), "is it running, is the address right?"))
    if not known and not any(each.about == "room" for each in found):
        return [Finding(each.about, Level.BAD, each.says, each.hint) for each in found]
    for endpoint, status in known.items():
        found += [_member(endpoint, status), _room(endpoint, status, quota)]
    looks = {"majority": _majority, "alarm": _alarms, "history": _history, "clock": _clock, "access": _access}
    for about, look in looks.items():
        try:
            found.append(look(members.all, keys))
        except CronyError as error:
            found.append(Finding(about, Level.BAD, _said("", error), error.hint))
    return found


def cure(client: Client, keys: Keys) -> list[str]:
    """Compacts all history, defragments each member (it stands still meanwhile), disarms NOSPACE; what was done.

    Watches that were behind list again. Raises `Conflict` when a member's data is corrupt, `AuthFailed`, and
    `EtcdUnavailable` or `EtcdUnknown` when a member could not be defragmented: the others are, run it again.
    """
    if any(alarm.kind == "CORRUPT" for alarm in client.alarms()):
        raise Conflict("a member's data is corrupt", hint="replace that member before anything else")
    before = client.status()
    revision = client.range(keys.root, count_only=True).revision
    client.compact(revision, physical=True)
    done = [f"compacted to revision {revision}"]
    client.defragment()
    freed = max(0, before.db_size - client.status().db_size)
    done.append(f"defragmented every member: {_mib(freed)} freed in the first one")
    if client.alarms():
        client.disarm()
        done.append("took the NOSPACE alarm back")
    return done


def _said(endpoint: str, error: CronyError) -> str:
    """What is wrong, a member's address once; what to try stands beside it."""
    why = error.why.removeprefix(f"{endpoint}: ")
    return (f"{endpoint}: " if endpoint else "") + error.what + (f" ({why})" if why else "")


def _guarded(endpoint: str, client: Client, keys: Keys, refusal: AuthFailed) -> Finding:
    """etcd 3.5.30 tells its state, and lets compact, with the root role only."""
    try:
        client.range(keys.root, count_only=True)
    except CronyError:
        return Finding(
            "member",
            Level.LOOK,
            f"{endpoint}: {refusal}",
            f"are user and password right, may the user read {keys.root}?",
        )
    says = f"{endpoint} answers, but tells its version and room to the root role only; a centre cannot compact there"
    hint = "ask again as root; start etcd with --auto-compaction-mode=periodic --auto-compaction-retention=5m"
    return Finding("room", Level.LOOK, says, hint)


def _member(endpoint: str, status: Status) -> Finding:
    numbers = tuple(int(part) for part in status.version.split("-")[0].split(".") if part.isdigit())
    says = f"{endpoint} runs etcd {status.version}"
    if not status.leader:
        return Finding("member", Level.BAD, f"{says} and knows no leader", "are most of the members up and connected?")
    if numbers < (3, 4):
        return Finding("member", Level.BAD, f"{says}, which is too old", "3.4.22, 3.5.6 or newer; best the newest")
    if len(numbers) > 2 and numbers[2] < SOUND.get((numbers[0], numbers[1]), 0):
        return Finding(
            "member", Level.LOOK, f"{says}, which can damage data", "3.4.22, 3.5.6 or newer; best the newest"
        )
    return Finding("member", Level.OK, says)


def _room(endpoint: str, status: Status, told: int) -> Finding:
    quota = status.quota or told or DEFAULT_QUOTA
    source = "" if status.quota or told else ", etcd's default: it does not tell its own before 3.6"
    used, size = status.db_in_use / quota, status.db_size / quota
    says = f"{endpoint} uses {_mib(status.db_in_use)} of {_mib(quota)} ({used:.0%}{source})"
    if used >= ROOM[0]:
        level = Level.BAD if used >= ROOM[1] else Level.LOOK
        more = "; fires are held" if used >= ROOM[1] else ""
        hint = "`crony doctor --fix` frees history; what stays is data: is the archive's database away, a queue unread?"
        return Finding("room", level, says + more, hint, curable=True)
    if size >= LOOSE and status.db_in_use < status.db_size / 2:
        says += f"; its file has {_mib(status.db_size)}, mostly holes"
        return Finding("room", Level.LOOK, says, "`crony doctor --fix` defragments it", curable=True)
    return Finding("room", Level.OK, says)


def _majority(client: Client, keys: Keys) -> Finding:
    client.range(keys.root, count_only=True)
    return Finding("majority", Level.OK, "the members agree: linearizable reads work")


def _alarms(client: Client, keys: Keys) -> Finding:
    kinds = sorted({alarm.kind for alarm in client.alarms()})
    if "CORRUPT" in kinds:
        return Finding("alarm", Level.BAD, "a member's data is corrupt: etcd refuses writes", "replace that member")
    if kinds:
        says = "etcd is out of space: it refuses everything that is written"
        hint = "`crony doctor --fix`, then find out what filled it, or raise --quota-backend-bytes"
        return Finding("alarm", Level.BAD, says, hint, curable=True)
    return Finding("alarm", Level.OK, "no alarm is raised")


def _history(client: Client, keys: Keys) -> Finding:
    """Compaction goes up to some revision: bisect for it, one read of nothing for each halving."""
    newest = client.range(keys.root, count_only=True).revision
    oldest, known = 1, newest
    while oldest < known:
        middle = (oldest + known) // 2
        try:
            client.range(keys.root, count_only=True, revision=middle)
            known = middle
        except Compacted:
            oldest = middle + 1
    kept = newest - known
    if kept > LONG_HISTORY:
        says = f"{kept:,} revisions of history are kept: nobody seems to compact"
        hint = "run a centre, or start etcd with --auto-compaction-mode=periodic --auto-compaction-retention=5m"
        return Finding("history", Level.LOOK, says, hint, curable=True)
    return Finding("history", Level.OK, f"{kept:,} revisions of history are kept")


def _clock(client: Client, keys: Keys) -> Finding:
    offset = client.clock_offset
    says = f"etcd's clock is {abs(offset):.1f} s {'ahead of' if offset >= 0 else 'behind'} this machine's"
    level = Level.BAD if abs(offset) > SKEW[1] else Level.LOOK if abs(offset) > SKEW[0] else Level.OK
    return Finding(
        "clock", level, says, "" if level is Level.OK else "run NTP on both; a centre this far off does not lead"
    )


def _access(client: Client, keys: Keys) -> Finding:
    """The account may read and write the prefix: etcd checks the permissions of a branch it does not take, too."""
    key = keys.root + "doctor"
    try:
        client.range(keys.root, prefix_end(keys.root), count_only=True)
        client.txn(Txn().when(exists(key), absent(key)).put(key, b""))
    except NoSpace:
        return Finding("access", Level.OK, f"may read {keys.root} (writing is refused to all: no space)")
    except (AuthFailed, BadRequest) as error:
        return Finding(
            "access", Level.BAD, f"may not read and write {keys.root}: {error}", "grant it to the user's role"
        )
    return Finding("access", Level.OK, f"may read and write {keys.root}")


def _mib(size: int) -> str:
    return f"{size / 2**20:,.0f} MiB"
