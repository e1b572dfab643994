"""A gRPC server whose methods take and give plain bytes. `grpc_server.py PORT [AGE_MS]`: of that age, connections are ended."""

import signal
import sys
import threading
import time
from concurrent import futures

import grpc

PART = bytes(range(256)) * 1024  # 256 KiB

cancelled = []
produced = [0]
taken = [0]
go = threading.Event()


def unary(request, context):
    return request


def collect(requests, context):
    return str(sum(len(request) for request in requests)).encode()


def several(request, context):
    for number in range(int(request)):
        yield str(number).encode()


def both(requests, context):
    yield from requests


def remaining(request, context):
    return str(context.time_remaining()).encode()


def wait(request, context):
    """Until its client cancels it, or its deadline is over; the moment is remembered."""
    over = threading.Event()
    context.add_callback(lambda: (cancelled.append(time.monotonic()), over.set()))
    yield b"begun"
    over.wait(30)


def ended(request, context):
    """When the calls of `wait` ended, once there are so many; clocks of one machine are one."""
    while len(cancelled) < int(request) and context.is_active():
        time.sleep(0.002)
    return str(cancelled[-1]).encode()


def endings(request, context):
    return str(len(cancelled)).encode()


def fail(request, context):
    context.set_trailing_metadata((("grpc-status-details-bin", bytes(range(256))), ("x-why", "a reason")))
    context.abort(grpc.StatusCode.FAILED_PRECONDITION, "caf\u00e9 % is closed\n")


def fail_late(request, context):
    yield b"first"
    context.abort(grpc.StatusCode.DATA_LOSS, "after the first")


def metadata(request, context):
    given = sorted((name, value) for name, value in context.invocation_metadata() if name.startswith("x-"))
    context.send_initial_metadata((("x-begin", "b"), ("x-begin-bin", b"\x00\xff\n,;")))
    context.set_trailing_metadata((("x-end", "e"), ("x-end", "f"), ("x-end-bin", bytes(range(256)))))
    hidden = ("x-forwarded", "x-request-id", "x-real-ip")
    return repr([pair for pair in given if not pair[0].startswith(hidden)]).encode()


def produce(request, context):
    produced[0] = 0
    for _ in range(int(request)):
        produced[0] += 1
        yield PART


def take(requests, context):
    """Takes one message, and the others when it may."""
    go.clear()
    taken[0] = next(requests) and 1
    go.wait(30)
    for _ in requests:
        taken[0] += 1
    return str(taken[0]).encode()


def release(request, context):
    go.set()
    return b""


def count(request, context):
    return str(produced[0]).encode()


class Calls(grpc.GenericRpcHandler):
    def service(self, details):
        name = details.method.rsplit("/", 1)[1]
        one, some = grpc.unary_unary_rpc_method_handler, grpc.unary_stream_rpc_method_handler
        of = {f.__name__: one(f) for f in (unary, remaining, ended, endings, fail, metadata, release, count)}
        of.update({f.__name__: some(f) for f in (several, wait, fail_late, produce)})
        of.update({f.__name__: grpc.stream_unary_rpc_method_handler(f) for f in (collect, take)})
        of["both"] = grpc.stream_stream_rpc_method_handler(both)
        return of.get(name)


options = [
    ("grpc.max_receive_message_length", -1),
    # Windows that grow by what was measured would let any number of messages be under way.
    ("grpc.http2.bdp_probe", 0),
    ("grpc.max_send_message_length", -1),
    ("grpc.keepalive_time_ms", 200),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.min_ping_interval_without_data_ms", 10),
    ("grpc.http2.max_ping_strikes", 0),
]
if len(sys.argv) > 2:
    options += [("grpc.max_connection_age_ms", int(sys.argv[2])), ("grpc.max_connection_age_grace_ms", 5000)]
server = grpc.server(futures.ThreadPoolExecutor(32), handlers=[Calls()], options=options)
port = server.add_insecure_port(f"127.0.0.1:{sys.argv[1]}")
server.start()
signal.signal(signal.SIGTERM, lambda *_: server.stop(1))
print(f"serves at 127.0.0.1:{port}", flush=True)
server.wait_for_termination()
