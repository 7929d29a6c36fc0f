# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""Which key a command sends where."""

import argparse

import pytest

from helexa.cli.reach import add_reach_arguments, gateway_address
from helexa.process.settings import default_data_dir
from helexa.site.files import write_secret
from helexa.site.layout import DataDir, SiteFile

OWN = "http://198.51.100.7:8080"


@pytest.fixture
def site() -> DataDir:
    data = DataDir(default_data_dir())
    data.create()
    write_secret(data.gateway_key, "sk-own\n")
    SiteFile(name="home", pid=1, nats_urls=(), gateway_url=OWN).save(data.site_file)
    return data


def address(*words: str) -> tuple[str, str | None]:
    parser = argparse.ArgumentParser()
    add_reach_arguments(parser)
    return gateway_address(parser.parse_args(words))


@pytest.mark.usefixtures("site")
@pytest.mark.parametrize(
    "url", [OWN, f"{OWN}/", "http://127.0.0.1:8081", "http://localhost:1", "http://[::1]:8080"]
)
def test_the_key_of_a_site_goes_to_its_gateway_and_to_this_machine(url: str) -> None:
    assert address("--gateway-url", url) == (url.rstrip("/"), "sk-own")


@pytest.mark.usefixtures("site")
@pytest.mark.parametrize("url", ["http://203.0.113.5:8080", "https://localhost.example"])
def test_a_foreign_address_gets_no_key_but_the_one_that_is_given(url: str) -> None:
    assert address("--gateway-url", url) == (url, None)
    assert address("--gateway-url", url, "--key", "sk-theirs") == (url, "sk-theirs")


def test_who_names_the_site_too_means_its_key(site: DataDir) -> None:
    url = "http://203.0.113.5:8080"
    assert address("--gateway-url", url, "--data-dir", str(site.path)) == (url, "sk-own")
