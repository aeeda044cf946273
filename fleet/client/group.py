"""How every command of `patency` begins and ends: the reader's language, exit codes, last words."""

import contextlib
import errno
import io
import os
import sys
from collections.abc import Sequence
from typing import Any

import click

from fleet.client import i18n, output
from fleet.client.errors import ClientError, Exit
from fleet.client.i18n import _


class Group(click.Group):
    """Ends with the exit code and the words of a ClientError; no input ends with a traceback."""

    def main(self, args: Sequence[str] | None = None, *rest: Any, **options: Any) -> Any:
        # What a terminal's character set lacks is shown as a question mark, and stops nothing.
        for stream in (sys.stdout, sys.stderr):
            if isinstance(stream, io.TextIOWrapper):
                stream.reconfigure(errors="replace")
        with i18n.speaking():
            return super().main(args, *rest, **options)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        for text in args:
            if any("\ud800" <= c <= "\udfff" for c in text):
                raise click.UsageError(
                    _("{text} is not in UTF-8. Type it again, in a terminal set to UTF-8.").format(
                        text=ascii(text)
                    ),
                    ctx,
                )
        return super().parse_args(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except ClientError as error:
            output.note(f"patency: {error.message}")
            ctx.exit(error.exit)
        except UnicodeError:
            output.note("patency: " + _("What was read is not in UTF-8. Give it in UTF-8."))
            ctx.exit(Exit.USAGE)
        except OSError as error:
            if error.errno == errno.EPIPE:  # whoever read our output has left: click's to end
                raise
            output.note("patency: " + _told(error))
            ctx.exit(Exit.FAILED)
        except KeyboardInterrupt:
            self._interrupted(ctx)
        except click.Abort as abort:
            if not isinstance(abort.__context__, EOFError):
                self._interrupted(ctx)
            output.note("patency: " + _("The input ended before the question was answered."))
            ctx.exit(Exit.FAILED)

    @staticmethod
    def _interrupted(ctx: click.Context) -> None:
        output.note(_("Interrupted."))
        ctx.exit(Exit.INTERRUPTED)


def _told(error: OSError) -> str:
    why = error.strerror or str(error)
    if error.filename is None:
        return _("The system does not do it: {error}.").format(error=why)
    with contextlib.suppress(TypeError, ValueError):
        return _("{path} cannot be used: {error}. Choose another, or make it yours.").format(
            path=os.fsdecode(error.filename), error=why
        )
    return why
