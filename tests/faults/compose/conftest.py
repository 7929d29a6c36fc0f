# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""A test that fails shows what the containers said."""

from collections.abc import Generator

import pytest

from .stack import Stack


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    stack = getattr(item, "funcargs", {}).get("stack")
    if report.failed and call.when == "call" and isinstance(stack, Stack):
        report.sections.append(("what the containers said", stack.told()))
    return report
