# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""The maker of the default model: from our own dialogues to the two GGUF files."""
