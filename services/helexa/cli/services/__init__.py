# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""The commands that run one process of a service in the foreground."""
