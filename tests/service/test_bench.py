"""The measuring itself: another process's CPU is read to the nanosecond, whatever became of its threads."""

import subprocess
import sys

from service.bench import Row, server_cpu

_WORK = """
import sys, threading, time

def work():
    while time.thread_time() < 0.05:
        pass

thread = threading.Thread(target=work)
thread.start()
thread.join()
print(time.process_time(), flush=True)
sys.stdin.read()
"""


def test_cpu_of_another_process_counts_threads_that_have_ended() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", _WORK], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None
        own = float(other.stdout.readline())
        told = server_cpu(other.pid)
        assert other.stdin is not None
        other.stdin.close()
    assert own >= 0.05
    assert own <= told < own + 0.05  # the print and the wait for its input are all that came after
    assert round(told * 1e9) % 10_000_000 != 0  # finer than a tick of 10 ms


def test_a_row_without_a_floor_has_no_ratio_and_one_with_a_floor_has() -> None:
    assert Row("x", 3.0, "µs").ratio is None
    assert Row("x", 3.0, "µs", 2.0, "y").ratio == 1.5
    assert Row("x", 0.0, "µs", 2.0, "y").ratio == 0.0
