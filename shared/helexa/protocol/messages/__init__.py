# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""Wire types, one module a topic."""
