// An origin for node: says what it got, or answers as the path asks. `origin.js IDLE_MS` prints its
// port, and closes what is idle for so long. In what node 12 knows: Ubuntu 22.04 has no newer one.
"use strict";

const crypto = require("crypto");
const http = require("http");

const keepAlive = Number(process.argv[2] || 5000);
// How often each id came: POSTs must never come twice.
const counts = new Map();
const sockets = new Set();
let confirm = () => {};

function many(count) {
  const bytes = Buffer.alloc(count);
  for (let at = 0; at < count; at += 1) bytes[at] = at % 251;
  return bytes;
}

// After a millisecond of other work, in which more requests come to connections that are to be closed.
function close(socket) {
  const end = Date.now() + 1;
  while (Date.now() <= end);
  socket.destroy();
}

function echo(request, body, response) {
  const fields = [];
  for (let at = 0; at < request.rawHeaders.length; at += 2) {
    fields.push([request.rawHeaders[at].toLowerCase(), request.rawHeaders[at + 1]]);
  }
  fields.sort((one, other) => (one.join(":") < other.join(":") ? -1 : 1));
  const digest = crypto.createHash("sha256").update(body).digest("hex");
  const what = { method: request.method, target: request.url, fields, length: body.length, digest };
  const text = JSON.stringify(what);
  response.writeHead(200, { "Content-Type": "application/json", "Content-Length": Buffer.byteLength(text) });
  response.end(text);
}

function answer(request, body, response) {
  const [kind, count] = request.url.split("?")[0].slice(1).split("/");
  switch (kind) {
    case "bytes":
    case "parts": {
      const bytes = many(Number(count));
      response.setHeader("Content-Type", "application/octet-stream");
      if (kind === "bytes") response.setHeader("Content-Length", bytes.length);
      response.write(bytes.subarray(0, bytes.length / 2));
      return response.end(bytes.subarray(bytes.length / 2));
    }
    case "until-closed":
      // As servers of HTTP/1.0 do: the end of the connection is the body's.
      request.socket.end("HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n\r\nto the end");
      return undefined;
    case "status":
      return response.writeHead(Number(count), { ETag: '"one"' }).end();
    case "cookies":
      return response.writeHead(200, { "Set-Cookie": ["a=1; Path=/", "b=2", "a=3"] }).end("cookies");
    case "elsewhere":
      return response.writeHead(302, { Location: "//elsewhere.example:81/../x?y#z" }).end();
    case "trailers":
      response.writeHead(200, { Trailer: "X-Sum, Content-Length" });
      response.write("body");
      response.addTrailers({ "X-Sum": "4", "X-Forwarded-For": "6.6.6.6" });
      return response.end();
    case "early":
      // Written by hand, for not every version of node has a call for it.
      request.socket.write("HTTP/1.1 103 Early Hints\r\nLink: </style.css>; rel=preload\r\n\r\n");
      confirm = () => response.end("late");
      return undefined;
    case "events":
      response.writeHead(200, { "Content-Type": "text/event-stream" });
      response.write("data: first\n\n");
      confirm = () => response.end("data: second\n\n");
      return undefined;
    case "confirm":
      confirm();
      return response.end();
    case "count":
      counts.set(count, (counts.get(count) || 0) + 1);
      return response.end(count);
    case "counts":
      return response.end(JSON.stringify([...counts]));
    case "hang-up": {
      const others = [...sockets].filter((socket) => socket !== request.socket);
      others.forEach((socket) => socket.destroy());
      return response.end(String(others.length));
    }
    default:
      return echo(request, body, response);
  }
}

const server = http.createServer((request, response) => {
  const parts = [];
  request.on("data", (part) => parts.push(part));
  request.on("end", () => answer(request, Buffer.concat(parts), response));
});
server.on("connection", (socket) => {
  sockets.add(socket);
  socket.on("close", () => sockets.delete(socket));
});
// By hand, for some versions of node wait for a second more than they are told.
server.keepAliveTimeout = keepAlive + 60000;
server.on("request", (request, response) => {
  const socket = request.socket;
  clearTimeout(socket.idle);
  response.on("finish", () => {
    clearTimeout(socket.idle);
    socket.idle = setTimeout(() => close(socket), keepAlive);
  });
});
// Refuses one body unread, takes any other.
server.on("checkContinue", (request, response) => {
  if (request.url === "/refuses") {
    response.writeHead(417, { "Content-Length": 0, Connection: "close" });
    return response.end();
  }
  response.writeContinue();
  return server.emit("request", request, response);
});
server.listen(0, "127.0.0.1", () => console.log(`serves at 127.0.0.1:${server.address().port}`));
