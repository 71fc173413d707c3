"""People and programs: they create, edit, pause and delete jobs, ask for runs and cancel them, and keep the answers."""

from __future__ import annotations

import contextlib
import random
import threading
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import requests

from tests.soak.cast import CALENDAR, Document, changed, passing, quiet

if TYPE_CHECKING:
    from tests.soak.world import World

MOST_JOBS = 6
"""Jobs that callers keep beside the cast."""
WEIGHTS = {
    "run": 8,
    "again": 3,
    "create": 3,
    "edit": 4,
    "pause": 3,
    "resume": 4,
    "delete": 2,
    "cancel": 3,
    "stop": 1,
    "decide": 2,
    "backfill": 2,
    "unfill": 1,
    "calendar": 2,
}
HAND = ("hand/parts", "hand/quick", "hand/long", "hand/alone", "hand/fails", "hand/only-n1", "hand/python")


class Desk:
    """REST calls whose answers (or their absence) are written down."""

    def __init__(self, world: World, *, timeout: float = 8.0, port: int = 0) -> None:
        """`timeout`: seconds after which a caller gives up waiting; `port`: of another web than the first."""
        self._world, self._timeout = world, timeout
        self._api = f"http://127.0.0.1:{port}" if port else world.crony.api
        self._http = requests.Session()
        self._http.trust_env = False
        self._http.headers["Authorization"] = f"Bearer {world.crony.token}"

    def call(self, what: str, method: str, path: str, body: Any = None, **facts: Any) -> tuple[int, Document]:
        """(status, body); status 0: no answer came."""
        sent = time.time()
        headers = facts.pop("headers", {})
        status, told, error = 0, {}, ""
        try:
            url = f"{self._api}/api/v1/{path}"
            answer = self._http.request(method, url, json=body, headers=headers, timeout=self._timeout)
            status = answer.status_code
            if answer.content and "json" in answer.headers.get("content-type", ""):
                told = answer.json()
        except (requests.RequestException, ValueError) as failed:
            error = str(failed)
        if status >= 400:
            error = str(told.get("title") or told.get("detail") or told)[:300]
        kept = {name: told[name] for name in ("revision", "run", "created") if name in told}
        if what == "create" and "id" in told:
            facts["job"] = told["id"]
        if what == "backfill" and "id" in told:
            facts["backfill"] = told["id"]
        self._world.journal.note(
            "op", what=what, status=status, sent=sent, answered=time.time(), error=error, **facts, **kept
        )
        return status, told


