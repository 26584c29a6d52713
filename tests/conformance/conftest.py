"""The planes that the cases run on, and an HTTP server that they call."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.embedded.postgres import EmbeddedPostgres
from app.local import local_plane
from app.settings import load
from app.tools.child.launcher import launcher
from app.tools.duck.databases import databases
from app.tools.pg.connections import connections
from app.tools.web.transport import close as close_http
from tests.conformance.case import Case, all_cases
from tests.conformance.real import Local, Served
from tests.system.plane import System, readable_home
from tests.tools.server import running


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """One test per case: ``case`` is one that runs, ``refused`` one that does not even start."""
    for name, refused in (("case", False), ("refused", True)):
        if name in metafunc.fixturenames:
            found = [case for case in all_cases() if case.refused is refused]
            metafunc.parametrize(name, found, ids=[case.name for case in found])


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with running() as http:
        yield http.url


@pytest.fixture(scope="module")
def local(postgres_server: EmbeddedPostgres, server: str) -> Iterator[Local]:
    """One process; its warehouse is real."""
    secrets = {"warehouse": postgres_server.warehouse_url}
    with tempfile.TemporaryDirectory(prefix="cb-") as home:
        settings = load({}, home=readable_home(Path(home))).settings
        with local_plane(settings, secrets=secrets) as (control, _, ports):
            yield Local(control, ports, server)
        for kept in (launcher, connections, databases):
            kept.close()
        close_http()


@pytest.fixture(scope="module")
def served(request: pytest.FixtureRequest, system: System, server: str) -> Served:
    """The servers, with every case that is about to be looked at already on its way."""
    serving = Served(system, server)
    for case in _asked_for(request):
        serving.start(case)
    return serving


def _asked_for(request: pytest.FixtureRequest) -> list[Case]:
    """The cases of this module's tests."""
    items = [item for item in request.session.items if isinstance(item, pytest.Function)]
    calls = [item.callspec for item in items if item.module is request.module]
    found = [call.params.get("case") for call in calls]
    return [case for case in found if isinstance(case, Case)]
