"""Lets `python -m tailchat_gate` be the command line."""

from tailchat_gate.cli import main

main(prog_name="tailchat-gate")