class Callers(threading.Thread):
    """One caller after another, by a seed, until stopped."""

    def __init__(self, world: World, seed: int, jobs: dict[str, Document], *, pause: float = 0.8) -> None:
        """`jobs`: the cast as it was created, by name; `pause`: seconds between two calls."""
        super().__init__(name="callers", daemon=True)
        self._world, self._rng, self._pause = world, random.Random(f"callers {seed}"), pause
        self._desk, self._cast = Desk(world), jobs
        self._mine: dict[str, Document] = {}
        self._paused: set[str] = set()
        self._runs: list[str] = []
        self._fills: list[str] = []
        self._keys: list[tuple[str, str]] = []
        self._made = 0
        self._done = threading.Event()
        self.error: BaseException | None = None

    def stop(self) -> None:
        """No more calls."""
        self._done.set()
        self.join(30)

    def run(self) -> None:
        """Call."""
        try:
            while not self._done.wait(self._rng.uniform(0.2, 1.8) * self._pause):
                what = self._rng.choices(list(WEIGHTS), list(WEIGHTS.values()))[0]
                getattr(self, f"_do_{what}")()
        except BaseException as error:
            self.error = error
            raise

    # -- runs ----------------------------------------------------------------------------------

    def _do_run(self) -> None:
        name = self._rng.choice(HAND)
        key = f"k{self._rng.randrange(10**9)}" if self._rng.random() < 0.7 else ""
        self._ask(name, key)
        if key:
            self._keys = [*self._keys[-20:], (name, key)]

    def _do_again(self) -> None:
        """The same request once more, as a caller does that got no answer."""
        if self._keys:
            self._ask(*self._rng.choice(self._keys))

    def _ask(self, name: str, key: str) -> None:
        job = self._cast.get(name)
        if job is None:
            return
        headers = {"Idempotency-Key": key} if key else {}
        body = {"delay": "2s"} if self._rng.random() < 0.1 and not key else {}
        _, told = self._desk.call("run", "POST", f"jobs/{job['id']}:run", body, job=job["id"], key=key, headers=headers)
        if told.get("run"):
            self._runs = [*self._runs[-10:], told["run"]]

    def _do_cancel(self) -> None:
        if self._runs:
            run = self._rng.choice(self._runs)
            self._desk.call("cancel", "POST", f"runs/{run}:cancel", job=run.split(".")[0])

    def _do_backfill(self) -> None:
        """A period of the last minute once more."""
        job = self._cast[self._rng.choice(("fill/again", "fill/once"))]
        start = int(time.time()) - self._rng.randint(20, 60)
        body = {
            "from": _text(start), "to": _text(start + self._rng.randint(6, 16)),
            "parallel": self._rng.randint(1, 3), "order": self._rng.choice(["oldest", "newest"]),
        }  # fmt: skip
        _, told = self._desk.call("backfill", "POST", f"jobs/{job['id']}:backfill", body, job=job["id"])
        if told.get("id"):
            self._fills = [*self._fills[-3:], told["id"]]

    def _do_unfill(self) -> None:
        """Stop a backfill, and perhaps what runs of it."""
        if self._fills:
            ident, running = self._rng.choice(self._fills), self._rng.random() < 0.5
            self._desk.call("unfill", "POST", f"backfills/{ident}:cancel", {"running": running}, job="")

    def _do_calendar(self) -> None:
        """Other seconds in which some jobs are not due; they are published anew."""
        self._desk.call("calendar", "PUT", f"calendars/{CALENDAR}", quiet(self._rng, time.time()), job="")

    def _do_decide(self) -> None:
        """Let runs go on, or end them, that are on hold."""
        decide(self._desk, self._rng)

    # -- jobs ----------------------------------------------------------------------------------

    def _do_create(self) -> None:
        if len(self._mine) >= MOST_JOBS:
            return self._do_delete()
        self._made += 1
        name = f"mine/{self._made % 9}"  # names come again
        if name in self._mine:
            return None
        document = passing(self._rng, self._world.crony.marks, name, time.time())
        status, told = self._desk.call("create", "POST", "jobs", document)
        if 200 <= status < 300:
            self._mine[name] = {**document, "id": told["id"], "revision": told["revision"]}
        return None

    def _one(self) -> Document | None:
        return self._mine[self._rng.choice(sorted(self._mine))] if self._mine else None

    def _do_edit(self) -> None:
        """An edit within 100 ms of a full second, where fires are."""
        job = self._one()
        if job is None or "at" in job["schedule"]:
            return
        plain = {name: value for name, value in job.items() if name not in ("id", "revision")}
        new = changed(self._rng, plain)
        if job["name"] in self._paused:
            new["enabled"] = False
        self._near_a_second()
        headers = {"If-Match": f'"{job["revision"]}"'}
        status, told = self._desk.call("edit", "PUT", f"jobs/{job['id']}", new, job=job["id"], headers=headers)
        if 200 <= status < 300:
            job |= {**new, "revision": told["revision"]}
        elif status in (409, 412) or not status:
            self._look(job)

    def _near_a_second(self) -> None:
        offset = self._rng.uniform(-0.1, 0.1)
        self._done.wait((1 + offset - time.time()) % 1)

    def _look(self, job: Document) -> None:
        """Whether the call without an answer was carried out."""
        status, told = self._desk.call("look", "GET", f"jobs/{job['id']}", job=job["id"])
        if status == 200:
            job["revision"] = told["revision"]
            on = told.get("enabled", True)
            (self._paused.discard if on else self._paused.add)(job["name"])
        elif status == 404:
            self._mine.pop(job["name"], None)

    def _switch(self, what: str) -> None:
        job = self._one()
        if job is None:
            return
        self._near_a_second()
        status, told = self._desk.call(what, "POST", f"jobs/{job['id']}:{what}", job=job["id"])
        if 200 <= status < 300:
            job["revision"] = told["revision"]
            (self._paused.add if what == "pause" else self._paused.discard)(job["name"])
        else:
            self._look(job)

    def _do_pause(self) -> None:
        self._switch("pause")

    def _do_resume(self) -> None:
        self._switch("resume")

    def _do_delete(self) -> None:
        job = self._one()
        if job is None:
            return
        status, _ = self._desk.call("delete", "DELETE", f"jobs/{job['id']}", job=job["id"])
        if status in (204, 202, 404):
            self._mine.pop(job["name"], None)
            self._paused.discard(job["name"])

    def _do_stop(self) -> None:
        """Stop everything for a moment."""
        self._desk.call("stop", "PUT", "control", {"stop": True, "reason": "soak"}, job="")
        self._done.wait(self._rng.uniform(0.3, 2.0))
        while self._desk.call("go", "PUT", "control", {"stop": False}, job="")[0] != 200:
            if self._world.stopping.wait(0.5):
                return


def _text(second: float) -> str:
    return datetime.fromtimestamp(second, UTC).isoformat()


def decide(desk: Desk, rng: random.Random, *, release: float = 0.7) -> int:
    """Decide about every run that is on hold; how many there were. `release`: how often one is let go on."""
    _, told = desk.call("look", "GET", "runs?state=waiting&limit=200", job="")
    held = [run for run in told.get("items", ()) if str(run["reason"]).startswith("hold")]
    for run in held:
        if rng.random() < release:
            desk.call("release", "POST", f"runs/{run['id']}:release", job=run["job"])
        else:
            desk.call("cancel", "POST", f"runs/{run['id']}:cancel", job=run["job"])
    return len(held)


def polled(world: World, done: threading.Event) -> None:
    """Ask the web every second whether it is ready, and keep what it says."""
    http = requests.Session()
    http.trust_env = False
    http.headers["Authorization"] = f"Bearer {world.crony.token}"
    while not done.wait(1.0):
        with contextlib.suppress(requests.RequestException):
            answer = http.get(f"{world.crony.api}/readyz", params={"verbose": "1"}, timeout=8)
            world.journal.note("ready", status=answer.status_code, text=answer.text[:400])
