"""Output on its way: the spool's files and the thread that brings them to the web."""

from __future__ import annotations

import errno
import logging
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from crony.domain.masking import Mask
from crony.domain.stamps import Source, pieces, unpack
from crony.errors import Invalid
from crony.settings import Settings
from crony.workers import uploader
from crony.workers.capture import captured
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
    """Of all but the stamps, which lie beside each."""
    return sorted(path.name for path in kept.path.iterdir() if path.suffix != ".stamps")


def streams(kept: Spool) -> list[tuple[int, bytes]]:
    """What lies there of the one attempt, and by which stream it came."""
    (path,) = (kept.path / name for name in names(kept))
    piece = parse(path.name)
    assert piece is not None
    stamps = unpack((kept.path / piece.stamps).read_bytes())
    return [(each.source, each.data) for each in pieces(path.read_bytes(), stamps)]


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
    monkeypatch.setattr("crony.workers.output.TAIL", 50)
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


def test_streams_and_times_are_kept_beside_the_bytes(tmp_path: Path) -> None:
    kept = spool(settings(tmp_path, output_limit=40))
    output, began = kept.open(RUN, 1, "i1"), time.time()
    output.write(b"a")
    output.write(b"b")
    output.write(b"oops\n", Source.STDERR)
    output.text("a note")
    output.write(b"c" * 28 + b"over", Source.LOG)
    output.write(b" it", Source.STDERR)
    output.close()
    cut = b"\n[crony: output cut here, more than 40 bytes; its end comes when it is over]\n"
    assert streams(kept) == [
        (Source.STDOUT, b"ab"), (Source.STDERR, b"oops\n"), (Source.CRONY, b"a note\n"), (Source.LOG, b"c" * 26),
        (Source.CRONY, cut), (Source.LOG, b"ccover"), (Source.STDERR, b" it"),
    ]  # fmt: skip
    stamps = unpack((kept.path / f"{RUN}~1~i1.stamps").read_bytes())
    assert all(began - 1 < stamp.time / 1000 < time.time() + 1 for stamp in stamps)


def test_a_secret_is_masked_though_the_other_stream_cuts_it(tmp_path: Path) -> None:
    kept = spool(settings(tmp_path))
    output = kept.open(RUN, 1, "i1")
    output.mask(Mask(["sesame-open"]))
    for number, source in enumerate((Source.STDOUT, Source.STDERR, Source.LOG)):
        output.write(b"%d sesa" % number, source)
    for source in (Source.STDOUT, Source.STDERR, Source.LOG):
        output.write(b"me-open.\n", source)
    output.write(b"sesame", Source.STDERR)
    output.close()
    found: dict[int, bytes] = {}
    for source, data in streams(kept):
        found[source] = found.get(source, b"") + data
    assert found == {Source.STDOUT: b"0 ***.\n", Source.STDERR: b"1 ***.\n***", Source.LOG: b"2 ***.\n"}
    (path,) = (kept.path / name for name in names(kept))
    assert b"sesa" not in path.read_bytes()


def test_stamps_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("crony.workers.output.MOST", 10)
    kept = spool(settings(tmp_path))
    output = kept.open(RUN, 1, "i1")
    for number in range(100):
        output.write(b"%02d" % number, (Source.STDOUT, Source.STDERR)[number % 2])
    output.close()
    found = streams(kept)
    assert [source for source, _ in found] == [1, 2, 1, 2, 1, 2, 1, 2, 1, Source.ANY], "from there on nobody knows"
    assert b"".join(data for _, data in found) == b"".join(b"%02d" % number for number in range(100))


@pytest.mark.parametrize(
    "name", ["", ".full", "x.open", f"{RUN}~1~i1.stamps", "a~1.done", "a~b~i.done", "a~1~i.tmp", "a~1~i"]
)
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


def test_that_there_is_no_room_is_logged_beside_the_output_of_a_function_that_logs(tmp_path: Path) -> None:
    kept = spool(settings(tmp_path))
    output = kept.open(RUN, 1, "i1")
    output.write(b"x")
    full = os.open("/dev/full", os.O_WRONLY)
    os.dup2(full, output._file)
    os.close(full)

    def work() -> None:
        with captured(output):
            logging.getLogger("job").error("y")

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    thread.join(20)
    assert not thread.is_alive() and output.truncated, "it does not wait for itself"
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


@pytest.mark.parametrize("old", [False, True])
def test_streams_reach_the_web_in_order_and_an_old_one_gets_the_bytes(tmp_path: Path, old: bool) -> None:
    with ingest(kept=Kept(old=old)) as web:
        told = settings(tmp_path, web.service.url)  # type: ignore[union-attr]
        kept = spool(told)
        output = kept.open(RUN, 1, "i1")
        for _ in range(3):  # chunks of 1000 bytes: they are cut within these
            output.write(b"o" * 700)
            output.write(b"e" * 700, Source.STDERR)
        output.close()
        before = kept.path / f"{RUN}~2~i1.done"
        before.write_bytes(b"of a version before stamps")
        with uploading(kept, told):
            until(lambda: not list(kept.path.iterdir()), what="all is sent")
    assert web.data[RUN, 1] == (b"o" * 700 + b"e" * 700) * 3
    assert web.streams(RUN, 2) == [("", b"of a version before stamps")]
    expected = [("stdout", b"o" * 700), ("stderr", b"e" * 700)] * 3
    assert web.streams(RUN) == ([("", web.data[RUN, 1])] if old else expected)


def test_on_a_full_volume_older_output_makes_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept, real, room = spool(settings(tmp_path)), os.write, 2000

    def write(file: int, data: bytes) -> int:
        """A volume on which so many bytes have place."""
        free = room - sum(path.stat().st_size for path in kept.path.iterdir())
        if free <= 0:
            raise OSError(errno.ENOSPC, "no space left on device")
        return real(file, data[:free])

    monkeypatch.setattr("crony.workers.output.os.write", write)
    for attempt in (1, 2):
        output = kept.open(RUN, attempt, "i1")
        output.write(b"x" * 900)
        output.close()
        os.utime(kept.path / f"{RUN}~{attempt}~i1.done", (attempt, attempt))
    monkeypatch.setattr("crony.workers.spool.RESERVE", 4)
    output = kept.open(RUN, 3, "i1")
    output.write(b"y" * 900)
    assert names(kept) == [f"{RUN}~1~i1.shed", f"{RUN}~2~i1.done", f"{RUN}~3~i1.open"]
    output.write(b"y" * 2000)
    output.close()
    assert names(kept) == [f"{RUN}~1~i1.shed", f"{RUN}~2~i1.shed", f"{RUN}~3~i1.lost"]
    monkeypatch.setattr("crony.workers.output.os.write", real)
    with ingest() as web:
        told = settings(tmp_path, web.service.url)  # type: ignore[union-attr]
        with uploading(kept, told):
            until(lambda: not names(kept), what="all is sent")
    assert web.data[RUN, 1] == web.data[RUN, 2] == uploader.DROPPED
    assert web.data[RUN, 3].startswith(b"y" * 1900) and web.data[RUN, 3].endswith(b"y" + uploader.DROPPED)
    assert all(web.final[RUN, attempt] for attempt in (1, 2, 3)), "each says that not all of it is there"


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
    assert streams(kept) == [(Source.STDOUT, b"half"), (Source.CRONY, b"\nits process died\n")]
    kept.finish(RUN, 9, "i1", note=b"nobody knows it")
