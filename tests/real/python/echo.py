"""What an origin says of a request: what it got, so that a test can compare it with what was sent."""

import hashlib
import json

# Of an answer that has many bytes; the tests know it, too.
PATTERN = bytes(range(251))


def many(count):
    """The body of an answer with so many bytes."""
    return (PATTERN * (count // len(PATTERN) + 1))[:count]


def said(method, target, fields, body):
    """`fields` are pairs of names and values, as this server hands them over."""
    fields = sorted([name.lower(), value] for name, value in fields)
    digest = hashlib.sha256(body).hexdigest()
    what = {"method": method, "target": target, "fields": fields, "length": len(body), "digest": digest}
    return json.dumps(what).encode()


def from_gateway(environ):
    """The pairs of a request as CGI and WSGI name them."""
    for name, value in environ.items():
        if name.startswith("HTTP_"):
            yield name[5:].replace("_", "-"), value
        elif name in ("CONTENT_TYPE", "CONTENT_LENGTH") and value:
            yield name.replace("_", "-"), value


def answer(path):
    """Status, fields and body for a path that asks for a certain answer; nothing where it asks for an echo."""
    kind, _, count = path.strip("/").partition("/")
    if kind in ("bytes", "parts"):
        return 200, [("Content-Type", "application/octet-stream")], many(int(count))
    if kind == "status":
        return int(count), [("ETag", '"one"')], b""
    if kind == "cookies":
        return 200, [("Set-Cookie", "a=1; Path=/"), ("Set-Cookie", "b=2"), ("Set-Cookie", "a=3")], b"cookies"
    if kind == "elsewhere":
        return 302, [("Location", "//elsewhere.example:81/../x?y#z")], b""
    return None
