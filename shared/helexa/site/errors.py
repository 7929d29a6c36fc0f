# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""What can be wrong with a site on this machine. Each message is one sentence that says what to do.

These errors never cross the bus, so they have no place in the table of wire errors.
"""

from helexa.protocol.errors import HelexaError


class SiteError(HelexaError):
    """The site's files or its server are not usable."""

    code = "site"


class KeyFileError(SiteError):
    """A key or a secret file is missing, malformed, or readable by others."""

    code = "key_file"


class ServerBinaryError(SiteError):
    """There is no usable nats-server program."""

    code = "server_binary"


class ServerStartError(SiteError):
    """The nats-server did not start."""

    code = "server_start"


class DataDirInUseError(SiteError):
    """Another process runs a site on this data directory."""

    code = "data_dir_in_use"


class EnrolledFileError(SiteError):
    """The file of enrolled neurons cannot be read."""

    code = "enrolled_file"


class JoinTokenError(SiteError):
    """The text is not a join token."""

    code = "join_token"


class ReloadError(SiteError):
    """A server refused its new configuration and keeps the old one."""

    code = "reload"
