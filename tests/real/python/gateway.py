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
lines = [f"Status: {status}"] + [f"{name}: {value}" for name, value in fields]
sys.stdout.buffer.write("".join(line + "\r\n" for line in lines).encode() + b"\r\n" + body)
