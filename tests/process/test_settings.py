# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""Settings: what wins, and what a mistake is told."""

from pathlib import Path
from typing import ClassVar

import pytest
from pydantic import Field, SecretStr

from helexa.process.settings import (
    ServiceSettings,
    SettingsError,
    SocketAddress,
    StreamSettings,
    default_data_dir,
    load_settings,
)


class KitchenSettings(ServiceSettings):
    section: ClassVar[str] = "kitchen"

    socket: str = "127.0.0.1:1"
    ovens: int = Field(default=1, ge=1)
    dishes: tuple[str, ...] = ()
    recipe_key: SecretStr | None = None


def write(directory: Path, text: str) -> Path:
    path = directory / "helexa.toml"
    path.write_text(text)
    return path


@pytest.mark.accepts("CFG-1")
def test_each_layer_wins_over_the_one_before_it(tmp_path: Path) -> None:
    file = write(tmp_path, "[kitchen]\novens = 2\n")
    environment = {"HELEXA_KITCHEN_OVENS": "3"}

    default = load_settings(KitchenSettings, environment={})
    from_file = load_settings(KitchenSettings, environment={}, file=file)
    from_environment = load_settings(KitchenSettings, environment=environment, file=file)
    from_flag = load_settings(KitchenSettings, {"ovens": "4"}, environment=environment, file=file)

    layers = [default, from_file, from_environment, from_flag]
    assert [loaded.values.ovens for loaded in layers] == [1, 2, 3, 4]
    assert [loaded.origins["ovens"] for loaded in layers] == [
        "default",
        f"{file}:2",
        "HELEXA_KITCHEN_OVENS",
        "--ovens",
    ]


def test_a_flag_that_was_not_given_changes_nothing() -> None:
    loaded = load_settings(KitchenSettings, {"ovens": None, "dishes": ()}, environment={})

    assert loaded.values.ovens == 1
    assert loaded.origins["dishes"] == "default"


def test_what_all_services_have_may_stand_at_the_top(tmp_path: Path) -> None:
    file = write(tmp_path, 'log_level = "debug"\n[kitchen]\nsocket = "h:2"\n[garden]\nbeds = 3\n')

    loaded = load_settings(KitchenSettings, environment={}, file=file)

    assert loaded.values.log_level == "debug"
    assert loaded.origins["log_level"] == f"{file}:1"
    assert loaded.origins["socket"] == f"{file}:3"


class LarderSettings(StreamSettings):
    section: ClassVar[str] = "larder"


def test_what_some_services_have_in_common_is_set_once(tmp_path: Path) -> None:
    file = write(tmp_path, 'token_storage = "file"\n')
    environment = {"HELEXA_STREAM_REPLICAS": "3"}

    keeps = load_settings(LarderSettings, environment=environment, file=file).values
    keeps_none = load_settings(KitchenSettings, environment=environment, file=file).values

    assert (keeps.stream_replicas, keeps.token_storage) == (3, "file")
    assert "stream_replicas" not in keeps_none.model_fields_set


def test_the_own_table_wins_over_the_top(tmp_path: Path) -> None:
    file = write(tmp_path, 'log_level = "debug"\n[kitchen]\nlog_level = "error"\n')

    assert load_settings(KitchenSettings, environment={}, file=file).values.log_level == "error"


def test_the_own_variable_wins_over_the_shared_and_the_well_known_one() -> None:
    shared = {"NATS_URL": "nats://known", "HELEXA_NATS_URL": "nats://shared"}
    own = shared | {"HELEXA_KITCHEN_NATS_URL": "nats://own"}

    assert load_settings(KitchenSettings, environment=shared).values.nats_url == ("nats://shared",)
    assert load_settings(KitchenSettings, environment=own).values.nats_url == ("nats://own",)


def test_a_well_known_variable_serves_where_ours_is_not_set() -> None:
    loaded = load_settings(KitchenSettings, environment={"NATS_URL": "nats://a,nats://b"})

    assert loaded.values.nats_url == ("nats://a", "nats://b")
    assert loaded.origins["nats_url"] == "NATS_URL"


