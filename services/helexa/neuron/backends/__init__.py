# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""Model runtimes behind one interface, an adapter each."""
