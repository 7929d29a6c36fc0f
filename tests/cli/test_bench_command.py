# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""`helexa bench` as it is typed: what it prints, what it refuses, how it is stopped."""

import json
import os
import signal
import ssl
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
from tests.cli.conftest import Helexa
from tests.cli.endpoint import (
    FOR_EVER,
    Asked,
    Fake,
    Part,
    answered,
    event,
    fake_endpoint,
    refusal,
    stream,
)

from helexa.cli.ports import free_address

ENDS_WITHIN_S = 60.0


@pytest.fixture
def fake() -> Iterator[Fake]:
    with fake_endpoint() as made:
        yield made


def rows(table: str) -> list[list[str]]:
    return [line.split() for line in table.splitlines() if " at once  " in line]


def test_each_step_is_a_row(helexa: Helexa, fake: Fake) -> None:
    done = helexa(
        *("bench", "--url", fake.url, "--mode", "both"),
        *("--concurrency", "1", "3", "--requests", "5"),
    )

    assert done.returncode == 0
    assert done.stdout.startswith(
        f"tiny at {fake.url}/v1, prompts of 5 tokens, answers of at most 64\n"
    )
    assert [row[:6] for row in rows(done.stdout)] == [
        [clients, "at", "once", "5", "0", "0"] for clients in ("1", "3", "1", "3")
    ]
    assert done.stderr.splitlines() == [
        f"asking {fake.url}/v1 once",
        "streamed, 1 at once",
        "streamed, 3 at once",
        "whole, 1 at once",
        "whole, 3 at once",
    ]
    assert len(fake.asked) == 21


def test_a_program_gets_json_and_nothing_else(helexa: Helexa, fake: Fake) -> None:
    done = helexa(
        *("bench", "--url", f"{fake.url}/v1/", "--json", "--rate", "200", "400"),
        *("--requests", "4", "--model", "other"),
    )

    found = json.loads(done.stdout)
    assert found["model"] == "other"
    assert [(row["rate"], row["answered"]) for row in found["figures"]] == [(200, 4), (400, 4)]
    assert {asked.body["model"] for asked in fake.asked} == {"other"}


def test_the_key_is_read_from_a_file_or_the_environment(
    helexa: Helexa, fake: Fake, tmp_path: Path
) -> None:
    file = tmp_path / "key"
    file.touch(mode=0o600)
    file.write_text("sk-file\n")
    words = ("bench", "--url", fake.url, "--concurrency", "1", "--requests", "1")
    variables = {"HELEXA_CLIENT_KEY": "sk-variable"}

    helexa(*words)
    helexa(*words, environment=variables)
    helexa(*words, "--key-file", str(file), environment=variables)

    keys = [asked.key for asked in fake.asked]
    assert keys[::2] == keys[1::2] == [None, "Bearer sk-variable", "Bearer sk-file"]


def site_file(data: Path, gateways: Sequence[str]) -> None:
    (data / "secrets").mkdir(parents=True, mode=0o700)
    for path, text in (
        (
            data / "site.json",
            json.dumps(
                {
                    "name": "s",
                    "pid": 1,
                    "nats_urls": [],
                    "gateway_url": gateways[0],
                    "gateway_urls": gateways,
                }
            ),
        ),
        (data / "secrets" / "gateway.key", "sk-site"),
    ):
        path.touch(mode=0o600)
        path.write_text(text)


