"""Output on its way: the spool's files and the thread that brings them to the web."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from crony.errors import Invalid
from crony.settings import Settings
from crony.workers import uploader
from crony.workers.spool import Spool, directory, parse
from crony.workers.uploader import Uploader
from tests.helpers.etcd import free_ports
from tests.helpers.ingest import Kept, ingest
from tests.helpers.wait import until

RUN = "j1.1.1700000000"


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uploader, "LIVE", 0.05)
    monkeypatch.setattr(uploader, "CHUNK", 1000)


def settings(folder: Path, api: str = "http://127.0.0.1:9", **more: object) -> Settings:
    facts = {"node": "n1", "api": api, "token": "node-token", "spool_dir": str(folder / "spool"), **more}
    return Settings(**facts)  # type: ignore[arg-type]


def spool(told: Settings) -> Spool:
    return Spool(directory(told), told)


@contextmanager
def uploading(kept: Spool, told: Settings, incarnation: str = "i1") -> Iterator[Uploader]:
    thread = Uploader(kept, told, incarnation)
    thread.start()
    try:
        yield thread
    finally:
        thread.stop(5)


def names(kept: Spool) -> list[str]:
    return sorted(path.name for path in kept.path.iterdir())


def test_nothing_printed_is_no_file(tmp_path: Path) -> None:
    kept = spool(settings(tmp_path))
    output = kept.open(RUN, 1, "i1")
    output.write(b"")
    output.close()
    assert names(kept) == []


def test_stages_are_names(tmp_path: Path) -> None:
    kept = spool(settings(tmp_path, output_limit=10))
    output = kept.open("a/b", 2, "i1")
    output.write(b"x")
    assert names(kept) == ["a%2Fb~2~i1.open"]
    piece = parse(names(kept)[0])
    assert piece is not None and (piece.run, piece.attempt, piece.incarnation) == ("a/b", 2, "i1")
    output.close()
    assert names(kept) == ["a%2Fb~2~i1.done"]
    output.write(b"late")
    cut = kept.open(RUN, 1, "i1")
    cut.write(b"y" * 11)
    cut.write(b"y")
    cut.close()
    assert names(kept)[1] == f"{RUN}~1~i1.cut"
    found = (kept.path / f"{RUN}~1~i1.cut").read_bytes()
    assert found.startswith(b"y" * 10 + b"\n[crony:") and found.endswith(b"]\nyy"), "what is over it, is at the end"


def test_of_an_output_over_its_cap_head_and_tail_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("crony.workers.spool.TAIL", 50)
    kept = spool(settings(tmp_path, output_limit=100))
    output = kept.open(RUN, 1, "i1")
    for number in range(1000):
        output.write(b"%04d\n" % number)
    assert names(kept) == [f"{RUN}~1~i1.open"]
    head = b"".join(b"%04d\n" % number for number in range(20))
    marker = b"\n[crony: output cut here, more than 100 bytes; its end comes when it is over]\n"
    assert (kept.path / names(kept)[0]).read_bytes() == head + marker, "a node that is killed now has told of the cut"
    output.close()
    tail = b"".join(b"%04d\n" % number for number in range(990, 1000))
    left_out = b"[crony: %d bytes were left out here]\n" % (5000 - 100 - 50)
    assert (kept.path / f"{RUN}~1~i1.cut").read_bytes() == head + marker + left_out + tail


@pytest.mark.parametrize("name", ["", ".full", "x.open", "a~1.done", "a~b~i.done", "a~1~i.tmp", "a~1~i"])
def test_other_files_are_left_alone(name: str) -> None:
    assert parse(name) is None


def test_without_a_web_nothing_is_kept(tmp_path: Path) -> None:
    told = settings(tmp_path, api="")
    kept = spool(told)
    output = kept.open(RUN, 1, "i1")
    output.write(b"x")
    output.close()
    assert not (tmp_path / "spool").exists()


def test_a_directory_of_somebody_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "spool").mkdir()
    os.chmod(tmp_path / "spool", 0o777)
    with pytest.raises(Invalid, match="only this user may write"):
        spool(settings(tmp_path))


def test_a_full_disk_is_not_the_jobs_problem(tmp_path: Path) -> None:
    kept = spool(settings(tmp_path))
    output = kept.open(RUN, 1, "i1")
    output.write(b"x")
    full = os.open("/dev/full", os.O_WRONLY)
    os.dup2(full, output._file)
    os.close(full)
    output.write(b"y")
    assert output.truncated
    output.close()


def test_live_then_final(tmp_path: Path) -> None:
    with ingest() as web:
        told = settings(tmp_path, web.service.url)  # type: ignore[union-attr]
        kept = spool(told)
        output = kept.open(RUN, 1, "i1")
        with uploading(kept, told):
            output.write(b"first")
            until(lambda: web.data.get((RUN, 1)) == b"first", what="live output")
            assert (RUN, 1) not in web.final
            output.write(b" second" * 1000)
            output.close()
            until(lambda: (RUN, 1) in web.final, what="the end")
            until(lambda: not names(kept), what="the file goes")
    assert web.data[RUN, 1] == b"first" + b" second" * 1000
    assert web.final[RUN, 1] is False


def test_the_web_may_be_away(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (port,) = free_ports(1)
    told = settings(tmp_path, f"http://127.0.0.1:{port}")
    kept, stored = spool(told), Kept()
    with uploading(kept, told) as thread:
        output = kept.open(RUN, 1, "i1")
        output.write(b"a" * 2500)
        until(lambda: "output stays on this node" in caplog.text, what="the node says so")
        with ingest(port, stored):
            thread.nudge()
            until(lambda: len(stored.data.get((RUN, 1), b"")) == 2500, what="it arrives")
        output.write(b"b")
        output.close()
        with ingest(port, stored):
            stored.refuse = 503
            thread.nudge()
            until(lambda: "answers 503" in caplog.text, what="the web refuses")
            stored.refuse = 0
            until(lambda: thread.nudge() or not names(kept), what="the rest arrives")
    assert stored.data[RUN, 1] == b"a" * 2500 + b"b"


def test_one_file_that_the_web_fails_on_does_not_hold_up_the_others(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with ingest() as web:
        told = settings(tmp_path, web.service.url)  # type: ignore[union-attr]
        kept = spool(told)
        web.broken.add((RUN, 1))
        for attempt in (1, 2, 3):
            output = kept.open(RUN, attempt, "i1")
            output.write(b"x" * 1500)
            output.close()
            os.utime(kept.path / f"{RUN}~{attempt}~i1.done", (attempt, attempt))
        with uploading(kept, told) as thread:
            until(lambda: names(kept) == [f"{RUN}~1~i1.done"], what="the others arrive")
            assert {attempt for _, attempt in web.final} == {2, 3} and "answers 500" in caplog.text
            web.broken.clear()
            until(lambda: thread.nudge() or not names(kept), what="it arrives in the end")
        assert len(web.service.asked) < 15  # type: ignore[union-attr]
    assert web.data[RUN, 1] == b"x" * 1500


def test_a_web_that_fails_on_everything_is_away(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with ingest() as web:
        told = settings(tmp_path, web.service.url)  # type: ignore[union-attr]
        kept = spool(told)
        web.refuse = 500
        for attempt in range(1, 2 * uploader.MOST_FAILED):
            kept.open(RUN, attempt, "i1").write(b"x")
        with uploading(kept, told):
            until(lambda: "output stays on this node" in caplog.text, what="the node says so")


def test_a_wrong_token_is_said_and_nothing_lost(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with ingest(kept=Kept(token="other")) as web:
        told = settings(tmp_path, web.service.url)  # type: ignore[union-attr]
        kept = spool(told)
        kept.open(RUN, 1, "i1").write(b"x")
        with uploading(kept, told):
            until(lambda: "CRONY_TOKEN" in caplog.text, what="the node says what to do")
        assert names(kept) and "node-token" not in caplog.text


def test_what_the_web_never_takes_is_dropped(tmp_path: Path) -> None:
    with ingest() as web:
        told = settings(tmp_path, web.service.url)  # type: ignore[union-attr]
        kept, web.refuse = spool(told), 422
        output = kept.open(RUN, 1, "i1")
        output.write(b"x")
        output.close()
        with uploading(kept, told):
            until(lambda: not names(kept), what="it is given up")


def test_files_of_an_earlier_start_are_sent(tmp_path: Path) -> None:
    with ingest() as web:
        told = settings(tmp_path, web.service.url)  # type: ignore[union-attr]
        kept = spool(told)
        kept.open(RUN, 1, "iformer").write(b"left behind")
        mine = kept.open(RUN, 2, "i1")
        mine.write(b"mine")
        with uploading(kept, told):
            until(lambda: (RUN, 1) in web.final, what="the old one is complete")
            until(lambda: web.data.get((RUN, 2)) == b"mine", what="the new one is live")
            assert (RUN, 2) not in web.final
        mine.close()
    assert web.data[RUN, 1] == b"left behind"


def test_what_the_web_has_already_is_not_sent_again(tmp_path: Path) -> None:
    with ingest() as web:
        told = settings(tmp_path, web.service.url)  # type: ignore[union-attr]
        kept = spool(told)
        web.data[RUN, 1] = b"z" * 5000
        output = kept.open(RUN, 1, "i1")
        output.write(b"z" * 5000 + b"end")
        output.close()
        with uploading(kept, told):
            until(lambda: (RUN, 1) in web.final, what="the end")
        assert web.data[RUN, 1] == b"z" * 5000 + b"end"
        assert len(web.service.asked) <= 3  # type: ignore[union-attr]


def test_a_full_spool_drops_the_oldest_and_says_so(tmp_path: Path) -> None:
    (port,) = free_ports(1)
    told = settings(tmp_path, f"http://127.0.0.1:{port}", spool_limit=2500)
    kept, stored = spool(told), Kept()
    for attempt in (1, 2, 3, 4):
        output = kept.open(RUN, attempt, "i1")
        output.write(b"x" * 1000)
        output.close()
        os.utime(kept.path / f"{RUN}~{attempt}~i1.done", (attempt, attempt))
    with uploading(kept, told) as thread:
        until(lambda: sum(name.endswith(".shed") for name in names(kept)) == 2, what="two are dropped")
        with ingest(port, stored):
            until(lambda: thread.nudge() or not names(kept), what="all is sent")
    whole = b"x" * 1000
    assert [stored.data[RUN, attempt] for attempt in (1, 2, 3, 4)] == [uploader.DROPPED] * 2 + [whole] * 2
    assert [stored.final[RUN, attempt] for attempt in (1, 2, 3, 4)] == [True, True, False, False]


def test_running_attempts_stop_keeping_when_nothing_more_can_be_dropped(tmp_path: Path) -> None:
    told = settings(tmp_path, spool_limit=100)
    kept = spool(told)
    first = kept.open(RUN, 1, "i1")
    first.write(b"x" * 200)
    with uploading(kept, told):
        until(lambda: ".full" in names(kept), what="the spool is full")
    second = kept.open(RUN, 2, "i1")
    second.write(b"y")
    assert second.truncated and len(names(kept)) == 2
    second.close()
    first.close()


def test_finish_completes_what_a_dead_process_left(tmp_path: Path) -> None:
    kept = spool(settings(tmp_path))
    kept.open(RUN, 1, "i1").write(b"half")
    kept.finish(RUN, 1, "i1", note=b"\nits process died\n")
    assert (kept.path / f"{RUN}~1~i1.done").read_bytes() == b"half\nits process died\n"
    kept.finish(RUN, 9, "i1", note=b"nobody knows it")
