"""HTTP CONNECT as a codec: what is asked, and whatever a proxy may answer (R-CON-7)."""

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.network import connect
from agent.network.connect import MAX_HEAD, Answer, BadAnswer, Reader

tokens = st.text(
    st.characters(min_codepoint=33, max_codepoint=126, exclude_characters=":"),
    min_size=1,
    max_size=20,
)
values = st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=40)


def fed(data: bytes, cuts: list[int]) -> Answer | None:
    """Feed `data` in pieces; the answer, which must not come before the last piece."""
    reader = Reader()
    at = 0
    for cut in sorted({min(c, len(data)) for c in cuts} | {len(data)}):
        answer = reader.feed(data[at:cut])
        at = cut
        if answer is not None:
            assert cut == len(data)
            return answer
    return None


def test_what_is_asked() -> None:
    assert connect.request("one.example", 443) == (
        b"CONNECT one.example:443 HTTP/1.1\r\nHost: one.example:443\r\n\r\n"
    )
    assert connect.request("2001:db8::1", 443).startswith(b"CONNECT [2001:db8::1]:443 HTTP/1.1\r\n")


@given(
    st.text(st.characters(exclude_characters=":", exclude_categories=["Cs"]), min_size=1),
    st.text(st.characters(exclude_categories=["Cs"])),
)
def test_credentials_read_back_and_add_no_header(user: str, password: str) -> None:
    """RFC 7617: whatever the password holds, the request has the same lines."""
    asked = connect.request("one.example", 443, user, password)
    lines = asked.split(b"\r\n")
    assert len(lines) == 5
    assert lines[3:] == [b"", b""]
    token = lines[2].removeprefix(b"Proxy-Authorization: Basic ")
    assert base64.b64decode(token).decode() == f"{user}:{password}"


@pytest.mark.parametrize("host", ["one example", "one\r\nX: y", "ö.example", "one\x00"])
def test_a_host_that_would_break_the_request_is_refused(host: str) -> None:
    with pytest.raises(ValueError, match="host"):
        connect.request(host, 443)


def test_a_user_with_a_colon_is_refused() -> None:
    with pytest.raises(ValueError, match="colon"):
        connect.request("one.example", 443, "a:b", "c")


@given(
    st.integers(200, 999),
    values,
    st.lists(st.tuples(tokens, values), max_size=6),
    st.lists(st.integers(0, 200), max_size=8),
)
def test_an_answer_in_any_pieces(
    status: int, phrase: str, headers: list[tuple[str, str]], cuts: list[int]
) -> None:
    head = f"HTTP/1.1 {status} {phrase}\r\n" + "".join(f"{n}: {v}\r\n" for n, v in headers)
    answer = fed(head.encode() + b"\r\n", cuts)
    assert answer is not None
    assert answer.status == status
    assert answer.open is (status < 300)


@given(st.binary(max_size=400), st.lists(st.integers(0, 400), max_size=6))
def test_whatever_comes_gives_an_answer_a_wait_or_a_bad_answer(
    data: bytes, cuts: list[int]
) -> None:
    for start in (b"", b"HTTP/1.1 ", b"HTTP/1.1 200 OK\r\n"):
        reader, at = Reader(), 0
        whole = start + data
        for cut in sorted({*cuts, len(whole)}):
            try:
                answer = reader.feed(whole[at:cut])
            except BadAnswer:
                break
            at = cut
            if answer is not None:
                assert b"\r\n\r\n" in whole
                assert 200 <= answer.status <= 999
                break


@pytest.mark.parametrize(
    "data",
    [
        b"\x16\x03\x01",
        b"SSH-2.0-x\r\n",
        b"HTTP/2 200\r\n\r\n",
        b"HTTP/1.1 OK\r\n\r\n",
        b"HTTP/1.1 2000 OK\r\n\r\n",
        b"HTTP/1.1 099 OK\r\n\r\n",
        b"HTTP/1.1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nno colon\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n\r\n\x16",  # TLS lets the client speak first
        b"HTTP/1.1 200 OK\r\n" + b"X: " + bytes(MAX_HEAD),
        b"HTTP/1.1 100 Continue\r\n\r\n" * (MAX_HEAD // 25 + 1),
    ],
)
def test_what_is_no_answer_is_refused(data: bytes) -> None:
    with pytest.raises(BadAnswer):
        Reader().feed(data)


def test_an_endless_answer_is_cut_at_the_bound() -> None:
    reader, fed = Reader(), 0
    reader.feed(b"HTTP/1.1 200 OK\r\n")
    with pytest.raises(BadAnswer, match="too long"):
        while True:
            reader.feed(b"X: y\r\n" * 100)
            fed += 600
            assert fed <= MAX_HEAD


def test_an_interim_answer_is_passed_over() -> None:
    answer = Reader().feed(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n\r\n")
    assert answer == Answer(200)


def test_what_a_refusal_offers_is_kept() -> None:
    answer = Reader().feed(
        b"HTTP/1.1 407 No\r\nProxy-Authenticate: NT\x1bLM\r\nproxy-authenticate: Basic realm=x\r\n"
        b"Date: Tue, 24 Nov 2026 15:00:00 GMT\r\n\r\n<html>why</html>"
    )
    assert answer == Answer(407, ("ntlm", "basic"), "Tue, 24 Nov 2026 15:00:00 GMT")