def test_a_service_setting_has_no_shared_variable() -> None:
    assert load_settings(KitchenSettings, environment={"HELEXA_OVENS": "9"}).values.ovens == 1


def test_the_environment_names_the_file(tmp_path: Path) -> None:
    file = write(tmp_path, "[kitchen]\novens = 7\n")

    loaded = load_settings(KitchenSettings, environment={"HELEXA_CONFIG": str(file)})

    assert loaded.values.ovens == 7


def test_the_file_in_the_working_directory_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, "[kitchen]\novens = 8\n")
    monkeypatch.chdir(tmp_path)

    assert load_settings(KitchenSettings, environment={}).values.ovens == 8


@pytest.mark.accepts("CFG-2")
@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[kitchen]\n\noven = 2\n", "3: unknown setting 'oven'; did you mean 'ovens'?"),
        ("colour = 1\n", "1: unknown setting 'colour'"),
        ("[kitchen]\novens = 0\n", "2: ovens: Input should be greater than or equal to 1"),
        ('# levels\nlog_level = "loud"\n', "2: log_level: is one of debug, info, warning, error"),
    ],
)
def test_a_mistake_in_the_file_is_told_with_its_line(
    tmp_path: Path, text: str, message: str
) -> None:
    file = write(tmp_path, text)

    with pytest.raises(SettingsError) as refused:
        load_settings(KitchenSettings, environment={}, file=file)

    assert str(refused.value).startswith(f"{file}:{message}")
    assert "\n" not in str(refused.value)


@pytest.mark.accepts("CFG-2")
def test_a_file_that_is_no_toml_is_told_with_its_name(tmp_path: Path) -> None:
    file = write(tmp_path, "[kitchen\n")

    with pytest.raises(SettingsError, match=r"helexa\.toml.*line 1"):
        load_settings(KitchenSettings, environment={}, file=file)


def test_a_file_that_is_named_must_exist(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="No such file"):
        load_settings(KitchenSettings, environment={"HELEXA_CONFIG": str(tmp_path / "none.toml")})


@pytest.mark.accepts("CFG-2")
def test_a_mistake_in_the_environment_or_a_flag_is_told_by_its_name() -> None:
    with pytest.raises(SettingsError, match=r"^HELEXA_KITCHEN_OVENS: ovens: "):
        load_settings(KitchenSettings, environment={"HELEXA_KITCHEN_OVENS": "many"})
    with pytest.raises(SettingsError, match=r"^--ovens: ovens: "):
        load_settings(KitchenSettings, {"ovens": "many"}, environment={})


def test_settings_cannot_be_changed_after_they_are_read() -> None:
    settings = load_settings(KitchenSettings, environment={}).values

    with pytest.raises(ValueError, match="frozen"):
        settings.__setattr__("ovens", 5)


def test_a_secret_does_not_show() -> None:
    settings = load_settings(KitchenSettings, {"recipe_key": "hush"}, environment={}).values

    assert "hush" not in repr(settings)


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("127.0.0.1:8080", "127.0.0.1", 8080),
        ("[::1]:0", "::1", 0),
        (":80", "0.0.0.0", 80),
    ],
)
def test_an_address_is_read(text: str, host: str, port: int) -> None:
    address = SocketAddress.parse(text)

    assert (address.host, address.port) == (host, port)


@pytest.mark.accepts("CFG-2")
@pytest.mark.parametrize("text", ["8080", "host", "host:", "host:x", "host:65536", ""])
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(SettingsError, match="is not HOST:PORT"):
        SocketAddress.parse(text)


def test_an_address_knows_whether_others_can_reach_it() -> None:
    assert SocketAddress.parse("127.0.0.1:1").is_loopback
    assert SocketAddress.parse("[::1]:1").is_loopback
    assert not SocketAddress.parse("0.0.0.0:1").is_loopback


def test_state_is_kept_where_the_user_keeps_it() -> None:
    assert default_data_dir({"XDG_DATA_HOME": "/d"}) == Path("/d/helexa")
    assert default_data_dir({"HOME": "/h"}) == Path("/h/.local/share/helexa")
