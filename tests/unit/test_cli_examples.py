"""Every command has examples, and they can be typed."""

import shlex

import pytest
import typer.main

from sokovan.cli.examples import EXAMPLES
from sokovan.cli.main import app, run
from sokovan.cli.options import Said

COMMAND = typer.main.get_command(app)


def commands(group, path=""):
    """Every command by what is typed for it, groups that do nothing themselves left out."""
    for name, command in group.commands.items():
        inner = hasattr(command, "commands")
        if not command.hidden and not (inner and not command.invoke_without_command):
            yield f"{path}{name}"
        if inner:
            yield from commands(command, f"{path}{name} ")


def test_every_command_has_examples_and_no_other():
    assert set(commands(COMMAND)) == set(EXAMPLES), (
        "say in sokovan/cli/examples.py how one types the new command"
    )


@pytest.mark.parametrize(
    "typed", [typed for examples in EXAMPLES.values() for typed, _ in examples]
)
def test_an_example_is_understood(typed):
    program, *words = shlex.split(typed)
    context = COMMAND.make_context(program, [], resilient_parsing=True, obj=Said())
    command = COMMAND
    while hasattr(command, "commands") and words and words[0] in command.commands:
        command = command.commands[words[0]]
        context = command.make_context(words.pop(0), words, parent=context)

    assert (program, context.command_path.partition(" ")[2] in EXAMPLES) == ("sokovan", True)


def test_help_ends_with_the_examples(capsys):
    assert run(["agents", "drain", "--help"]) == 0

    out = capsys.readouterr().out
    assert out.index("Options") < out.index("sokovan agents drain left --reason 'new disk'")
