"""Runs the command line: as a program, or in this process if that makes no difference to a test."""

import asyncio
import os
import sys

from click.testing import CliRunner

from tailchat_gate.cli import main

GATE = (sys.executable, "-W", "error", "-m", "tailchat_gate")


def gate_after(program: str) -> tuple[str, ...]:
    """Return the command of a gate that runs a Python program first, which changes its parts."""
    begin = "from tailchat_gate.cli import main\nmain()\n"
    return sys.executable, "-W", "error", "-c", f"{program}\n{begin}"


def environ() -> dict[str, str]:
    """Return the environment without variables of the gate's."""
    return {
        name: value for name, value in os.environ.items() if not name.startswith("TAILCHAT_GATE_")
    }


async def run(*arguments: str) -> tuple[int, str, str]:
    """Run a command; return its exit code, output and errors."""
    process = await asyncio.create_subprocess_exec(
        *GATE,
        *arguments,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=environ(),
    )
    out, err = await process.communicate()
    return process.returncode or 0, out.decode(), err.decode()


def invoke(*arguments: str) -> tuple[int, str, str]:
    """Run a command in this process, with the results of `run`."""
    unset = dict.fromkeys(os.environ.keys() - environ().keys())
    done = CliRunner().invoke(main, arguments, env=unset, catch_exceptions=False)
    return done.exit_code, done.stdout, done.stderr
