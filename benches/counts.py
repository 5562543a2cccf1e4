"""Keeps the instruction counts in counts.json, or compares new ones with those kept there.

A count depends on what compiled the code, on the libc that allocates and copies, and on valgrind, which shows all
processors with the same vector instructions as one. Where one of these is not what it was, the counts say nothing: they
must be recorded again, and the comparison warns instead of failing.
"""

import json
import pathlib
import platform
import subprocess
import sys

KEPT = pathlib.Path(__file__).with_name("counts.json")
RECORD = "benches/counts.sh record"

# A count may grow by this many in a hundred. What one thread does alone repeats to the instruction. At its end a buffer
# has an I/O thread look after its file, and the handing over makes two of the counts vary by about one in a hundred.
BOUND = 2.0


def main(mode, results):
    now = {"made with": made_with(), "instructions": counts(results)}
    if mode == "record":
        KEPT.write_text(json.dumps(now, indent=2) + "\n")
        print(f"recorded in {KEPT.name}")
    elif mode == "compare":
        kept = json.loads(KEPT.read_text())
        grown = compare(kept["instructions"], now["instructions"])
        return judge(kept["made with"], now["made with"], grown)
    else:
        return f"{mode}: neither compare nor record"


def made_with():
    """What a count depends on beside the code."""
    return {
        "rustc": said_by("rustc", "--version"),
        "libc": " ".join(platform.libc_ver()),
        "valgrind": said_by("valgrind", "--version"),
        "machine": platform.machine(),
    }


def said_by(*command):
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def counts(results):
    found = {}
    for path in pathlib.Path(results).rglob("summary.json"):
        summary = json.loads(path.read_text())
        (profile,) = summary["profiles"]
        name = ".".join(filter(None, [summary["function_name"], summary.get("id")]))
        found[name] = profile["data"]["total"]["metrics"]["Ir"]["values"]["new"]
    return dict(sorted(found.items()))


def compare(kept, now):
    """Prints the table; says what has grown too much, and what is on one side only."""
    wrong = []
    for name in sorted(kept.keys() | now.keys()):
        before, after = kept.get(name), now.get(name)
        if before is None or after is None:
            wrong.append(f"{name} is {'not counted any more' if after is None else 'not recorded'}")
            continue
        change = 100 * (after - before) / before
        print(f"{name:32} {before:>12,} -> {after:>12,}  {change:+8.3f} %")
        if change > BOUND:
            wrong.append(f"{name} takes {change:.1f} % more instructions, {BOUND:g} % are allowed")
        elif change < -BOUND:
            print(f"  fewer: `{RECORD}` keeps it so")
    return wrong


def judge(kept, now, wrong):
    changed = [f"{what}: {kept.get(what)}, now {now[what]}" for what in now if kept.get(what) != now[what]]
    if changed:
        print("warning: recorded with another", "; ".join(changed))
        print(f"warning: nothing is compared until `{RECORD}` has been run")
    elif wrong:
        return "\n".join([*wrong, f"Where that is meant: `{RECORD}`"])


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
