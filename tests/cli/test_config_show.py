# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""`helexa config show`: each value and where it came from."""

from pathlib import Path

import pytest
from tests.cli.conftest import Helexa


def row(text: str, name: str) -> list[str]:
    return next(line.split() for line in text.splitlines() if line.split()[:1] == [name])


@pytest.mark.accepts("CFG-1")
def test_one_setting_with_four_values_shows_which_one_wins(helexa: Helexa, tmp_path: Path) -> None:
    shown = [helexa("config", "show", "gateway").stdout]
    (tmp_path / "helexa.toml").write_text("[gateway]\nmax_attempts = 4\n")
    shown.append(helexa("config", "show", "gateway").stdout)
    environment = {"HELEXA_GATEWAY_MAX_ATTEMPTS": "5"}
    shown.append(helexa("config", "show", "gateway", environment=environment).stdout)
    words = ("config", "show", "gateway", "--max-attempts", "6")
    shown.append(helexa(*words, environment=environment).stdout)

    assert [row(text, "max_attempts") for text in shown] == [
        ["max_attempts", "3", "default"],
        ["max_attempts", "4", "helexa.toml:2"],
        ["max_attempts", "5", "HELEXA_GATEWAY_MAX_ATTEMPTS"],
        ["max_attempts", "6", "--max-attempts"],
    ]


def test_all_services_are_shown_without_a_name(helexa: Helexa) -> None:
    done = helexa("config", "show")

    sections = [line for line in done.stdout.splitlines() if line.startswith("[")]
    assert sections == [
        "[gateway]",
        "[scheduler]",
        "[provisioner]",
        "[portal]",
        "[neuron]",
        "[client]",
    ]


def test_secrets_stay_hidden(helexa: Helexa) -> None:
    environment = {"HELEXA_PROVISIONER_API_KEY": "sk-hx-hush", "HF_TOKEN": "hf_hush"}

    done = helexa("config", "show", environment=environment)

    assert "hush" not in done.stdout + done.stderr
    assert row(done.stdout, "api_key") == ["api_key", "(secret)", "HELEXA_PROVISIONER_API_KEY"]


def test_a_list_is_shown_as_it_is_given(helexa: Helexa) -> None:
    words = ("--socket", "127.0.0.1:1", "--socket", "127.0.0.1:2")

    done = helexa("config", "show", "portal", *words)

    assert row(done.stdout, "socket") == ["socket", "127.0.0.1:1,127.0.0.1:2", "--socket"]
