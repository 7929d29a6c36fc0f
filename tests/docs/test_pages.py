# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""Every code block of the documentation is run."""

import contextlib
import re
import shlex
import threading
import tomllib
from collections.abc import AsyncIterator, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import pytest_asyncio
from tests.docs.pages import (
    INSTALLS,
    ROOT,
    Block,
    Reader,
    blocks_of,
    can_share,
    reading,
    shown_commands,
)
from typing_extensions import override

from helexa.cli.commands import COMMANDS
from helexa.cli.config import KINDS
from helexa.cli.parser import command_parser
from helexa.neuron.tiny.files import model_path
from helexa.process.settings import COMMON_NAMES, load_settings

PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").rglob("*.md")])
RUN = ("sh", "python")
READ = ("toml",)
SHOWN = ("text", "mermaid")
LINK = re.compile(r"\]\((?!https?:|#)([^)#]+)")


def title(page: Path) -> str:
    return str(page.relative_to(ROOT))


@pytest.fixture(scope="module")
def hub() -> Iterator[str]:
    """A model hub on this machine, which has the embedded model under every name."""
    weights = model_path().read_bytes()

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self._answer(b"")

        def do_GET(self) -> None:
            self._answer(weights)

        def _answer(self, body: bytes) -> None:
            self.send_response(200)
            self.send_header("Content-Length", str(len(weights)))
            self.send_header("ETag", '"tiny"')
            self.end_headers()
            self.wfile.write(body)

        @override
        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared(tmp_path_factory: pytest.TempPathFactory, hub: str) -> AsyncIterator[Reader]:
    """One reader for the pages that all begin with the same site: it starts it once."""
    async with reading(tmp_path_factory.mktemp("shared"), hub) as reader:
        yield reader


@pytest.mark.accepts("DOC-2", "DEP-1", "CLI-12")
@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize(
    "page", [page for page in PAGES if any(b.language in RUN for b in blocks_of(page))], ids=title
)
async def test_the_blocks_of_a_page_do_what_they_say(
    page: Path, tmp_path: Path, hub: str, shared: Reader
) -> None:
    own = contextlib.nullcontext(shared) if can_share(page) else reading(tmp_path, hub)
    async with own as reader:
        printed = ""
        for block in blocks_of(page):
            if block.language in RUN:
                printed = await reader.follow(block)
            elif block.language == "text" and printed:
                shown = Block(block.language, reader.localised(block.text), block.line)
                shows(shown, printed, page)


def shows(block: Block, printed: str, page: Path) -> None:
    """Check that what a page shows was printed; three dots stand for anything."""
    for line in block.text.splitlines():
        for part in filter(None, map(str.strip, line.split("..."))):
            assert part in printed, f"{title(page)}:{block.line}: not printed: {part}\n{printed}"


@pytest.mark.parametrize("page", PAGES, ids=title)
def test_a_page_has_no_block_that_nothing_checks(page: Path) -> None:
    for block in blocks_of(page):
        assert block.language in (*RUN, *READ, *SHOWN), f"{title(page)}:{block.line}"
        if block.language == "toml":
            tables = {name for name, table in tomllib.loads(block.text).items() if table}
            assert tables <= {*KINDS, *COMMON_NAMES}, f"{title(page)}:{block.line}"


@pytest.mark.parametrize("page", PAGES, ids=title)
def test_the_settings_that_a_page_shows_are_taken(page: Path, tmp_path: Path) -> None:
    for block in blocks_of(page):
        if block.language == "toml":
            file = tmp_path / "helexa.toml"
            file.write_text(block.text, encoding="utf-8")
            for kind in KINDS.values():
                load_settings(kind, environment={}, file=file)


@pytest.mark.parametrize("page", PAGES, ids=title)
def test_the_commands_that_a_page_shows_are_understood(
    page: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for shown in shown_commands(page):
        words = [word for word in shlex.split(shown)[1:] if word != "…"]
        if words and words[0] in COMMANDS and words != ["models"]:
            with contextlib.suppress(SystemExit):
                command_parser(words[0]).parse_args(words[1:])
            assert not capsys.readouterr().err, f"{title(page)}: {shown}"


@pytest.mark.parametrize("page", PAGES, ids=title)
def test_the_links_of_a_page_lead_somewhere(page: Path) -> None:
    for target in LINK.findall(page.read_text(encoding="utf-8")):
        assert (page.parent / target).exists(), f"{title(page)}: {target}"


@pytest.mark.accepts("DEP-5")
def test_ci_installs_as_the_readme_says() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    installed = INSTALLS.findall(readme)
    assert len(installed) == 2
    ci = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    assert installed[1].removeprefix("python3 ") in ci.replace("--quiet ", "")


ROUTES = ("gateway/routes", "provisioner/api", "neuron/api", "neuron/control", "portal/service")
PATH = re.compile(r'^\s*(?:"|\w+ = "|.*Route\(")(/[\w/{}:.-]*)"', re.MULTILINE)


@pytest.mark.parametrize("module", ROUTES)
def test_every_route_is_in_the_reference(module: str) -> None:
    written = (ROOT / "docs" / "reference" / "http-api.md").read_text(encoding="utf-8")
    code = (ROOT / "services" / "helexa" / f"{module}.py").read_text(encoding="utf-8")
    paths = {path.replace("{id:path}", "{id}") for path in PATH.findall(code)}
    assert paths
    assert {path for path in paths if path not in written} == set()


def test_every_page_is_in_the_index() -> None:
    index = (ROOT / "docs" / "README.md").read_text(encoding="utf-8")
    listed = {(ROOT / "docs" / target).resolve() for target in LINK.findall(index)}
    pages = {page for page in PAGES if "decisions" not in page.parts and page.name != "README.md"}
    assert pages <= listed
