# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""What can be wrong with a site on this machine. Each message is one sentence that says what to do.

These errors never cross the bus. A process that meets one at its start ends as for a wrong setting.
"""

from helexa.process.settings import SettingsError


class SiteError(SettingsError):
    """The site's files or its server are not usable."""


class KeyFileError(SiteError):
    """A key or a secret file is missing, malformed, or readable by others."""


class ServerBinaryError(SiteError):
    """There is no usable nats-server program."""


class ServerStartError(SiteError):
    """The nats-server did not start."""


class DataDirInUseError(SiteError):
    """Another process runs a site on this data directory."""


class EnrolledFileError(SiteError):
    """The file of enrolled neurons cannot be read."""


class JoinTokenError(SiteError):
    """The text is not a join token."""


class ReloadError(SiteError):
    """A server refused its new configuration and keeps the old one."""


class NotDurableError(SiteError):
    """A server acknowledges what it does not have on disk yet."""
