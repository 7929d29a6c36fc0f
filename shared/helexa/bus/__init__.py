# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""The bus: typed requests, events and durable state over NATS; the only code that imports nats."""
