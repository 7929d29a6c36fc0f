# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""What travels: wire types, subjects, errors and the rules for reading frames. No I/O."""
