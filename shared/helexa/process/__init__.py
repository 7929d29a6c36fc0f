# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""What every process does alike: settings, logs, signals, health, HTTP, metrics."""
