# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""The provisioner: which models are loaded where, kept true to the catalogue and to demand."""
