"""From facts to JSON text.

A request event has some forty fields of which a dozen change from call to call. The constant ones
are rendered once, when an account, a device, an egress or a conversation comes to be, as a
*fragment*: the text `,"name":value,...` that goes into the line as it is. A line under way is
`{` and fragments; whoever sends it adds the closing brace.
"""

import msgspec

_encode = msgspec.json.Encoder().encode


def fragment(**fields: object) -> str:
    """`,"name":value` for every field that is known (not None), in the order given."""
    if None in fields.values():
        fields = {name: value for name, value in fields.items() if value is not None}
    return "," + _encode(fields)[1:-1].decode() if fields else ""
