"""Take the pictures: a home with a day in it, its API, and a browser by day and by night."""

import sys
import tempfile
from contextlib import closing
from pathlib import Path
from typing import Final, get_args

import freezegun

from hal0.access import tokens
from hal0.access.roles import Role
from hal0.db import Database, migrate, prepare_home
from hal0.settings import Settings
from tests.acceptance.house import House
from tests.browser import Scheme, Visitor, chromium
from tests.portrait.day import Day

NAMES: Final = {"light": "page.png", "dark": "page-dark.png"}
HEIGHT: Final = 1070
NOWHERE: Final = "http://127.0.0.1:9"


def main(folder: Path) -> None:
    """Write the pictures into `folder`."""
    freezegun.configure(extend_ignore_list=["anyio", "asyncio", "uvicorn", "huey"])
    for scheme in get_args(Scheme):
        with tempfile.TemporaryDirectory() as home:
            _take(Path(home), scheme, folder / NAMES[scheme])


def _take(folder: Path, scheme: Scheme, picture: Path) -> None:
    with House(folder, NOWHERE) as house, chromium() as browser:
        house.unchecked = "no worker wrote it, and no client was answered"
        token = _furnish(house)
        house.start_api()
        visitor = Visitor(browser, house.url)
        visitor.look(1280, scheme, HEIGHT)
        visitor.sign_in(token)
        visitor.page.goto(f"{house.url}/?filter=state:failed+since:24h")
        visitor.see("#live", "live")
        visitor.page.screenshot(path=picture)
        visitor.leave()


def _furnish(house: House) -> str:
    """Let a day pass in a home; return a token for a writer."""
    settings = Settings(home=house.home, engine_url=NOWHERE)
    prepare_home(settings)
    migrate(settings)
    with closing(Database(settings.database, settings.busy_timeout_s)) as db:
        with db.write() as tx:
            _, text = tokens.create(tx, "laptop", Role.WRITER, "local")
        Day(db).live()
    return text


if __name__ == "__main__":
    main(Path(sys.argv[1]))
