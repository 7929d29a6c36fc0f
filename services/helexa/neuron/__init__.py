# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""The agent on a host: runs model backends, measures the hardware and answers for both."""
