"""Hypothesis strategies made from the message schemas themselves, as plain JSON values."""

import base64
from collections.abc import Iterator
from typing import Any

import msgspec
from hypothesis import strategies as st

JSON = dict[str, Any]


def of(type_: Any) -> st.SearchStrategy[Any]:
    """JSON values that the schema of `type_` allows."""
    info = type_ if isinstance(type_, msgspec.inspect.Type) else msgspec.inspect.type_info(type_)
    make = _MAKERS[type(info)]
    strategy: st.SearchStrategy[Any] = make(info)
    return strategy


def _string(info: Any) -> st.SearchStrategy[str]:
    assert info.pattern is not None
    # JSON cannot carry lone surrogates; patterns of printable text would generate them.
    return st.from_regex(info.pattern).filter(
        lambda text: (
            (info.max_length is None or len(text) <= info.max_length)
            and (info.min_length is None or len(text) >= info.min_length)
            and not any("\ud800" <= character <= "\udfff" for character in text)
        )
    )


def _bytes(info: Any) -> st.SearchStrategy[str]:
    low = info.min_length or 0
    high = min(info.max_length if info.max_length is not None else 64, max(low, 64))
    return st.binary(min_size=low, max_size=high).map(lambda raw: base64.b64encode(raw).decode())


def _integer(info: Any) -> st.SearchStrategy[int]:
    return st.integers(info.ge, info.le)


def _number(info: Any) -> st.SearchStrategy[float]:
    low, high = info.ge if info.ge is not None else info.gt, info.le
    return st.floats(low, high, exclude_min=info.gt is not None, allow_nan=False)


def _list(info: Any) -> st.SearchStrategy[list[Any]]:
    low = info.min_length or 0
    return st.lists(of(info.item_type), min_size=low, max_size=min(info.max_length, low + 2))


def _dict(info: Any) -> st.SearchStrategy[JSON]:
    return st.dictionaries(of(info.key_type), of(info.value_type), max_size=3)


def _struct(info: Any) -> st.SearchStrategy[JSON]:
    required = {f.encode_name: of(f.type) for f in info.fields if f.required}
    optional = {f.encode_name: of(f.type) for f in info.fields if not f.required}
    if info.tag_field:
        required[info.tag_field] = st.just(info.tag)
    return st.fixed_dictionaries(required, optional=optional)


_MAKERS: dict[type, Any] = {
    msgspec.inspect.StrType: _string,
    msgspec.inspect.BytesType: _bytes,
    msgspec.inspect.IntType: _integer,
    msgspec.inspect.FloatType: _number,
    msgspec.inspect.BoolType: lambda info: st.booleans(),
    msgspec.inspect.NoneType: lambda info: st.none(),
    msgspec.inspect.ListType: _list,
    msgspec.inspect.DictType: _dict,
    msgspec.inspect.StructType: _struct,
    msgspec.inspect.EnumType: lambda info: st.sampled_from([e.value for e in info.cls]),
    msgspec.inspect.LiteralType: lambda info: st.sampled_from(info.values),
    msgspec.inspect.UnionType: lambda info: st.one_of(*map(of, info.types)),
}


def leaves(type_: Any, path: str = "") -> Iterator[tuple[str, msgspec.inspect.Type]]:
    """Every scalar place of a schema, dictionary keys included, with its path."""
    info = type_ if isinstance(type_, msgspec.inspect.Type) else msgspec.inspect.type_info(type_)
    if isinstance(info, msgspec.inspect.StructType):
        for field in info.fields:
            yield from leaves(field.type, f"{path}.{field.encode_name}")
    elif isinstance(info, msgspec.inspect.ListType):
        yield from leaves(info.item_type, f"{path}[]")
    elif isinstance(info, msgspec.inspect.DictType):
        yield from leaves(info.key_type, f"{path}<key>")
        yield from leaves(info.value_type, f"{path}<value>")
    elif isinstance(info, msgspec.inspect.UnionType):
        for member in info.types:
            yield from leaves(member, path)
    else:
        yield path, info


def structs(type_: Any) -> Iterator[msgspec.inspect.StructType]:
    """Every struct of a schema, itself first."""
    info = type_ if isinstance(type_, msgspec.inspect.Type) else msgspec.inspect.type_info(type_)
    if isinstance(info, msgspec.inspect.StructType):
        yield info
        for field in info.fields:
            yield from structs(field.type)
    elif isinstance(info, msgspec.inspect.ListType):
        yield from structs(info.item_type)
    elif isinstance(info, msgspec.inspect.DictType):
        yield from structs(info.value_type)
    elif isinstance(info, msgspec.inspect.UnionType):
        for member in info.types:
            yield from structs(member)
