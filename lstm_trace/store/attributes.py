"""OTLP attribute lists, column by column: as maps of text, and promoted to typed columns."""

# pyarrow.compute makes its functions when it is imported, where no type checker sees them.
# pyright: reportAttributeAccessIssue=false

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from functools import cached_property, reduce
from typing import Any, Final

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.compute as pc

from lstm_trace.store.lenient import load

# pyarrow and numpy carry no element types that a checker could follow; the names say what is held.
Array = Any
Indices = Any

INTEGER: Final = "^-?[0-9]{1,18}$"
"""Text that reads as an integer: what every reader and every engine agrees on."""
NUMBER: Final = r"^-?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?$"
"""Text that reads as a double."""

_PLAIN_LARGEST: Final = 1e10
_PLAIN_SMALLEST: Final = 1e-6
_TYPES: Final = {"string": pa.string(), "int64": pa.int64(), "float64": pa.float64(), "boolean": pa.bool_()}
_NO_TEXT: Final = pa.scalar(None, pa.string())


class NestedValue(Exception):
    """A column is asked of an attribute that is an array, a map or bytes, or has no value, where only plain values were parsed."""


class Attributes:
    """The attribute lists of ``owners`` owners (spans, events, links or resources), flat and indexed by key.

    ``lists`` is an Arrow array with one list of OTLP KeyValue an owner. An entry without a key is left out; of equal keys of one
    owner the first counts, as in ClickHouse's map, so that both engines answer alike.
    """

    def __init__(self, lists: Array) -> None:
        self.owners = len(lists)
        self._fields: dict[str, Array] = {}
        self._entries = pc.list_flatten(lists)
        self._owner = pc.list_parent_indices(lists).to_numpy(zero_copy_only=False)
        named = pc.is_valid(pc.struct_field(self._entries, "key"))
        if not pc.all(named).as_py():
            self._keep(named.to_numpy(zero_copy_only=False))
        self._index()
        repeated = self._repeated()
        if repeated is not None:
            self._keep(~repeated)
            self._index()

    def _keep(self, mask: Indices) -> None:
        self._entries, self._owner = self._entries.filter(pa.array(mask)), self._owner[mask]

    def _index(self) -> None:
        self._keys = pc.struct_field(self._entries, "key")
        encoded = self._keys.dictionary_encode()
        names: list[str] = encoded.dictionary.to_pylist()
        codes = encoded.indices.to_numpy(zero_copy_only=False)
        # numpy sorts 16-bit integers by radix: linear in the entries.
        self._codes = codes.astype(np.uint16 if len(names) <= 1 << 16 else np.uint32)
        self._order = np.argsort(self._codes, kind="stable")
        sizes = np.bincount(self._codes, minlength=len(names))
        self._ends = dict(zip(names, zip(np.cumsum(sizes).tolist(), sizes.tolist(), strict=True), strict=True))

    def _repeated(self) -> Indices | None:
        owner, code = self._owner[self._order], self._codes[self._order]
        again = (owner[1:] == owner[:-1]) & (code[1:] == code[:-1])
        if not again.any():
            return None
        repeated = np.zeros(len(owner), dtype=bool)
        repeated[self._order[1:][again]] = True
        return repeated

    def _field(self, name: str) -> Array:
        if name not in self._fields:
            self._fields[name] = pc.struct_field(self._values, name)
        return self._fields[name]

    @cached_property
    def _values(self) -> Array:
        return pc.struct_field(self._entries, "value")

    @cached_property
    def _empty_texts(self) -> bool:
        return bool(pc.any(pc.equal(self._field("stringValue"), "")).as_py())

    def maps(self) -> Array:
        """The attributes as an Arrow map array of text by key, one map an owner."""
        sizes = np.bincount(self._owner, minlength=self.owners)
        return pa.MapArray.from_arrays(offsets(sizes), self._keys, _texts(self._values))

    def column(self, names: Iterable[str], kind: str) -> Array:
        """One value an owner: of the first of ``names`` that the owner has and that reads as ``kind``, else null.

        ``kind`` is ``string``, ``int64``, ``float64`` or ``boolean``. An empty text and a number that is not finite are null.
        """
        found: Array = None
        for name in names:
            if name in self._ends:
                read = self._read(self._entry_of_owner(name), kind)
                found = read if found is None else pc.coalesce(found, read)
        return pa.nulls(self.owners, _TYPES[kind]) if found is None else found

    def _entry_of_owner(self, name: str) -> Array:
        end, size = self._ends[name]
        entries = self._order[end - size : end]
        at = np.full(self.owners, -1, dtype=np.int32)
        at[self._owner[entries]] = entries
        return pa.array(at, mask=at < 0)

    def _read(self, at: Array, kind: str) -> Array:
        if kind == "string":
            text = self._native("stringValue", at, _not_empty)
            return _not_empty(text) if self._empty_texts else text
        if kind == "boolean":
            return self._native("boolValue", at, lambda text: _reads_as(text, "^(true|false)$").cast(pa.bool_()))
        if kind == "int64":
            return self._native("intValue", at, lambda text: _reads_as(text, INTEGER).cast(pa.int64()))
        double = self._native("doubleValue", at, lambda text: _reads_as(text, NUMBER).cast(pa.float64()))
        finite = pc.is_finite(double)
        return double if finite.false_count == 0 else pc.if_else(finite, double, pa.scalar(None, pa.float64()))

    def _native(self, name: str, at: Array, read: Callable[[Array], Array]) -> Array:
        """The values of entries ``at`` that were written as ``name``, and what ``read`` makes of the text of the others."""
        native = self._field(name).take(at)
        if name == "intValue":
            native = _integers(native)
        if native.null_count == at.null_count:
            return native
        others = pc.if_else(pc.is_valid(native), pa.scalar(None, at.type), at)
        values = self._values.take(others)
        if not has_nested(values.type) and pc.any(pc.and_(_lacks_value(values), pc.is_valid(others))).as_py():
            raise NestedValue
        return pc.coalesce(native, read(_texts(values)))


