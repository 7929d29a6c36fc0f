# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
"""The neuron's two sockets: the local API and the control endpoint."""

from starlette.applications import Starlette

from helexa.neuron.api import LocalApi, local_app, local_routes, refuse
from helexa.neuron.control import Control
from helexa.neuron.node import Node
from helexa.neuron.settings import NeuronSettings
from helexa.process.health import Readiness
from helexa.process.http import serve_http
from helexa.process.lifecycle import Life
from helexa.process.settings import SettingsError, SocketAddress
from helexa.process.status import status_routes
from helexa.protocol.errors import HelexaError
from helexa.site.files import read_secret
from helexa.site.layout import DataDir


async def serve_endpoints(life: Life, node: Node, settings: NeuronSettings, data: DataDir) -> None:
    """Open the sockets that `settings` name, before anything else can be waited for.

    Raises:
        SettingsError: an address cannot be listened on, or the local API's is not local.
    """
    readiness = Readiness()
    readiness.require("bus", lambda: node.is_connected)
    readiness.require("accepting", lambda: not node.presence.is_draining)
    health = status_routes(readiness, node.metrics)
    local = settings.api_address
    if local is not None:
        if not local.is_loopback:
            raise SettingsError(
                f"--api-socket: {local} can be reached from outside, and this API asks for no "
                "key; use 127.0.0.1"
            )
        app = local_app([*local_routes(LocalApi(node.presence)), *health])
        await life.resources.enter_async_context(serve_http(app, local))
    if settings.control_socket is not None:
        routes = list(health)
        if data.orchestrator_key.exists():
            key = read_secret(data.orchestrator_key)
            routes += Control(node.presence, node.links.values, key).routes()
        control = Starlette(routes=routes, exception_handlers={HelexaError: refuse})
        address = SocketAddress.parse(settings.control_socket)
        await life.resources.enter_async_context(serve_http(control, address))
