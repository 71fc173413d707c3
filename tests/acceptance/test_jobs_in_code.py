"""Jobs declared beside their functions: applied, run, changed, pruned, with real processes and the real command."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from crony_sdk import Completion

from tests.helpers import zygote
from tests.helpers.etcd import EtcdServer
from tests.helpers.platform import Platform, platform
from tests.helpers.service import service
from tests.helpers.wait import until

ROOT = Path(__file__).resolve().parents[2]
FIRST = '''
from __future__ import annotations
import crony

@crony.job(name="code/daily", schedule={"cron": "0 6 * * *", "timezone": "Asia/Shanghai"}, params={"region": "cn"},
           retry={"max": 2, "delay": "0s"}, tags=["money"])
def daily(ctx: crony.Context, region: str, factor: int = 1) -> dict:
    """Closes the day.

    Fails at first.
    """
    ctx.log.info("for %s", region)
    if ctx.attempt == 1:
        raise RuntimeError("not yet")
    return {"region": region, "factor": factor, "run": ctx.run, "by_hand": ctx.fire_time is None}

@crony.job(name="code/later", async_={"deadline": "5m"})
def later(ctx, path: str) -> None:
    import json
    with open(path, "w") as file:
        json.dump(dict(ctx.defer().headers), file)
'''
SECOND = FIRST.replace("0 6 * * *", "0 7 * * *").partition('@crony.job(name="code/later"')[0]


def apply(place: Platform, folder: Path, *options: str) -> tuple[int, str]:
    """`crony apply --from appjobs …` in a folder; exit code and everything it said."""
    environ = place._environ(CRONY_API=place.api, CRONY_TOKEN=place.token)
    command = [sys.executable, "-m", "crony", "apply", "--from", "appjobs", *options]
    done = zygote.run(command, environ, folder)
    return done.returncode, done.stdout + done.stderr


def test_jobs_in_code(own_etcd: EtcdServer, tmp_path: Path) -> None:
    app = tmp_path / "app"
    app.mkdir()
    (app / "appjobs.py").write_text(FIRST)
    extra = {"PYTHONPATH": f"{ROOT}:{app}", "PYTHONDONTWRITEBYTECODE": "1"}
    with platform(tmp_path / "crony", [own_etcd.endpoint], imports="appjobs", extra=extra) as place:
        place.centre("one")
        place.web()
        place.node("n1", pool="prefork", concurrency=2, CRONY_API_PUBLIC=place.api)

        code, told = apply(place, app, "--dry-run")
        assert code == 0 and told.count("would be created") == 2, told
        assert place.call("GET", "jobs")["items"] == []
        code, told = apply(place, app)
        assert code == 0 and "+  cron: 0 6 * * *" in told and "CRONY_IMPORTS" in told, told
        code, told = apply(place, app, "--prune")
        assert code == 0 and told.count("unchanged") == 2, told

        jobs = {job["name"]: job for job in place.call("GET", "jobs")["items"]}
        assert jobs["code/daily"]["document"]["tags"] == ["money", "code:appjobs"]
        assert jobs["code/daily"]["document"]["description"] == "Closes the day."
        place.await_nodes("n1")
        ended = place.wait(place.trigger(jobs["code/daily"], params={"factor": 3}))
        assert (ended["outcome"], ended["attempt"]) == ("succeeded", 2)
        assert ended["result"] == {"region": "cn", "factor": 3, "run": ended["id"], "by_hand": True}
        until(lambda: "INFO crony.job: for cn" in place.output(ended["id"], 2), 20, "what it logged")

        with service(lambda asked: (200, {"Content-Type": "application/json"}, b'{"rows": 3}')) as there:
            url = f"{there.url}/{{{{params.region}}}}"
            given = {"params": {"region": "cn", "n": 1}, "overlap": "allow"}
            called = place.job({"name": "hand/http", "action": {"kind": "http", "url": url}, **given})
            typed = place.shell("hand/shell", 'echo "$CRONY_PARAM_REGION $CRONY_PARAM_N"', **given)
            runs = [place.trigger(job, params={"region": "eu"}) for job in (called, typed)]
            assert [place.wait(run)["result"] for run in runs] == [{"rows": 3}, None]
        assert there.asked[0].path == "/eu?n=1"
        until(lambda: place.output(runs[1]) == "eu 1\n", 20, "parameters of this run beside those of the job")
        for job in (called, typed):
            place.call("DELETE", f"jobs/{job['id']}")

        handed = tmp_path / "headers"
        run = place.trigger(jobs["code/later"], params={"path": str(handed)})
        until(lambda: place.run(run)["state"] == "accepted", 20, "it to wait for its answer")
        Completion.from_headers(json.loads(handed.read_text())).complete({"rows": 3})
        assert place.wait(run)["result"] == {"rows": 3}

        place.call("POST", "jobs/code%2Fdaily:pause")
        (app / "appjobs.py").write_text(SECOND)
        code, told = apply(place, app)
        assert code == 0 and "-  cron: 0 6 * * *" in told and "+  cron: 0 7 * * *" in told and "enabled" not in told
        changed = place.call("GET", "jobs/code%2Fdaily")
        assert changed["enabled"] is False and changed["document"]["schedule"]["cron"] == "0 7 * * *"
        assert len(place.call("GET", "jobs")["items"]) == 2, "nothing is deleted unasked"
        assert apply(place, app, "--prune")[0] == 2, "nor where nobody can be asked"
        code, told = apply(place, app, "--prune", "--yes")
        assert code == 0 and "deleted" in told
        assert [job["name"] for job in place.call("GET", "jobs")["items"]] == ["code/daily"]

        place.shell("code/later", "true")
        (app / "appjobs.py").write_text(FIRST)
        code, told = apply(place, app)
        assert code == 5 and "--adopt" in told and "Traceback" not in told
        assert apply(place, app, "--adopt")[0] == 0
        assert place.call("GET", "jobs/code%2Flater")["document"]["action"]["kind"] == "python"


def test_what_cannot_be_applied_is_said(tmp_path: Path) -> None:
    def said(text: str) -> str:
        (tmp_path / "appjobs.py").write_text(text)
        command = [sys.executable, "-m", "crony", "apply", "--from", "appjobs", "--api", "http://127.0.0.1:9"]
        environ = {"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin", "PYTHONDONTWRITEBYTECODE": "1"}
        done = zygote.run(command, environ, tmp_path)
        assert done.returncode == 2 and "Traceback" not in done.stderr, done.stderr
        return done.stderr

    assert "appjobs cannot be imported: ModuleNotFoundError" in said("import nowhere_to_be_found")
    assert "appjobs declares no jobs" in said("")
    wrong = "import crony\n@crony.job(name='a', retires={})\ndef f(): pass\n"
    assert "a: retires: is not a known field" in said(wrong) and "did you mean retry" in said(wrong)
    twice = "import crony\n@crony.job(name='a')\ndef f(): pass\n@crony.job(name='a')\ndef g(): pass\n"
    assert "declared twice" in said(twice)
    assert "is an async function" in said("import crony\n@crony.job(name='a')\nasync def f(): pass\n")
