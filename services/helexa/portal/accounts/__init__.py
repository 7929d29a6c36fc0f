# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""The people of a portal: who they are, how they show it, and their API keys."""
