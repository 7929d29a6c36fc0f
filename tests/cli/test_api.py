# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""Commands ask a site's APIs over real HTTP, and tell what goes wrong in one sentence."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from typing_extensions import override

from helexa.cli.api import AnswerError, Api, segment
from helexa.cli.chat import Conversation
from helexa.cli.loading import show_loading
from helexa.cli.ports import free_address
from helexa.cli.views import LoadStatus, ModelList
from helexa.process.settings import SettingsError
from helexa.protocol.errors import UnavailableError

Reply = tuple[int, str, str]
JSON, STREAM = "application/json", "text/event-stream"


class Site:
    """Answers each request with the next reply, and notes what was asked."""

    def __init__(self) -> None:
        self.replies: list[Reply] = []
        self.asked: list[tuple[str, str, str | None, object]] = []
        site = self

        class Handler(BaseHTTPRequestHandler):
            def answer(self) -> None:
                body = self.rfile.read(int(self.headers.get("content-length", 0)))
                key = self.headers.get("authorization")
                asked = (self.command, self.path, key, json.loads(body) if body else None)
                site.asked.append(asked)
                status, kind, text = site.replies.pop(0)
                self.send_response(status)
                self.send_header("content-type", kind)
                self.end_headers()
                self.wfile.write(text.encode())

            do_GET = do_POST = do_PUT = do_DELETE = answer  # noqa: N815 - the names it looks for

            @override
            def log_message(self, format: str, *args: object) -> None:
                del format, args

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    def says(self, *replies: Reply) -> None:
        self.replies += replies


@pytest.fixture
def site() -> Iterator[Site]:
    made = Site()
    thread = threading.Thread(target=made.server.serve_forever, args=(0.01,))
    thread.start()
    yield made
    made.server.shutdown()
    thread.join()
    made.server.server_close()


@pytest.fixture
def api(site: Site) -> Api:
    return Api("the orchestrator", site.url, "sk-hx-key")


def event(text: str) -> str:
    return "data: " + json.dumps({"choices": [{"delta": {"content": text}}]}) + "\n\n"


def test_a_request_carries_the_key_and_the_body(site: Site, api: Api) -> None:
    site.says((200, JSON, '{"a": 1}'))

    answer = api.call("PUT", "/api/models/x", {"slots": 2})

    assert answer == {"a": 1}
    assert site.asked == [("PUT", "/api/models/x", "Bearer sk-hx-key", {"slots": 2})]


def test_an_empty_answer_is_no_mistake(site: Site, api: Api) -> None:
    site.says((204, JSON, ""))

    assert api.call("DELETE", "/api/models/x") == {}


def test_a_name_is_one_segment_of_a_path() -> None:
    assert segment("org/model name") == "org%2Fmodel%20name"


@pytest.mark.parametrize(
    ("reply", "told"),
    [
        ((404, JSON, '{"error": {"message": "there is no model x"}}'), "there is no model x"),
        ((502, "text/html", "<h1>Bad gateway</h1>"), "answered with status 502"),
        ((200, JSON, "{"), "did not answer with JSON"),
        ((200, JSON, '{"models": 3}'), "in a way that this version does not understand"),
    ],
)
def test_an_answer_that_is_no_success_is_one_sentence(
    site: Site, api: Api, reply: Reply, told: str
) -> None:
    site.says(reply)

    with pytest.raises(AnswerError) as refused:
        api.read("/api/models", ModelList)

    assert told in refused.value.message
    assert "\n" not in refused.value.message


def test_a_site_that_is_not_up_is_told_with_its_address() -> None:
    url = f"http://{free_address()}"

    with pytest.raises(UnavailableError, match=r"does not answer .Connection refused.; is it up"):
        Api("the gateway", url, None).get("/v1/models")


@pytest.mark.parametrize("url", ["127.0.0.1:8080", "ftp://host", "http://"])
def test_what_is_no_address_is_refused(url: str) -> None:
    with pytest.raises(SettingsError, match="is not an address like"):
        Api("the gateway", url, None)


def test_a_conversation_streams_and_remembers(
    site: Site, api: Api, capsys: pytest.CaptureFixture[str]
) -> None:
    done = "data: [DONE]\n\n"
    site.says(
        (200, STREAM, ": keep-alive\n\n" + event("He") + event("llo") + done),
        (200, STREAM, event("Again") + done),
    )
    conversation = Conversation(api, "tiny", system="Be brief.", max_tokens=9)

    conversation.ask("hi")
    conversation.ask("more")

    assert capsys.readouterr().out == "Hello\nAgain\n"
    *_, (_, path, _, body) = site.asked
    assert path == "/v1/chat/completions"
    assert body == {
        "model": "tiny",
        "stream": True,
        "max_tokens": 9,
        "messages": [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "hi"},
            {"role": "assistant", "content": "Hello"},
            {"role": "user", "content": "more"},
        ],
    }


def test_an_answer_that_breaks_off_is_told(site: Site, api: Api) -> None:
    site.says((200, STREAM, event("He")))

    with pytest.raises(UnavailableError, match="broke off"):
        Conversation(api, "tiny").ask("hi")


def test_an_error_inside_an_answer_is_told(site: Site, api: Api) -> None:
    site.says((200, STREAM, event("He") + 'data: {"error": {"message": "lost"}}\n\n'))

    with pytest.raises(AnswerError, match="lost"):
        Conversation(api, "tiny").ask("hi")


def status(state: str, progress: float | None = None, error: str | None = None) -> Reply:
    replica = {"neuron": "n", "state": state, "error": error}
    found = LoadStatus.model_validate({"state": state, "progress": progress, "replicas": [replica]})
    return (200, JSON, found.model_dump_json())


@pytest.mark.accepts("LAB-5")
def test_loading_is_told_step_by_step(
    site: Site, api: Api, capsys: pytest.CaptureFixture[str]
) -> None:
    loading = status("loading", 0.5)
    site.says(status("configured"), loading, loading, status("loading", 0.9), status("loaded"))
    pauses: list[float] = []

    show_loading(api, "tiny", pauses.append)

    assert capsys.readouterr().out.splitlines() == [
        "tiny: configured",
        "tiny: loading 50%",
        "tiny: loading 90%",
        "tiny: loaded",
    ]
    assert pauses == sorted(pauses)
    assert len(pauses) == 4


def test_a_load_that_fails_says_why(site: Site, api: Api) -> None:
    site.says(status("failed", error="no such file"))

    with pytest.raises(AnswerError, match=r"^tiny cannot be loaded: no such file$"):
        show_loading(api, "tiny")
