# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""The gateway: OpenAI's HTTP API in front of the mesh, and the life of each request."""