def test_the_key_of_a_site_goes_to_its_own_gateways_only(
    helexa: Helexa, fake: Fake, tmp_path: Path
) -> None:
    site_file(tmp_path / "data", [fake.url, "http://127.0.0.1:9"])
    words = ("bench", "--data-dir", str(tmp_path / "data"), "--concurrency", "1", "--requests", "1")

    helexa(*words)
    helexa(*words, "--url", f"{fake.url}/v1")
    with fake_endpoint() as stranger:
        helexa(*words, "--url", stranger.url)

    assert {asked.key for asked in fake.asked} == {"Bearer sk-site"}
    assert len(fake.asked) == 4
    assert {asked.key for asked in stranger.asked} == {None}


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("--concurrency 0", "--concurrency: '0' is not a whole number of at least 1"),
        ("--concurrency 1 two", "--concurrency: 'two' is not a whole number of at least 1"),
        ("--rate 0", "--rate: '0' is not a number above 0"),
        ("--rate 5 --concurrency 1 2", "--concurrency: with --rate it is the most connections"),
        ("--seconds inf", "--seconds: 'inf' is not a number above 0"),
        ("--prompts 3", "--prompts: needs --prompt-tokens"),
        ("--extra [1]", "--extra: '[1]' is not an object of JSON"),
        ("--mode loud", "invalid choice: 'loud'"),
        ("--url ftp://host", "'ftp://host' is not an address like http://127.0.0.1:8080"),
        ("--url http://host:x", "'http://host:x' is not an address"),
        ("--url https://host --ca-file none", "--ca-file: none holds no certificate"),
        ("", "no gateway is known: start a site with 'helexa up'"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_two(helexa: Helexa, line: str, told: str) -> None:
    done = helexa("bench", *line.split())

    assert done.returncode == 2
    assert done.stdout == ""
    [said] = done.stderr.splitlines()
    assert told in said


def test_nobody_at_home_is_told(helexa: Helexa) -> None:
    url = f"http://{free_address()}"

    done = helexa("bench", "--url", url)

    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == (
        f"helexa: {url}/v1 does not answer (Connection refused); is it up?"
    )


@pytest.mark.parametrize(
    ("reply", "told"),
    [
        (
            refusal(401, "invalid_api_key", "no such key"),
            "says 401 invalid_api_key: no such key; give a key with --key-file",
        ),
        (
            refusal(404, "model_not_found", "no model x"),
            "says 404 model_not_found: no model x; it has tiny, other",
        ),
        (refusal(429, "rate_limited", "later"), "says 429 rate_limited: later"),
        (stream(event("a")), "says stream_cut: the stream ended without its end mark"),
        ([b""], "does not answer (the connection was closed before the answer was whole)"),
        ([b"220 mail ready\r\n"], "does not answer (what came is not HTTP)"),
    ],
)
def test_what_is_wrong_with_the_first_answer_is_one_line(
    helexa: Helexa, reply: Sequence[Part], told: str
) -> None:
    with fake_endpoint(lambda _: reply) as fake:
        fake.models = ("tiny", "other")
        done = helexa("bench", "--url", fake.url, "--model", "x")

    assert done.returncode == 1
    assert done.stdout == ""
    assert told in done.stderr.splitlines()[-1]


def without(*modules: str) -> str:
    """Return what the command says where `modules` are not installed."""
    program = (
        f"import sys; sys.modules.update(dict.fromkeys({modules!r})); "
        "from helexa.cli.__main__ import main; "
        f"sys.exit(main(['bench', '--url', 'http://{free_address()}']))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    return done.stderr.splitlines()[-1]


def test_a_machine_that_only_measures_needs_nothing_of_the_services() -> None:
    assert "Connection refused" in without("starlette", "uvicorn", "httpx", "psutil", "pynvml")


def test_what_is_not_installed_is_told() -> None:
    assert without("httptools") == ("helexa: httptools is missing: pip install 'helexa[bench]'")


def test_an_endpoint_without_models_wants_a_name(helexa: Helexa, fake: Fake) -> None:
    fake.models = ()

    done = helexa("bench", "--url", fake.url)

    assert done.returncode == 1
    assert "lists no model; name one with --model" in done.stderr


def test_refusals_are_shown_and_a_step_without_an_answer_fails(helexa: Helexa) -> None:
    def once(asked: Asked) -> Sequence[Part]:
        return refusal(429, "rate_limited", "later") if asked.number else answered(asked)

    with fake_endpoint(once) as fake:
        done = helexa("bench", "--url", fake.url, "--concurrency", "2", "--requests", "3")

    assert done.returncode == 1
    assert "streamed, 2 at once: 3 refused, 429 rate_limited: later" in done.stdout


class Started:
    """The command as a process of its own."""

    def __init__(self, *words: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "helexa.cli", "bench", *words],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def ended_by(self, number: signal.Signals) -> tuple[int, str, str]:
        """Return the exit code and what was printed, after a signal."""
        os.kill(self.process.pid, number)
        out, err = self.process.communicate(timeout=ENDS_WITHIN_S)
        return self.process.returncode, out, err


def then_hangs(after: int) -> Callable[[Asked], Sequence[Part]]:
    """Answer so many requests, then begin and never end."""
    return lambda asked: (
        answered(asked) if asked.number < after else [*stream(event("a"))[:-1], FOR_EVER]
    )


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stop_prints_what_was_measured_so_far(number: signal.Signals) -> None:
    with fake_endpoint(then_hangs(5)) as fake:
        started = Started("--url", fake.url, "--concurrency", "2", "--seconds", "600")
        fake.until_asked(7)
        code, out, err = started.ended_by(number)

    assert code == 130
    assert "Interrupted: 2 under way, which are not counted." in out
    assert [row[3] for row in rows(out)] == ["4"]
    assert "Traceback" not in err


def test_a_stop_before_the_first_answer_prints_no_figures() -> None:
    with fake_endpoint(then_hangs(0)) as fake:
        started = Started("--url", fake.url)
        fake.until_asked(1)
        code, out, err = started.ended_by(signal.SIGINT)

    assert code == 130
    assert out == ""
    assert err.splitlines()[-1] == "helexa: interrupted before anything was measured"


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A certificate of 127.0.0.1 that it has signed itself, and its key."""
    folder = tmp_path_factory.mktemp("tls")
    file, key = folder / "cert.pem", folder / "key.pem"
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"),
            *("-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1"),
            *("-out", str(file), "-keyout", str(key)),
        ],
        check=True,
        capture_output=True,
    )
    return file, key


@pytest.fixture
def secure(certificate: tuple[Path, Path]) -> Iterator[Fake]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificate)
    with fake_endpoint(tls=context) as made:
        yield made


def test_https_is_measured(helexa: Helexa, secure: Fake, certificate: tuple[Path, Path]) -> None:
    done = helexa(
        *("bench", "--url", secure.url, "--ca-file", str(certificate[0])),
        *("--concurrency", "2", "--requests", "6", "--json"),
    )

    assert done.returncode == 0, done.stderr
    [row] = json.loads(done.stdout)["figures"]
    assert (row["answered"], row["connections"]) == (6, 2)


def test_a_certificate_that_nobody_vouches_for_is_told(helexa: Helexa, secure: Fake) -> None:
    done = helexa("bench", "--url", secure.url)

    assert done.returncode == 1
    told = done.stderr.splitlines()[-1]
    assert "self-signed certificate" in told
    assert "--ca-file" in told
