"""Progress without a terminal, and on one."""

from __future__ import annotations

import io
import time

import pytest

from logitstore.progress import Progress, duration, start


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_line_now_and_then_and_one_at_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    out = io.StringIO()
    with Progress(1000, "img", "dump", stream=out, interval=10) as bar:
        for _ in range(10):
            now[0] += 4
            bar.advance(100, loss="1.5")
    lines = out.getvalue().splitlines()
    assert lines[0] == "dump  300/1,000 img (30%)  25.0 img/s  28s left  loss 1.5"
    assert [line.split()[1] for line in lines] == ["300/1,000", "600/1,000", "900/1,000", "1,000/1,000"]


def test_what_an_earlier_run_did_counts_but_not_for_the_rate(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    with start(lambda total, unit, label: Progress(total, unit, label, quiet=True), 100, "img", done=50) as bar:
        now[0] = 5.0
        bar.advance(10)
        assert bar.line() == "60/100 img (60%)  2.0 img/s  20s left"


def test_unknown_total() -> None:
    with Progress(None, "file", quiet=True) as bar:
        bar.advance(3)
        assert bar.line().startswith("3 file  ")


def test_a_terminal_gets_a_bar() -> None:
    out = Terminal()
    with Progress(10, "img", "train", stream=out) as bar:
        bar.advance(10, loss=2)
        bar.say("epoch 1")
    assert "train: 100%" in out.getvalue() and "epoch 1\n" in out.getvalue()


def test_silence(capsys: pytest.CaptureFixture[str]) -> None:
    with start(None, 10, "img") as bar:
        bar.advance(10)
        bar.say("not shown")
    assert capsys.readouterr() == ("", "")
    with Progress(10, interval=0) as bar:
        bar.say("shown")
        bar.advance(1)
    written = capsys.readouterr()
    assert written.out == "" and written.err.count("\n") == 2


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0s"), (59.4, "59s"), (59.6, "1m00s"), (7500, "2h05m"), (356400, "4d03h"), (-1, "0s")]
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text
