# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""Flags made of settings."""

import argparse
from pathlib import Path
from typing import ClassVar

import pytest
from pydantic import SecretStr

from helexa.cli.flags import add_settings_flags, flag_words, settings_flags
from helexa.process.settings import ServiceSettings, SocketAddress, load_settings


class KitchenSettings(ServiceSettings):
    section: ClassVar[str] = "kitchen"

    ovens: int = 1
    dishes: tuple[str, ...] = ()
    open: bool | None = None
    recipe_key: SecretStr | None = None
    shelf: Path | None = None


def parser(*secrets: str) -> argparse.ArgumentParser:
    made = argparse.ArgumentParser()
    add_settings_flags(made, KitchenSettings, secrets=secrets)
    return made


@pytest.mark.parametrize(
    ("words", "given"),
    [
        ([], {}),
        (["--ovens", "2"], {"ovens": "2"}),
        (["--dishes", "a,b", "--dishes", "c"], {"dishes": ("a", "b", "c")}),
        (["--open"], {"open": True}),
        (["--no-open"], {"open": False}),
        (["--shelf", "/x"], {"shelf": "/x"}),
    ],
)
def test_what_is_given_reaches_its_setting(words: list[str], given: dict[str, object]) -> None:
    assert settings_flags(parser().parse_args(words), KitchenSettings) == given


def test_a_value_may_be_kept_whole() -> None:
    arguments = parser().parse_args(["--dishes", "a=1,2"])

    assert settings_flags(arguments, KitchenSettings, whole=("dishes",)) == {"dishes": ("a=1,2",)}


def test_a_secret_has_no_flag_unless_it_is_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parser().parse_args(["--recipe-key", "x"])
    given = settings_flags(parser("recipe_key").parse_args(["--recipe-key", "x"]), KitchenSettings)

    assert given == {"recipe_key": "x"}
    assert "--recipe-key" in capsys.readouterr().err


def test_words_for_a_child_mean_the_same_there() -> None:
    flags: dict[str, object] = {
        "ovens": 3,
        "dishes": ("a", "b"),
        "open": False,
        "shelf": Path("/x"),
        "control_socket": SocketAddress(host="::1", port=9),
        "log_level": None,
    }

    words = flag_words(flags)
    again = settings_flags(parser().parse_args(words), KitchenSettings)
    values = load_settings(KitchenSettings, again, environment={}).values

    assert (values.ovens, values.dishes, values.open) == (3, ("a", "b"), False)
    assert values.shelf == Path("/x")
    assert values.control_socket == "[::1]:9"
