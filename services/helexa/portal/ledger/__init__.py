# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""The ledger: what a portal owes to whom, as a chain of blocks of balanced entries."""
