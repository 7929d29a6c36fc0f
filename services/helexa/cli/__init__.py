# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""The `helexa` command: it parses, loads settings and delegates."""
