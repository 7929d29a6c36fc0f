# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""One site's NATS: its servers, their configuration and permissions, and who may join."""