def offsets(sizes: Indices) -> Array:
    """Arrow list offsets from the lengths of the lists."""
    return pa.array(np.concatenate(([0], np.cumsum(sizes))).astype(np.int32))


def _texts(values: Array) -> Array:
    """OTLP values as text, never null: numbers in decimal, ``true``/``false``, arrays and maps as JSON, no value as ``""``."""
    held = {name: pc.struct_field(values, name) for name in _KINDS_OF_VALUE if values.type.get_field_index(name) >= 0}
    said = [_KINDS_OF_VALUE[name](written) for name, written in held.items() if written.null_count < len(written)]
    return pc.coalesce(*said, "") if said else pa.repeat("", len(values))


def has_nested(type_: Any) -> bool:
    """Whether values of this Arrow type may be arrays, maps or bytes."""
    return bool(type_.get_field_index("arrayValue") >= 0)


def _lacks_value(values: Array) -> Array:
    return reduce(pc.and_, map(pc.is_null, values.flatten()))


def _reads_as(text: Array, pattern: str) -> Array:
    return pc.if_else(pc.match_substring_regex(text, pattern), text, _NO_TEXT)


def _not_empty(text: Array) -> Array:
    return pc.if_else(pc.equal(text, ""), _NO_TEXT, text)


def _integers(written: Array) -> Array:
    try:
        return written.cast(pa.int64())
    except pa.ArrowInvalid:
        return _reads_as(written, INTEGER).cast(pa.int64())


def number_text(value: float) -> str:
    """A double as the Collector writes it into ClickHouse: Go's JSON form.

    >>> [number_text(value) for value in (0.5, 1.0, 1e10, 1e21, 1e-7, float("-inf"))]
    ['0.5', '1', '10000000000', '1e+21', '1e-7', '-Infinity']
    """
    if not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    mantissa, _, exponent = repr(value).removesuffix(".0").partition("e")
    if not exponent:
        return mantissa
    power = int(exponent)
    if not -7 < power < 21:
        return f"{mantissa}e{power:+d}"
    whole, _, fraction = mantissa.lstrip("-").partition(".")
    plain = whole + fraction.ljust(power, "0") if power > 0 else "0." + "0" * (-power - 1) + whole + fraction
    return ("-" if value < 0 else "") + plain


def _double_text(doubles: Array) -> Array:
    text = doubles.cast(pa.string())
    # Arrow writes these otherwise than Go: rare, so one at a time.
    written = doubles.fill_null(0.0).to_numpy()
    size = np.abs(written)
    odd = ~(((size >= _PLAIN_SMALLEST) & (size < _PLAIN_LARGEST)) | (size == 0.0))
    if not odd.any():
        return text
    return pc.replace_with_mask(text, pa.array(odd), pa.array([number_text(value) for value in written[odd].tolist()], pa.string()))


def _nested_text(written: Array, name: str) -> Array:
    """OTLP arrays or maps, given as their JSON text, as plain JSON. Most are equal (finish reasons), so each distinct one is read once."""
    encoded = written.cast(pa.string()).dictionary_encode()
    plain = [_plain_text(text, name) for text in encoded.dictionary.to_pylist()]
    return pa.array(plain, pa.string()).take(encoded.indices)


def _plain_text(text: str, name: str) -> str:
    try:
        return orjson.dumps(plain_value({name: load(text)})).decode()
    except (ValueError, TypeError, RecursionError):  # nested deeper than can be read
        return text


_KINDS_OF_VALUE: Final[dict[str, Callable[[Array], Array]]] = {
    "stringValue": lambda written: written,
    "intValue": lambda written: written,
    "doubleValue": _double_text,
    "boolValue": lambda written: written.cast(pa.string()),
    "arrayValue": lambda written: _nested_text(written, "arrayValue"),
    "kvlistValue": lambda written: _nested_text(written, "kvlistValue"),
    "bytesValue": lambda written: written.cast(pa.string()),
}
"""The kinds of an OTLP value, and how each is written as text; of a value that has several the first counts."""


def plain_value(value: Any) -> Any:
    """An OTLP AnyValue, as its JSON, as a plain Python value; None where it is none."""
    for name, held in value.items() if isinstance(value, dict) else ():
        if name == "arrayValue":
            return [plain_value(item) for item in _values(held)]
        if name == "kvlistValue":
            return {str(item.get("key", "")): plain_value(item.get("value")) for item in _values(held) if isinstance(item, dict)}
        if name == "intValue":
            return int(held) if isinstance(held, str) and held.lstrip("-").isdecimal() and len(held) < 19 else held
        if name in ("stringValue", "doubleValue", "boolValue", "bytesValue"):
            return held
    return None


def _values(held: Any) -> list[Any]:
    values = held.get("values") if isinstance(held, dict) else None
    return values if isinstance(values, list) else []
