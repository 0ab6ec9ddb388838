"""Examples of every command: `--help` ends with them, and the reference shows them.

A new command has its line here; `tests/unit/test_cli_examples.py` asks for it, and reads each
example as the command would.
"""

from collections.abc import Mapping, Sequence
from typing import Any

Example = tuple[str, str]
"""What to type, and what that does; the latter may be empty where the former says it."""

EXAMPLES: Mapping[str, Sequence[Example]] = {
    "run": (
        ("sokovan run -- make test", "run it as if there were no scheduler"),
        ("sokovan run --gpu 1 --time 2h -- python train.py", "on one GPU, for two hours at most"),
        ("sokovan run train.toml -- --epochs 3", "as a job file says, with arguments of its own"),
    ),
    "submit": (
        ("sokovan submit --cpu 4 --mem 16G -- python train.py", ""),
        ("sokovan submit --depends-on @ -- python report.py", "after the one submitted last"),
        ("sokovan submit --gpu 1 --print -- python train.py", "print it as a job file"),
        ("sokovan submit --array 0-999%16 -- ./work.sh {index}", "a thousand tasks, 16 at once"),
        ("sokovan submit --param lr=1e-3,1e-4 -- python train.py --lr {lr}", "one for each value"),
    ),
    "ls": (
        ("sokovan ls", "what has not ended"),
        ("sokovan ls --all --name nightly --limit 5", "the five newest of a name"),
        ("sokovan ls --status RUNNING --json", "for programs"),
        ("sokovan ls --sort -priority --limit 10", "those of the highest priority"),
        ("sokovan ls @", "the tasks of the array submitted last"),
    ),
    "show": (("sokovan show @", "the one submitted last"), ("sokovan show xztb", "")),
    "history": (("sokovan history @", "how the one submitted last came to be where it is"),),
    "why": (
        ("sokovan why @", "why it waits, and what would start it now"),
        ("sokovan why --no-suggest @~1", "without looking for what would"),
    ),
    "eta": (("sokovan eta @", ""),),
    "logs": (
        ("sokovan logs -f @", "follow its output to the end"),
        ("sokovan logs --tail 20 --stream stderr @", "the last lines of its stderr"),
        ("sokovan logs xztb_7", "of one task of an array"),
    ),
    "wait": (
        ("sokovan wait @", "until it has ended; exits with its exit code"),
        ("sokovan wait --timeout 1h @ @~1", "both, for an hour at most"),
        ("sokovan wait xztb_0-9", "ten tasks of an array"),
    ),
    "cancel": (
        ("sokovan cancel @", ""),
        ("sokovan cancel --force xztb frx2", "kill two at once"),
    ),
    "edit": (
        ("sokovan edit @ --priority 50", ""),
        ("sokovan edit @ --time 4h --constraint rack=r1", "its time, and where it may go"),
        ("sokovan edit @ --pending-timeout none --no-constraint", "take both back"),
    ),
    "redo": (
        ("sokovan redo @", "the same again"),
        ("sokovan redo xztb --mem 16G --hold", "with more memory, and not yet"),
    ),
    "hold": (("sokovan hold @", "keep it waiting"),),
    "release": (("sokovan release @", ""),),
    "status": (("sokovan status", ""),),
    "top": (
        ("sokovan top", "q leaves"),
        ("sokovan top --once", "print it once"),
    ),
    "agents": (("sokovan agents", ""), ("sokovan agents --json", "with every GPU of each")),
    "agents drain": (("sokovan agents drain left --reason 'new disk'", "what runs there goes on"),),
    "agents undrain": (("sokovan agents undrain left", ""),),
    "agents label": (
        ("sokovan agents label left rack=r1 zone=north", ""),
        ("sokovan agents label left zone-", "take a label away"),
    ),
    "agents remove": (("sokovan agents remove left", "when it will not come back"),),
    "token create": (
        ("sokovan token create ann --label laptop", "it is shown once"),
        ("sokovan token create ci --role read-only --expires 90d", ""),
    ),
    "token ls": (("sokovan token ls --all", "expired and revoked ones, too"),),
    "token revoke": (("sokovan token revoke 7kq2", ""),),
    "audit": (("sokovan audit --user ann --limit 20", "what ann did last"),),
    "events": (
        ("sokovan events -f", "what happens, as it happens"),
        ("sokovan events -f --owner ann --kind session.terminated", "what ends of ann's"),
        ("sokovan events --after 1234 --json", "all that came behind event 1234, for a program"),
    ),
    "webhooks ls": (("sokovan webhooks ls", "and which of them fail, since when and why"),),
    "webhooks add": (
        ("sokovan webhooks add https://example.org/hook --kind session.terminated", ""),
        ("sokovan webhooks add http://127.0.0.1:9000/ --owner ann", "all that happens to ann's"),
    ),
    "webhooks rm": (("sokovan webhooks rm 7kq2mfx3p9ab", ""),),
    "webhooks test": (("sokovan webhooks test 7kq2mfx3p9ab", "send it a message now"),),
    "groups": (("sokovan groups", "what is held, and who waits"),),
    "groups show": (("sokovan groups show default", "its policy, and where each setting is from"),),
    "groups create": (
        ("sokovan groups create night order=drf", "agents and sessions may name it"),
    ),
    "groups set": (
        ("sokovan groups set default order=lifo pending_timeout_s=12h", "at once, and for good"),
        ("sokovan groups set default order=", "as config.toml has it"),
    ),
    "groups rm": (("sokovan groups rm night", "when nothing is left of it"),),
    "up": (
        ("sokovan up", "in the foreground, until Ctrl-C"),
        ("sokovan up --port 7000", ""),
    ),
    "down": (("sokovan down", "sessions go on"),),
    "config": (
        ("sokovan config", "every setting, and where its value comes from"),
        ("sokovan config api", "only those that begin like this"),
    ),
    "doctor": (("sokovan doctor", "what is missing on this machine, and how to mend it"),),
    "sim": (
        ("sokovan sim --seed 7", "replay one world"),
        ("sokovan sim --seeds 0-99", "try a hundred"),
    ),
    "db check": (
        ("sokovan db check", "beside a running server"),
        ("sokovan db check monday.db", "a backup"),
        ("sokovan db check --repair", "with no server running"),
    ),
    "db upgrade": (("sokovan db upgrade", "after a newer version was installed"),),
    "db backup": (("sokovan db backup monday.db", "beside a running server"),),
    "db restore": (
        ("sokovan db restore monday.db", "into a home without sessions"),
        ("sokovan db restore monday.db --force", "in the place of what is there"),
    ),
    "db prune": (
        ("sokovan db prune --older-than 90d --dry-run", "what would go"),
        ("sokovan db prune --older-than 90d", ""),
    ),
    "db move": (
        ("sokovan db move --to postgresql://sokovan@db:5432/sokovan", ""),
        ("sokovan db move --to file", "back into the home"),
    ),
}


def add_examples(app: Any, path: str = "") -> None:
    """Let the help of every command of a Typer application end with its examples."""
    for command in app.registered_commands:
        name = command.name or command.callback.__name__.replace("_", "-")
        command.epilog = _shown(f"{path}{name}")
    for group in app.registered_groups:
        group.epilog = _shown(f"{path}{group.name}")
        add_examples(group.typer_instance, f"{path}{group.name} ")


def lines_of(examples: Sequence[Example]) -> list[str]:
    """Return examples as a shell shows them, each with what it does behind it."""
    width = max((len(typed) for typed, _ in examples), default=0)
    return [f"{typed:{width}}  # {does}" if does else typed for typed, does in examples]


def _shown(path: str) -> str | None:
    """Return the examples of a command as Typer's help takes it: Markdown."""
    found = EXAMPLES.get(path)
    if found is None:
        return None
    lines = (f"- `{typed}`{f' – {does}' if does else ''}" for typed, does in found)
    return "**Examples**\n\n" + "\n".join(lines)
