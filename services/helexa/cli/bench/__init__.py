# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""`helexa bench`: how fast an OpenAI-compatible endpoint answers."""
