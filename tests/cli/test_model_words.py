# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""`helexa models add`: from words to a configuration that the orchestrator takes."""

import shlex
from pathlib import Path

import pytest

from helexa.cli.models import model_fields
from helexa.cli.parser import command_parser
from helexa.process.settings import SettingsError
from helexa.protocol.messages.models import ModelConfig


def fields(line: str) -> dict[str, object]:
    return model_fields(command_parser("models").parse_args(["add", *shlex.split(line)]))


@pytest.mark.parametrize(
    ("line", "wanted"),
    [
        (
            "m --source hf:org/repo/file.gguf",
            {"backend_kind": "llama_cpp", "source": "hf:org/repo/file.gguf"},
        ),
        (
            "m --source /w.gguf --projector /p.gguf --slots 4 --context 8192 --alias a --alias b",
            {
                "backend_kind": "llama_cpp",
                "source": "/w.gguf",
                "projector": "/p.gguf",
                "slots": 4,
                "context_tokens": 8192,
                "aliases": ["a", "b"],
            },
        ),
        (
            "m --endpoint http://h --upstream-model b --api-key-file /k --no-whole-answers",
            {
                "backend_kind": "openai_proxy",
                "listen_endpoint": "http://h",
                "upstream_model": "b",
                "api_key_file": "/k",
                "whole_answers": False,
            },
        ),
        (
            "m --endpoint http://h/v1 --continuation none",
            {
                "backend_kind": "openai_proxy",
                "listen_endpoint": "http://h/v1",
                "continuation": "none",
            },
        ),
        (
            "m --command 'serve --port ${PORT}' --arg=--fast",
            {
                "backend_kind": "command",
                "command": ["serve", "--port", "${PORT}"],
                "args": ["--fast"],
            },
        ),
        (
            "m --backend vllm --source /w --min-replicas 0 --every-neuron",
            {
                "backend_kind": "vllm",
                "source": "/w",
                "policy": {"min_replicas": 0, "on_every_neuron": True},
            },
        ),
    ],
)
def test_only_what_is_given_is_sent(line: str, wanted: dict[str, object]) -> None:
    found = fields(line)

    assert found == wanted
    assert ModelConfig.model_validate({"model": "m", **found}).model == "m"


def test_a_file_of_this_directory_is_sent_by_its_whole_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "w.gguf").touch()
    monkeypatch.chdir(tmp_path)

    assert fields("m --source w.gguf")["source"] == str(tmp_path / "w.gguf")


@pytest.mark.accepts("CFG-2")
@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("m", "say what to run: --source, --endpoint or --command"),
        ("m --source /w --slots many", "--slots: 'many' is not a whole number of at least 1"),
        ("m --source /w --context 0", "--context: '0' is not a whole number of at least 1"),
    ],
)
def test_a_slip_is_told_before_anything_is_sent(line: str, told: str) -> None:
    with pytest.raises(SettingsError, match=told):
        fields(line)
