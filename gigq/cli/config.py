"""`gigq config`: each setting as it is here and now, and where it comes from."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import click

from gigq.cli.command import Shell, command, pass_shell
from gigq.cli.output import jsonable

if TYPE_CHECKING:
    from gigq.config import Setting


@command("config", short_help="Show each setting and its origin.")
@click.option("--schema", is_flag=True, help="Print the JSON schema of gigq.toml instead.")
@pass_shell
def config(shell: Shell, schema: bool) -> None:
    """Show each setting as it is here and now, and where it comes from.

    A flag counts before GIGQ_… in the environment, then gigq.toml or [tool.gigq] of the project, then
    the user's file, then the default. Secrets are shown as ***.
    """
    from gigq import config as settings

    if schema:
        shell.out.document(settings.schema())
        return
    given = {"db": shell.db, "log_format": shell.log_format}
    chosen = [settings.setting(name, given.get(name)) for name in settings.OPTIONS]
    document = {
        "settings": {each.name: {"value": shown(each), "origin": each.origin} for each in chosen},
        "files": [str(path) for path in settings.files()],
    }
    rows = [(each.name, _text(shown(each)), each.origin) for each in chosen]
    shell.out.answer(document, lambda: shell.out.table(("Setting", "Value", "From"), rows))


def shown(setting: Setting) -> Any:
    """The value without any secret: also none that stands inside a URL."""
    if isinstance(setting.value, str) and "://" in setting.value and not setting.secret:
        return without_secret(setting.value)
    return jsonable(setting.shown)


def without_secret(url: str) -> str:
    """A URL with its password, and whatever in its query sounds like one, as ***."""
    try:
        parts = urlsplit(url)
        password = parts.password
    except ValueError:  # not a URL after all; whoever uses it says so
        return url.partition("://")[0] + "://***"
    place = parts.netloc
    if password is not None:
        user = place.rpartition("@")[0].partition(":")[0]
        place = f"{user}:***@{place.rpartition('@')[2]}"
    query = "&".join(_pair(pair) for pair in parts.query.split("&"))
    # By hand: urlunsplit leaves slashes out or adds some, as the version of Python has it.
    fragment = f"#{parts.fragment}" if parts.fragment else ""
    return f"{parts.scheme}://{place}{parts.path}{f'?{query}' if query else ''}{fragment}"


_SOUNDS_SECRET = ("pass", "pwd", "secret", "token", "key", "auth", "cred")


def _pair(pair: str) -> str:
    key, equals, _ = pair.partition("=")
    secret = any(word in key.lower() for word in _SOUNDS_SECRET)
    return f"{key}{equals}***" if secret and equals else pair


def _text(value: Any) -> str:
    if value is None:
        return "-"
    return ", ".join(map(str, value)) or "-" if isinstance(value, list) else str(value)
