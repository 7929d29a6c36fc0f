# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""Receipts, claims and settlements: how they are signed, read, chained and checked, without I/O."""
