# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
import pytest
from tests.docs.reference import PAGES, REFERENCE


@pytest.mark.accepts("PR-14", "DOC-9")
@pytest.mark.parametrize("name", PAGES)
def test_a_generated_page_says_what_the_code_says(name: str) -> None:
    written = (REFERENCE / name).read_text(encoding="utf-8")
    assert written == PAGES[name](), "the page is old: run `poe docs`"
