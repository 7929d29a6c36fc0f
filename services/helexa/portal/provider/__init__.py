# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""The provider's book: what this operator has earned, at which portals, and what is paid of it."""
