"""Prints what a process sees of itself, as a program that is forked or started."""

import json
import os
import sys

from tailchat_gate import cli

place = [os.getppid(), os.getcwd(), sys.path[0], __name__]  # noqa: PTH109 - a text
numbers = sorted(int(name) for name in os.listdir("/proc/self/fd"))  # noqa: PTH208 - numbers
seen = [place, sys.argv, sys.orig_argv[1:], sys.warnoptions, cli.__name__]
with open("/proc/self/cmdline") as file:  # noqa: PTH123 - no other import
    command = file.read()
sys.stdout.write(json.dumps([seen, os.environ.get("A"), os.umask(0o77), numbers, command]))
