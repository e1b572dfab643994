"""A gRPC client. `grpc_client.py ADDRESS HOST [CERTIFICATE]` reads names of cases, one a line, and prints what came of each, as
JSON: its verdict, which is the same whoever is in between, and what was measured, which is not."""

import json
import sys
import time

import grpc

address, host = sys.argv[1:3]
options = [
    ("grpc.default_authority", host),
    ("grpc.max_receive_message_length", -1),
    # Windows that grow by what was measured would let any number of messages be under way.
    ("grpc.http2.bdp_probe", 0),
    ("grpc.max_send_message_length", -1),
    ("grpc.enable_retries", 0),
    ("grpc.keepalive_time_ms", 200),
    ("grpc.keepalive_timeout_ms", 5000),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.keepalive_permit_without_calls", 1),
]
if len(sys.argv) > 3:
    with open(sys.argv[3], "rb") as file:
        trusted = grpc.ssl_channel_credentials(file.read())
    channel = grpc.secure_channel(address, trusted, options + [("grpc.ssl_target_name_override", host)])
else:
    channel = grpc.insecure_channel(address, options)

PATIENCE = 30


def of(kind, name):
    return getattr(channel, kind)(f"/test.Calls/{name}")


def unary(name, request=b"", **more):
    return of("unary_unary", name)(request, timeout=more.pop("timeout", PATIENCE), **more)


def failed(call):
    """How a call failed, with all that a client can see of it but `date`, which the edge says where nobody did."""
    try:
        call()
    except grpc.RpcError as error:
        trailing = [(name, repr(value)) for name, value in error.trailing_metadata() or () if name != "date"]
        trailing.sort()
        return [error.code().name, error.details(), trailing]
    return ["OK"]


def stable(read):
    """What somebody says when it does not change any more."""
    before = read()
    while True:
        time.sleep(0.2)
        now = read()
        if now == before:
            return now
        before = now


def case_unary():
    return [unary("unary", text).decode() for text in (b"hello", b"", b"x" * 100_000)], {}


def case_collect():
    answer = of("stream_unary", "collect")((b"x" * size for size in (1, 0, 70_000)), timeout=PATIENCE)
    return answer.decode(), {}


def case_several():
    return [part.decode() for part in of("unary_stream", "several")(b"50", timeout=PATIENCE)], {}


def case_both():
    """Each message is sent when the one before has come back."""
    came = []

    def ask():
        for number in range(20):
            while len(came) < number:
                time.sleep(0.001)
            yield str(number).encode()

    for answer in of("stream_stream", "both")(ask(), timeout=PATIENCE):
        came.append(answer.decode())
    return came, {}


def case_deadline_told():
    left = float(unary("remaining", timeout=7))
    # It is told in whole units, rounded up.
    return 5 < left < 8, {"left": left}


def case_deadline_exceeded():
    number = int(unary("endings")) + 1
    verdict = failed(lambda: list(of("unary_stream", "wait")(b"", timeout=0.5)))[0]
    # The server's own deadline is over, too.
    unary("ended", str(number).encode())
    return verdict, {}


def case_cancel():
    number = int(unary("endings")) + 1
    call = of("unary_stream", "wait")(b"", timeout=PATIENCE)
    begun = next(call).decode()
    since = time.monotonic()
    call.cancel()
    seen = float(unary("ended", str(number).encode()))
    return [begun, failed(lambda: next(call))[0]], {"ms": (seen - since) * 1000}


def case_fail():
    return failed(lambda: unary("fail")), {}


def case_fail_late():
    call = of("unary_stream", "fail_late")(b"", timeout=PATIENCE)
    return [next(call).decode(), failed(lambda: next(call))], {}


def case_unimplemented():
    return failed(lambda: unary("nothing"))[:2], {}


def case_metadata():
    sent = (("x-text", "a b, c"), ("x-twice", "1"), ("x-twice", "2"), ("x-raw-bin", bytes(range(256))))
    answer, call = of("unary_unary", "metadata").with_call(b"", timeout=PATIENCE, metadata=sent)
    given = [[name, repr(value)] for name, value in call.initial_metadata() if name.startswith("x-")]
    trailing = [[name, repr(value)] for name, value in call.trailing_metadata()]
    return [answer.decode(), sorted(given), sorted(trailing)], {}


def case_large():
    text = bytes(range(256)) * (16 << 10)
    return unary("unary", text) == text, {}


def case_slow_reader():
    call = of("unary_stream", "produce")(b"256", timeout=PATIENCE)
    size = len(next(call))
    produced = stable(lambda: int(unary("count")))
    rest = sum(len(part) for part in call)
    return size + rest, {"produced": produced}


def case_slow_server():
    sent = [0]

    def parts():
        for _ in range(256):
            sent[0] += 1
            yield b"x" * (256 << 10)

    call = of("stream_unary", "take").future(parts(), timeout=PATIENCE)
    while not sent[0]:
        time.sleep(0.001)
    held = stable(lambda: sent[0])
    unary("release")
    return call.result().decode(), {"sent": held}


def case_idle():
    """Silent for a second, with a ping every 200 ms from both sides."""
    came = []

    def ask():
        yield b"first"
        time.sleep(1)
        yield b"second"

    for answer in of("stream_stream", "both")(ask(), timeout=PATIENCE):
        came.append(answer.decode())
    return came, {}


def case_many():
    """Calls one after another, and ten at a time, while connections come and go."""
    verdicts = set()
    until = time.monotonic() + 2
    count = 0
    while time.monotonic() < until:
        calls = [of("unary_unary", "unary").future(str(number).encode(), timeout=PATIENCE) for number in range(10)]
        for number, call in enumerate(calls):
            error = call.exception()
            fine = error is None and call.result() == str(number).encode()
            verdicts.add("fine" if fine else f"{error and error.code().name}: {error and error.details()}")
        count += 10
    return sorted(verdicts), {"count": count}


print("begins", flush=True)
for line in sys.stdin:
    try:
        verdict, measured = globals()["case_" + line.strip()]()
    except Exception as error:  # noqa: BLE001: whatever it is, the test shows it.
        verdict, measured = f"{type(error).__name__}: {error}", {}
    print(json.dumps({"verdict": verdict, "measured": measured}), flush=True)
