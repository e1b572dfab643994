"""An application for uvicorn. `/events` sends its second event when somebody has asked for `/confirm`."""

import asyncio

import echo

confirmed = asyncio.Event()


async def application(scope, receive, send):
    if scope["type"] != "http":
        return
    path = scope["path"]
    if path == "/events":
        return await events(send)
    body = b""
    while True:
        message = await receive()
        body += message.get("body", b"")
        if not message.get("more_body"):
            break
    if path == "/confirm":
        confirmed.set()
    wanted = echo.answer(path)
    if wanted is None:
        target = scope["raw_path"].decode()
        if scope["query_string"]:
            target += "?" + scope["query_string"].decode()
        fields = [(name.decode(), value.decode("latin-1")) for name, value in scope["headers"]]
        wanted = 200, [("Content-Type", "application/json")], echo.said(scope["method"], target, fields, body)
    status, fields, body = wanted
    fields = [(name.lower().encode(), value.encode()) for name, value in fields]
    if status not in (204, 304) and not path.startswith("/parts/"):
        fields.append((b"content-length", str(len(body)).encode()))
    await send({"type": "http.response.start", "status": status, "headers": fields})
    if scope["method"] == "HEAD" or status in (204, 304):
        body = b""
    for at in range(0, len(body), 7001):
        await send({"type": "http.response.body", "body": body[at : at + 7001], "more_body": True})
    await send({"type": "http.response.body", "body": b""})


async def events(send):
    confirmed.clear()
    fields = [(b"content-type", b"text/event-stream")]
    await send({"type": "http.response.start", "status": 200, "headers": fields})
    await send({"type": "http.response.body", "body": b"data: first\n\n", "more_body": True})
    await confirmed.wait()
    await send({"type": "http.response.body", "body": b"data: second\n\n", "more_body": False})
