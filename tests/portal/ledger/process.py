# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""One replica as a process, to be killed: `python -m tests.portal.ledger.process URL DIR NAME`."""

import asyncio
import sys
from pathlib import Path

from tests.portal.ledger.site import living


async def main(url: str, directory: str, instance: str) -> None:
    async with living(url, Path(directory), instance):
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:4]))
