# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from openai import AsyncOpenAI
from tests.site_up.site import RunningSite, site_up


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def site(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[RunningSite]:
    """One site for the tests of a module that leave it as they found it."""
    async with site_up(tmp_path_factory.mktemp("site")) as running:
        yield running


@pytest_asyncio.fixture(loop_scope="module")
async def client(site: RunningSite) -> AsyncIterator[AsyncOpenAI]:
    async with AsyncOpenAI(base_url=site.base_url, api_key="none", max_retries=0) as made:
        yield made
