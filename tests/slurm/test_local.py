import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import TIMEOUT_SECONDS

from slurm import local
from slurm.local import run_processes
from slurm.signals import SignalHandler


def python(code):
    return [sys.executable, "-c", code]


def has_ended(pid, seconds=TIMEOUT_SECONDS):
    """Whether a process ends within the time; a zombie has ended."""
    for _ in range(int(seconds / 0.1)):
        try:
            if Path(f"/proc/{pid}/stat").read_text().split()[2] == "Z":
                return True
        except FileNotFoundError:
            return True
        time.sleep(0.1)
    return False


def test_each_process_gets_its_rank_and_the_number_of_processes(tmp_path):
    code = (
        f"import os; open(f'{tmp_path}/' + os.environ['RANK'], 'w').write(os.environ['WORLD_SIZE'] "
        "+ os.environ['LOCAL_RANK'])"
    )
    assert run_processes(python(code), 3) == 0
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {
        "0": "30",
        "1": "31",
        "2": "32",
    }


def test_one_failure_ends_all_processes_and_gives_the_exit_code():
    begun = time.monotonic()
    assert (
        run_processes(
            python(
                "import os, sys, time; sys.exit(7) if os.environ['RANK'] == '1' else "
                "time.sleep(1200)"
            ),
            2,
        )
        == 7
    )
    assert time.monotonic() - begun < TIMEOUT_SECONDS


def test_a_process_that_is_killed_by_a_signal_is_named_by_its_rank(capfd):
    code = (
        "import os, time; os.environ['RANK'] == '1' and os.kill(os.getpid(), 9); time.sleep(1200)"
    )
    assert run_processes(python(code), 2) == 137
    message = capfd.readouterr().err
    assert message.endswith(": rank 1: ended by signal 9 (Killed): too little memory, perhaps\n")


def test_a_process_that_ignores_sigterm_is_killed(monkeypatch):
    monkeypatch.setattr(local, "GRACE_SECONDS", 1.0)
    stubborn = (
        "import os, signal, sys, time; signal.signal(15, signal.SIG_IGN); time.sleep(2);"
        "sys.exit(3) if os.environ['RANK'] == '0' else time.sleep(1200)"
    )
    begun = time.monotonic()
    assert run_processes(python(stubborn), 2) == 3
    assert time.monotonic() - begun < TIMEOUT_SECONDS


def test_when_the_parent_is_killed_its_processes_end(tmp_path):
    child = (
        "import os, time; from slurm.local import die_with_parent; die_with_parent();"
        f"open('{tmp_path}/' + os.environ['RANK'], 'w').write(str(os.getpid())); time.sleep(1200)"
    )
    parent = subprocess.Popen(
        python(
            "import sys; from slurm.local import run_processes; run_processes([sys.executable, "
            f"'-c', {child!r}], 2)"
        )
    )
    while len([p for p in tmp_path.iterdir() if p.read_text()]) < 2:
        time.sleep(0.05)
    parent.kill()
    parent.wait()
    assert all(has_ended(int(path.read_text())) for path in tmp_path.iterdir())


def test_an_interrupt_during_imports_is_raised_once_processes_are_ready(tmp_path):
    child = (
        "import os, signal, time; from pathlib import Path\n"
        "from slurm.local import die_with_parent\n"
        # a shell starts background processes with SIGINT ignored, which is inherited
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        f"Path('{tmp_path}', os.environ['RANK']).touch()\n"
        f"while not Path('{tmp_path}/ready').exists(): time.sleep(0.01)\n"
        "try: die_with_parent(); time.sleep(1200)\n"
        "except KeyboardInterrupt: print('interrupted'); raise SystemExit(130)"
    )
    code = (
        "import sys; from slurm.local import run_processes; "
        f"sys.exit(run_processes([sys.executable, '-c', {child!r}], 2))"
    )
    parent = subprocess.Popen(
        python(code), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    while len(list(tmp_path.iterdir())) < 2:
        time.sleep(0.05)
    parent.send_signal(signal.SIGINT)
    time.sleep(0.5)  # time for the signal to be passed on
    (tmp_path / "ready").touch()
    output = parent.communicate(timeout=TIMEOUT_SECONDS)[0]
    assert (output, parent.returncode) == ("interrupted\n" * 2, 130)


def test_a_process_whose_parent_has_already_died_exits(monkeypatch):
    monkeypatch.setenv(local.PARENT, "1" if os.getpid() != 1 else "2")
    code = "from slurm.local import die_with_parent; die_with_parent(); print('trains on')"
    orphan = subprocess.run(python(code), capture_output=True, text=True)
    assert (orphan.returncode, orphan.stdout) == (143, "")


def test_a_signal_sets_the_flag_and_a_later_sigint_raises():
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    with SignalHandler() as flag:
        assert (flag(), flag.exit_code) == (False, 0)
        os.kill(os.getpid(), signal.SIGTERM)
        assert (flag(), flag.exit_code) == (True, 143)
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(1)
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before


def test_the_exit_code_of_a_users_mistake_takes_precedence():
    assert run_processes(python("import os, sys; sys.exit(1 + int(os.environ['RANK']))"), 2) == 2
