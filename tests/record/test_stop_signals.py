"""SIGTERM and Ctrl-C: the first asks, the second ends the process."""

import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from jaxhpo.record import StopSignals

BUSY = """
import signal, sys, time, zlib
from jaxhpo.record import StopSignals
with StopSignals() as stop:
    print("ready", flush=True)
    while not stop.requested:
        time.sleep(0.01)
    print(stop.requested, flush=True)
    {then}
"""


def start(then):
    return subprocess.Popen(
        [sys.executable, "-c", BUSY.format(then=then)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_the_first_signal_asks_and_the_second_ends_the_process(number, status):
    process = start("time.sleep(60)")
    try:
        assert process.stdout.readline() == "ready\n"
        process.send_signal(number)
        assert process.stdout.readline() == f"{number.name}\n"
        time.sleep(0.1)
        process.send_signal(number)  # part of the same request: launchers send twice
        time.sleep(0.5)
        assert process.poll() is None
        process.send_signal(number)
        sent = time.monotonic()
        assert process.wait(5) == status
        assert time.monotonic() - sent < 2.0
        assert "saving, then stopping" in process.stderr.read()
    finally:
        process.kill()
        process.communicate()


def test_the_second_signal_ends_a_process_that_runs_no_python():
    # one long native call: no Python handler can run until it returns
    process = start("import hashlib; hashlib.pbkdf2_hmac('sha256', b'p', b's', 10**9)")
    try:
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGTERM)
        assert process.stdout.readline() == "SIGTERM\n"
        time.sleep(0.5)
        process.send_signal(signal.SIGTERM)
        assert process.wait(2) == 143
    finally:
        process.kill()
        process.communicate()


def test_the_flag_is_set_in_the_process_and_handlers_are_put_back():
    before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]
    with StopSignals() as stop:
        assert stop.requested is None
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop.requested == "SIGTERM"
    assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)] == before
    assert signal.set_wakeup_fd(-1) == -1
    for thread in threading.enumerate():
        if thread.name == "stop-signals":
            thread.join(2)
            assert not thread.is_alive()


def test_outside_the_main_thread_nothing_is_installed():
    before = signal.getsignal(signal.SIGTERM)
    found = []

    def work():
        with StopSignals() as stop:
            found.append((stop.requested, signal.getsignal(signal.SIGTERM)))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found == [(None, before)]
