"""`dacesr analyze`: what the networks see, as tables and figures."""

import typer

analysis = typer.Typer(help="What the networks see, as tables and figures.", no_args_is_help=True)
