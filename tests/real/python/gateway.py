#!/usr/bin/python3
"""A CGI program for Apache httpd."""

import os
import sys

import echo

body = sys.stdin.buffer.read()
wanted = echo.answer(os.environ.get("PATH_INFO", ""))
if wanted is None:
    fields = echo.from_gateway(os.environ)
    what = echo.said(os.environ["REQUEST_METHOD"], os.environ["REQUEST_URI"], fields, body)
    wanted = 200, [("Content-Type", "application/json")], what
status, fields, body = wanted
if not os.environ.get("PATH_INFO", "").startswith("/parts/") and status not in (204, 304):
    # Apache finds out by itself only if all of it is there at once.
    fields = fields + [("Content-Length", str(len(body)))]
lines = [f"Status: {status}"] + [f"{name}: {value}" for name, value in fields]
sys.stdout.buffer.write("".join(line + "\r\n" for line in lines).encode() + b"\r\n" + body)
