"""Our amqtt plugin: the second look at every identity, subscription and publish.

Without an ACL plugin amqtt allows everything (`Broker._topic_filtering`), and without an
authentication plugin of ours it would take anybody (`Broker._authenticate`). `session.Registry`
refuses to start unless exactly this plugin is loaded for both.
"""

import hmac
from dataclasses import dataclass

from amqtt.contexts import Action, BaseContext
from amqtt.plugins.base import BaseAuthPlugin, BaseTopicPlugin
from amqtt.session import Session

from agent.wire import topics
from broker import acl

PATH = "broker.plugin.GatePlugin"


class GatePlugin(BaseAuthPlugin, BaseTopicPlugin):
    """Admits only what the gate vouches for, and only under the device's own topics."""

    @dataclass
    class Config:
        """`proof` is a random word of this process, known to the gate alone."""

        proof: str = ""

    def __init__(self, context: BaseContext) -> None:
        super().__init__(context)
        proof = getattr(context.config, "proof", "")
        if len(proof) < 32:
            raise ValueError("the gate's plugin needs a proof of at least 32 characters")
        self._proof: str = proof

    async def authenticate(self, *, session: Session) -> bool:
        """Only a CONNECT that the gate has rebuilt carries the proof and a device id."""
        return (
            isinstance(session.client_id, str)
            and topics.is_device_id(session.client_id)
            and isinstance(session.username, str)
            and hmac.compare_digest(session.username, self._proof)
            and session.clean_session is True
            and not session.will_flag
        )

    async def topic_filtering(
        self,
        *,
        session: Session | None = None,
        topic: str | None = None,
        action: Action | None = None,
    ) -> bool:
        """Own `dn/` to subscribe and receive, own `up/` to publish; anything unknown is refused."""
        if session is None or not session.client_id or not topic:
            return False
        match action:
            case Action.SUBSCRIBE:
                return acl.may_subscribe(session.client_id, topic)
            case Action.PUBLISH:
                return topics.may_publish(session.client_id, topic)
            case Action.RECEIVE:
                return acl.may_receive(session.client_id, topic)
            case _:
                return False
