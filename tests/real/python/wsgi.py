"""An application for gunicorn."""

from http import HTTPStatus

import echo


def application(environ, start):
    body = environ["wsgi.input"].read()
    path = environ["PATH_INFO"]
    wanted = echo.answer(path)
    if wanted is None:
        fields = echo.from_gateway(environ)
        what = echo.said(environ["REQUEST_METHOD"], environ["RAW_URI"], fields, body)
        wanted = 200, [("Content-Type", "application/json")], what
    status, fields, body = wanted
    if path.startswith("/parts/"):
        # Without a length, gunicorn sends chunks.
        start("200 OK", fields)
        return [body[at : at + 7001] for at in range(0, len(body), 7001)]
    if status not in (204, 304):
        fields = fields + [("Content-Length", str(len(body)))]
    start(f"{status} {HTTPStatus(status).phrase}", fields)
    return [b"" if environ["REQUEST_METHOD"] == "HEAD" else body]
