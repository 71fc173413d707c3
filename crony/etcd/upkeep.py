"""What operators, and the leader for them, ask of etcd itself: room, history, alarms."""

from __future__ import annotations

import json

from crony.errors import CronyError
from crony.etcd.calls import Calls
from crony.etcd.errors import Compacted, EtcdUnavailable, EtcdUnknown
from crony.etcd.wire import Alarm, Status

_MAINTENANCE = 60.0


class Upkeep(Calls):
    """The part of a client that looks after its cluster."""

    def compact(self, revision: int, *, physical: bool = False) -> None:
        """Forgets history before `revision`; done already is fine. Raises `BadRequest` for a future revision.

        `physical`: answers when the room is free in the file, as `defragment` needs it, not when it will be.
        """
        body = f'{{"revision":"{int(revision)}","physical":{"true" if physical else "false"}}}'
        try:
            self._call("/v3/kv/compaction", body.encode("ascii"), repeatable=True)
        except Compacted:
            return

    def status(self) -> Status:
        """Facts of the member we talk to (its own revision: not linearizable)."""
        raw = self._call("/v3/maintenance/status", b"{}", repeatable=True)
        header = raw.get("header", {})
        return Status(
            str(raw.get("version", "")),
            int(raw.get("dbSize", 0)),
            int(raw.get("dbSizeInUse", 0)),
            int(raw.get("leader", 0)),
            int(raw.get("raftTerm", 0)),
            int(header.get("revision", 0)),
            int(raw.get("dbSizeQuota", 0)),
            int(header.get("member_id", 0)),
        )

    def defragment(self) -> None:
        """Gives freed space back to the file system, one member after the other; each stands still meanwhile.

        Goes on when a member cannot be reached, and raises that error at the end.
        """
        failed: CronyError | None = None
        for endpoint in self.cluster.endpoints:
            try:
                self.cluster.call(
                    "/v3/maintenance/defragment", b"{}", repeatable=False, timeout=_MAINTENANCE, only=endpoint
                )
            except (EtcdUnavailable, EtcdUnknown) as error:
                failed = error
        if failed is not None:
            raise failed

    def alarms(self) -> tuple[Alarm, ...]:
        """Alarms raised by members."""
        raw = self._call("/v3/maintenance/alarm", b'{"action":"GET"}', repeatable=True)
        found = raw.get("alarms", ())
        return tuple(Alarm(int(item.get("memberID", 0)), str(item.get("alarm", "NONE"))) for item in found)

    def disarm(self) -> None:
        """Takes back every alarm."""
        for alarm in self.alarms():
            body = json.dumps({"action": "DEACTIVATE", "memberID": str(alarm.member), "alarm": alarm.kind})
            self._call("/v3/maintenance/alarm", body.encode(), repeatable=True)
