"""Byte vectors of the wire: computed here from fixed keys, frozen as JSON beside this file.

Other implementations are checked against the JSON. Once a version of the wire is released, its
vectors do not change; `python -m tests.agent.wire.make_vectors` writes files that do not exist
yet and never replaces one.
"""

import base64
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from agent.wire import chain, challenge, messages, roster, sshsig
from agent.wire.catalogue import Level, ProductLineCode
from agent.wire.frames import FrameType, Header
from agent.wire.mux import Data, Mux, MuxError, Opened
from agent.wire.seal import Role, Seal, derive
from tests.agent.wire import samples

FOLDER = Path(__file__).with_name("vectors")
SESSION = bytes.fromhex(samples.SESSION)
BINDING = bytes(range(32, 64))
CLIENT_KEY = X25519PrivateKey.from_private_bytes(b"\x01" * 32)
DEVICE_KEY = X25519PrivateKey.from_private_bytes(b"\x02" * 32)
SPECIALIST_KEY = Ed25519PrivateKey.from_private_bytes(b"\x03" * 32)
TRUST_KEY = Ed25519PrivateKey.from_private_bytes(b"\x04" * 32)


def seals() -> tuple[Seal, Seal]:
    made = [
        derive(
            private=private,
            peer=peer.public_key().public_bytes_raw(),
            binding=BINDING,
            session=SESSION,
            role=role,
        )
        for private, peer, role in (
            (CLIENT_KEY, DEVICE_KEY, Role.CLIENT),
            (DEVICE_KEY, CLIENT_KEY, Role.DEVICE),
        )
    ]
    return made[0], made[1]


def message_vectors(
    up: Sequence[messages.Up] = samples.FIRST_UP,
    down: Sequence[messages.Message] = samples.FIRST_DOWN,
) -> list[dict[str, Any]]:
    return [
        {
            "direction": direction,
            "type": it.TYPE,
            "version": it.VERSION,
            "payload": messages.encode(it).decode(),
        }
        for direction, them in (("up", up), ("dn", down))
        for it in them
    ]


def server_vectors() -> list[dict[str, Any]]:
    return message_vectors((), samples.SERVERS_DOWN)


def identity_vectors() -> list[dict[str, Any]]:
    return message_vectors(samples.IDENTITY_UP, samples.IDENTITY_DOWN)


def seal_vectors() -> dict[str, Any]:
    client, device = seals()
    return {
        "client_private": CLIENT_KEY.private_bytes_raw().hex(),
        "client_public": CLIENT_KEY.public_key().public_bytes_raw().hex(),
        "device_private": DEVICE_KEY.private_bytes_raw().hex(),
        "device_public": DEVICE_KEY.public_key().public_bytes_raw().hex(),
        "binding": BINDING.hex(),
        "session": SESSION.hex(),
        "frames": [
            {
                "sender": seal.role.value,
                "type": kind.name,
                "stream": stream,
                "number": number,
                "offset": offset,
                "plaintext": text.hex(),
                "frame": seal.close(Header(kind, SESSION, stream, number, offset), text).hex(),
            }
            for seal, kind, stream, number, offset, text in (
                (client, FrameType.OPEN, 65537, 0, 0, bytes.fromhex("0000100000") + b"ssh"),
                (device, FrameType.ACCEPT, 65537, 0, 0, bytes.fromhex("00100000")),
                (client, FrameType.DATA, 65537, 1, 0, b"hello"),
                (device, FrameType.DATA, 2**32 - 1, 2**64 - 1, 2**63, bytes(range(256))),
                (client, FrameType.EOF, 65537, 2, 5, b""),
            )
        ],
    }


def mux_vectors() -> list[dict[str, Any]]:
    """One conversation, frame by frame: open, both directions, credit, half-close, a reset."""
    ours, theirs = seals()
    muxes = {"client": Mux(ours, window=1000), "device": Mux(theirs, window=1000)}
    transcript: list[dict[str, Any]] = []

    def carry() -> None:
        moved = True
        while moved:
            moved = False
            for sender, receiver in (("client", "device"), ("device", "client")):
                while (frame := muxes[sender].next_frame()) is not None:
                    moved = True
                    events = muxes[receiver].receive(frame)
                    transcript.append(
                        {"from": sender, "frame": frame.hex(), "events": [repr(e) for e in events]}
                    )
                    for event in events:
                        if isinstance(event, Opened):
                            muxes[receiver].accept(event.stream)
                        if isinstance(event, Data):
                            muxes[receiver].consumed(event.stream, len(event.data))

    muxes["client"].open(65537, "ssh")
    muxes["client"].open(65538, "bundle", bulk=True)
    carry()
    muxes["client"].send(65537, bytes(range(256)) * 3)
    muxes["device"].send(65538, b"coded")
    carry()
    muxes["client"].end(65537)
    muxes["device"].reset(65538)
    carry()
    muxes["device"].end(65537)
    carry()
    return transcript


