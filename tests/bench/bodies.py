"""Events of about 550 bytes, in batches as SDKs send them; and the same as stored records."""

import secrets

ID = "@@"
"""Where the load puts an id that was never used before."""
NOW = "##"
"""Where it puts the time, as SDKs say it when they send."""

_WIRE = (
    '{"type":"track","event":"Order Completed","userId":"user-%d","anonymousId":"anonymous-%d","messageId":"%s",'
    '"timestamp":"2026-03-01T12:34:56.789Z","originalTimestamp":"2026-03-01T12:34:56.789Z",'
    '"context":{"library":{"name":"analytics-python","version":"2.4.0"},"locale":"en-US","ip":"203.0.113.7"},'
    '"properties":{"order_id":"%d","revenue":%d.25,"currency":"USD","coupon":"SPRING","products":['
    '{"product_id":"1095275","sku":"A-17","category":"GROCERY","price":12.5,"quantity":2},'
    '{"product_id":"1131974","sku":"B-04","category":"PRODUCE","price":3.75,"quantity":1}]}}'
)
_STORED = _WIRE.replace('"userId"', '"user_id"').replace('"anonymousId"', '"anonymous_id"')
_STORED = _STORED.replace('"messageId"', '"message_id"').replace('"originalTimestamp":"2026-03-01T12:34:56.789Z",', "")


def event_template() -> bytes:
    """Return the body of one event over HTTP."""
    return (_WIRE % (1, 1, ID, 1, 1)).encode()


def batch_template(events: int) -> bytes:
    """Return the body of a batch of events over HTTP."""
    many = ",".join(_WIRE % (n, n, ID, n, n) for n in range(events))
    return b'{"batch":[' + many.encode() + b'],"sentAt":"' + NOW.encode() + b'"}'


def stored_bodies(count: int, *, events: int) -> list[bytes]:
    """Return batches in the shape that the contract `events` describes, each record with an id of its own."""
    return [
        ("[" + ",".join(_STORED % (n, n, secrets.token_hex(16), n, n) for n in range(events)) + "]").encode()
        for _ in range(count)
    ]
