"""Calls of `dacesr analyze`, as a user makes them."""

from click.testing import Result
from typer.testing import CliRunner

from dacesr.cli import app


def analyze(*arguments: object) -> Result:
    """Call a command with arguments; a traceback fails the test."""
    done = CliRunner().invoke(app, ["analyze", *map(str, arguments)])
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return done


def assert_refused(done: Result, words: str) -> None:
    """The call was wrong, which one sentence tells."""
    assert done.exit_code == 2
    assert done.stderr.startswith("dacesr: ")
    assert words in done.stderr
    assert done.stderr.count("\n") == 1
    assert not done.stdout
