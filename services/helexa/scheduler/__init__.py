# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""The scheduler: which neurons serve a request, decided from what neurons and gateways report."""
