# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""The default model: one megabyte that chats, calls tools and names colours on any CPU."""
