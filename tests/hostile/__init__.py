"""The portal is the attacker, and no shell and no keystroke gets in (R-ACC-4..8, R-ASR-4).

The whole system stands: portal, gate, TLS, enrolment, both databases; the injector's agent is a
process of its own, with real shells behind its services. The attacker has all of the portal: its
database, the device and server authorities with their keys, its audit key, its code, every message
and frame on the injector's link, and what old sessions left behind. It has neither the trust key
nor a specialist's private key or passkey, nor the injector, nor a PIN.

Each test is one way in, tried in earnest; `stage.stopped` says what stopped it. They prove the
whole where `tests/test_refusals.py` and `tests/agent/access/` prove the parts. `python -m
tests.hostile` tries all of them and prints each with what stopped it.
"""
