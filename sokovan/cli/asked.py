"""What `run` and `submit` are asked for: on the command line, in a job file, or in both."""

import inspect
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property, wraps
from typing import TYPE_CHECKING, Annotated, Any

import typer
import typer.core

from sokovan.cli import exits
from sokovan.cli.session_options import session_options
from sokovan.domain.errors import InvalidRequestError, SokovanError

if TYPE_CHECKING:
    from sokovan.cli.jobfile import Field, JobFile
    from sokovan.client import SessionOptions
    from sokovan.client.fields import ArrayFields
    from sokovan.domain.sessions import DependencyKind

Words = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[JOB.toml] [--] COMMAND...",
        help="What to run, or a job file and, behind it, more options and arguments.",
        show_default=False,
    ),
]
"""The session's own command."""
File = Annotated[
    str | None,
    typer.Option(
        "--file",
        "-f",
        metavar="FILE",
        help="A job file, whatever its name; - is stdin. COMMAND is then its arguments.",
        show_default=False,
    ),
]


class JobCommand(typer.core.TyperCommand):
    """A command whose first word may be a job file: options may then follow it."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Put `--file` before the name of a job file."""
        if not ctx.resilient_parsing:
            given, _, _ = self.make_parser(ctx).parse_args(args=[*args])
            words: Sequence[str] = given.get("words") or ()
            at = len(args) - len(words)
            forced = at > 0 and args[at - 1] == "--"
            if words and not forced and "file" not in given and is_job_file(words[0]):
                args = [*args[:at], "--file", *args[at:]]
        return super().parse_args(ctx, args)


def is_job_file(word: str) -> bool:
    """Say whether a first word is taken for a job file: `*.toml`, and not found as a command."""
    return word.endswith(".toml") and shutil.which(word) is None


class Asked:
    """A session that is asked for. A job file is read when something of it is needed first.

    Args:
        ctx: The command's.
        words: What was typed behind the options: the command, or arguments for a job file's.
        file: The job file, if there is one.
        said: What the command line says, by parameter of `session_options`.
    """

    def __init__(
        self, ctx: typer.Context, words: Sequence[str], file: str | None, said: dict[str, Any]
    ) -> None:
        self._ctx = ctx
        self._words = words
        self._file = file
        self._said = said

    @property
    def command(self) -> list[str]:
        """The session's own command.

        Raises:
            UsageError: There is none.
        """
        if self._job is not None:
            return self._job.full_command(self._words)
        if not self._words:
            raise exits.UsageError(
                f"there is no COMMAND; write `{self._ctx.command_path} -- COMMAND`, or name a job"
                " file",
                field="command",
            )
        return [*self._words]

    def read(
        self,
    ) -> "tuple[SessionOptions, Sequence[tuple[DependencyKind, str]], ArrayFields | None]":
        """Read the options: what the command line says wins over the job file.

        Raises:
            UsageError: One of them makes no sense.
        """
        said = self._merged
        try:
            return session_options(**said)
        except InvalidRequestError as error:
            raise exits.UsageError(self._located(error), field=error.field) from None

    @contextmanager
    def located(self) -> Iterator[None]:
        """Say on which line of the job file stands what the server refuses."""
        try:
            yield
        except SokovanError as error:
            if (field := self._field_of(error.field)) and self._is_from_file(field):
                assert self._job is not None
                error.message = self._job.located(field, None, error.message)
            raise

    def written(self) -> str:
        """Return all of it as a job file."""
        from sokovan.cli.jobfile import written

        return written(self.command, self._merged)

    @cached_property
    def _job(self) -> "JobFile | None":
        if self._file is None:
            return None
        from sokovan.cli.jobfile import read_job

        return read_job(self._file)

    @cached_property
    def _merged(self) -> dict[str, Any]:
        """What is said, by parameter; tables are put together name by name."""
        if self._job is None:
            return self._said
        from sokovan.cli.jobfile import fields

        merged = dict(self._said)
        for field in fields().values():
            if field.parameter in self._job.values:
                mine = self._job.values[field.parameter]
                if not self._is_typed(field.parameter):
                    merged[field.parameter] = mine
                elif field.kind == "table":
                    merged[field.parameter] = [*mine, *merged[field.parameter]]
        return merged

    def _is_typed(self, parameter: str) -> bool:
        source = self._ctx.get_parameter_source(parameter)
        return source is not None and source.name == "COMMANDLINE"

    def _is_from_file(self, field: "Field") -> bool:
        return (
            self._job is not None
            and field.parameter in self._job.values
            and (field.kind == "table" or not self._is_typed(field.parameter))
        )

    def _located(self, error: InvalidRequestError) -> str:
        """Say where an option stands that makes no sense: on which line, or behind which dashes."""
        field = self._field_of(error.field or error.message.partition(":")[0])
        if field is None or self._job is None or not self._is_from_file(field):
            return f"--{error.message}"
        value = self._job.values[field.parameter]
        if not isinstance(value, list):
            return self._job.located(field, None, error.message)
        for number, item in enumerate(value):  # the first that makes no sense by itself
            alone: dict[str, Any] = {field.parameter: [item]}
            try:
                session_options(**alone)
            except InvalidRequestError as again:
                key = item.partition("=")[0] if field.kind == "table" else number
                return self._job.located(field, key, again.message)
        return f"--{error.message}"

    def _field_of(self, name: str | None) -> "Field | None":
        """Return the option that is meant by its own name, or by that of the API's field."""
        from sokovan.cli.jobfile import OF_API, fields

        name = (name or "").removeprefix("session.")
        name = OF_API.get(name, name)
        return fields().get(name.rpartition(".")[2].replace("_", "-"))


def asks_for_a_session(command: Callable[..., int]) -> Callable[..., int]:
    """Give a command the options of a session; it gets what they say as `asked`."""
    own = inspect.signature(command)
    shared = inspect.signature(session_options).parameters
    here = inspect.signature(_words_and_file).parameters

    @wraps(command)
    def wrapped(**given: Any) -> int:
        said = {name: given.pop(name) for name in shared}
        words, file = given.pop("words"), given.pop("file")
        return command(**given, asked=Asked(given["ctx"], words or (), file, said))

    parameters = [
        parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY)
        for parameter in (*here.values(), *own.parameters.values(), *shared.values())
        if parameter.name != "asked"
    ]
    del wrapped.__wrapped__  # Typer is to see the signature below, not the command's own
    wrapped.__signature__ = own.replace(parameters=parameters)  # type: ignore[attr-defined]
    wrapped.__annotations__ = {p.name: p.annotation for p in parameters}
    return wrapped


def _words_and_file(*, words: Words = None, file: File = None) -> None:
    """Hold what every such command takes besides."""