def resume_vectors() -> list[dict[str, Any]]:
    """A pipe that loses all it held, twice: an OPEN and its ACCEPT, then data both ways, an EOF and
    a RESET. What is `lost` did not arrive; `again` marks a frame that was sent before."""
    ours, theirs = seals()
    muxes = {"client": Mux(ours, window=1000), "device": Mux(theirs, window=1000)}
    transcript: list[dict[str, Any]] = []
    seen: set[str] = set()

    def send(sender: str, *, lost: bool) -> bool:
        receiver = "device" if sender == "client" else "client"
        moved = False
        while (frame := muxes[sender].next_frame()) is not None:
            moved = True
            step: dict[str, Any] = {"from": sender, "frame": frame.hex(), "lost": lost}
            step["again"] = step["frame"] in seen
            seen.add(step["frame"])
            transcript.append(step)
            if lost:
                continue
            try:
                events = muxes[receiver].receive(frame)
            except MuxError as error:
                step["refused"] = error.code.name
                continue
            step["events"] = [repr(event) for event in events]
            for event in events:
                if isinstance(event, Opened):
                    muxes[receiver].accept(event.stream)
                if isinstance(event, Data):
                    muxes[receiver].consumed(event.stream, len(event.data))
        return moved

    def carry() -> None:
        while send("client", lost=False) | send("device", lost=False):
            pass

    client, device = muxes["client"], muxes["device"]
    client.open(65537, "ssh")
    client.open(65538, "web")
    send("client", lost=False)
    send("device", lost=True)
    client.open(65539, "ssh")
    send("client", lost=True)
    client.resume()
    carry()
    client.send(65537, bytes(range(200)) * 3)
    client.end(65537)
    device.send(65537, b"answer")
    client.reset(65538)
    send("client", lost=True)
    send("device", lost=True)
    device.resume()
    client.resume()
    carry()
    device.end(65537)
    carry()
    return transcript


def challenge_vectors() -> dict[str, Any]:
    data = challenge.encode(
        challenge.Terms(
            session=samples.SESSION,
            request="d2" * 32,
            device=samples.DEVICE,
            specialist="noor",
            level=Level.OS,
            services=["ssh", "web"],
            life_s=1800,
            presence=True,
            boot="b0" * 16,
            nonce="0f" * 32,
            key=DEVICE_KEY.public_key().public_bytes_raw(),
        )
    )
    client = CLIENT_KEY.public_key().public_bytes_raw()
    signed = challenge.to_sign(data, client)
    return {
        "challenge": data.decode(),
        "digest": challenge.digest(data).hex(),
        "code": challenge.code(data),
        "client_key": client.hex(),
        "to_sign": signed.hex(),
        "specialist_private": SPECIALIST_KEY.private_bytes_raw().hex(),
        "specialist_public": SPECIALIST_KEY.public_key().public_bytes_raw().hex(),
        "sshsig": base64.b64encode(sshsig.sign(SPECIALIST_KEY, signed)).decode(),
    }


def trust_vectors() -> dict[str, Any]:
    member = roster.Member(
        id="noor",
        name="Noor Haddad",
        keys=[sshsig.public_blob(SPECIALIST_KEY.public_key().public_bytes_raw())],
        level=Level.OS,
        patient_data=True,
        product_lines=list(ProductLineCode),
        until=samples.AT + 86_400_000,
    )
    data, signature = roster.sign(
        TRUST_KEY,
        roster.Roster(
            version=1, issued_at=samples.AT, expires_at=samples.AT + 604_800_000, members=[member]
        ),
    )
    return {
        "trust_public": TRUST_KEY.public_key().public_bytes_raw().hex(),
        "roster": data.decode(),
        "roster_signature": signature.hex(),
        "audit_public": samples.AUDIT_KEY.public_key().public_bytes_raw().hex(),
        "audit_entry": chain.canonical(samples.ENTRY).decode(),
        "audit_head": chain.canonical(samples.HEAD).decode(),
    }


ALL: dict[str, Callable[[], Any]] = {
    "messages": message_vectors,
    "servers": server_vectors,
    "identity": identity_vectors,
    "seal": seal_vectors,
    "mux": mux_vectors,
    "resume": resume_vectors,
    "challenge": challenge_vectors,
    "trust": trust_vectors,
}


def main() -> None:
    FOLDER.mkdir(exist_ok=True)
    for name, make in ALL.items():
        path = FOLDER / f"{name}.json"
        if path.exists():
            print(f"{path} is frozen")
        else:
            path.write_text(json.dumps(make(), indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
