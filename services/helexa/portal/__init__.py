# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""The portal: the web pages of a site for the people who use it."""
