"""Runs the fuzzers: `python -m fuzz TARGET|all --seconds N`, then `--keep` for what they found."""

import argparse
import subprocess
import sys
from collections.abc import Sequence

from fuzz import corpus
from fuzz.registry import NAMES, load


def main() -> int:
    """Run what the command line asks for; 0 where nothing was found."""
    parser = argparse.ArgumentParser(prog="python -m fuzz", description=__doc__)
    parser.add_argument("target", choices=(*NAMES, "all"), help="which parser; all, in turn")
    parser.add_argument("--seconds", type=int, default=60, help="how long each runs")
    parser.add_argument(
        "--keep",
        action="store_true",
        help="run nothing, but keep in fuzz/corpus what is needed of what runs gathered",
    )
    asked = parser.parse_args()
    names = NAMES if asked.target == "all" else (asked.target,)
    if asked.keep:
        for name in names:
            kept, of = corpus.distil(name, load(name))
            print(f"{name}: {kept} of {of} inputs")
        return 0
    if asked.target == "all":
        return _each_alone(names, asked.seconds)
    run(asked.target, asked.seconds)
    return 0


def _each_alone(names: Sequence[str], seconds: int) -> int:
    """Run each target in a process of its own, because libFuzzer ends the one it runs in."""
    failed = []
    for name in names:
        print(f"== {name}", flush=True)
        command = (sys.executable, "-m", "fuzz", name, "--seconds", str(seconds))
        if subprocess.run(command, check=False, cwd=corpus.ROOT).returncode:  # noqa: S603 - itself
            failed.append(name)
    if failed:
        print(f"found something: {', '.join(failed)}; see {corpus.FINDINGS}")
    return bool(failed)


def run(name: str, seconds: int) -> None:
    """Fuzz one target; libFuzzer ends the process, with an error where it found something."""
    import atheris  # noqa: PLC0415 - an extra, and of use here alone

    with atheris.instrument_imports(include=["tailchat_gate", "fuzz.reference"]):
        target = load(name)
    gathered, seeds = corpus.GATHERED / name, corpus.GATHERED / "seeds" / name
    for folder in (gathered, seeds, corpus.KEPT / name, corpus.FINDINGS):
        folder.mkdir(parents=True, exist_ok=True)
    for number, seed in enumerate(target.seeds):
        (seeds / str(number)).write_bytes(seed)
    words = corpus.GATHERED / "seeds" / f"{name}.dict"
    words.write_text("".join(f'"{_escaped(word)}"\n' for word in target.words), encoding="ascii")
    options = (
        f"-max_total_time={seconds}",
        f"-max_len={corpus.MAX_BYTES}",
        f"-dict={words}",
        f"-artifact_prefix={corpus.FINDINGS}/{name}-",
        "-timeout=10",
        "-print_final_stats=1",
    )
    folders = map(str, (gathered, corpus.KEPT / name, seeds))
    atheris.Setup([sys.argv[0], *options, *folders], target.check)
    atheris.Fuzz()


def _escaped(word: bytes) -> str:
    return "".join(f"\\x{octet:02x}" for octet in word)


if __name__ == "__main__":
    sys.exit(main())
