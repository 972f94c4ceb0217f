"""Events of about 550 bytes, each with a fresh id, in batches as SDKs send them; and the same as stored records."""

import secrets

BATCH = 100

_WIRE = (
    '{"type":"track","event":"Order Completed","userId":"user-%d","anonymousId":"anonymous-%d","messageId":"%s",'
    '"timestamp":"2026-03-01T12:34:56.789Z","originalTimestamp":"2026-03-01T12:34:56.789Z",'
    '"context":{"library":{"name":"analytics-python","version":"2.4.0"},"locale":"en-US","ip":"203.0.113.7"},'
    '"properties":{"order_id":"%d","total":%d.25,"currency":"USD","coupon":"SPRING","products":['
    '{"product_id":"1095275","sku":"A-17","category":"GROCERY","price":12.5,"quantity":2},'
    '{"product_id":"1131974","sku":"B-04","category":"PRODUCE","price":3.75,"quantity":1}]}}'
)
_STORED = _WIRE.replace('"userId"', '"user_id"').replace('"anonymousId"', '"anonymous_id"')
_STORED = _STORED.replace('"messageId"', '"message_id"').replace('"originalTimestamp":"2026-03-01T12:34:56.789Z",', "")


def wire_bodies(count: int) -> list[bytes]:
    """Return batches as they come over HTTP; no message id occurs twice, in this run or another."""
    return [
        b'{"batch":[' + ",".join(_many(_WIRE)).encode() + b'],"sentAt":"2026-03-01T12:35:00Z"}' for _ in range(count)
    ]


def stored_bodies(count: int) -> list[bytes]:
    """Return the same batches in the shape that the contract `events` describes."""
    return [b"[" + ",".join(_many(_STORED)).encode() + b"]" for _ in range(count)]


def _many(template: str) -> list[str]:
    prefix = secrets.token_hex(12)
    return [template % (n, n, f"{prefix}-{n:04d}-4bench", n, n) for n in range(BATCH)]
