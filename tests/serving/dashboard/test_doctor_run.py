"""The checks that the admin page starts: their process ends with the gate."""

import sys

from tailchat_gate.serving.dashboard.doctor_run import DoctorRun


def test_a_process_that_starts_after_the_close_is_killed() -> None:
    """The thread of a run may start its process just when the gate has closed the run."""
    run = DoctorRun(None, lambda: 0.0)
    run.close()

    # A process that would outlast the time limit of this test.
    assert run._output([sys.executable, "-c", "import time; time.sleep(60)"]) == b""
