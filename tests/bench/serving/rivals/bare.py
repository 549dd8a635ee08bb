"""A bare ASGI application with the same features, arithmetic and log: no contract, keys, limits or problems."""

import json
import socket
import sys
from pathlib import Path

import uvicorn

from features.home import Home
from serving import service
from serving.clerk import Ask
from serving.contract import DecisionsRequest

HEADERS = [(b"content-type", b"application/json")]


def main(home):
    desk = service.open_desk(Home(Path(home)))
    desk.warm()

    async def app(scope, receive, send):
        if scope["type"] != "http":
            return
        body = b""
        while True:
            message = await receive()
            body += message["body"]
            if not message.get("more_body"):
                break
        members = tuple(json.loads(body)["members"])
        request = DecisionsRequest.model_construct(members=members, offers=None, campaign_id=None, context={})
        stored = await desk._room.ask(Ask(request))
        length = (b"content-length", str(len(stored.decided.text)).encode())
        await send({"type": "http.response.start", "status": 200, "headers": [*HEADERS, length]})
        await send({"type": "http.response.body", "body": stored.decided.text})

    listening = socket.socket()
    listening.bind(("127.0.0.1", 0))
    listening.listen(2048)  # who asks before the server is there waits
    print(f"http://127.0.0.1:{listening.getsockname()[1]}/", flush=True)  # noqa: T201 (the benchmark reads it)
    config = uvicorn.Config(app, access_log=False, log_config=None, lifespan="off")
    uvicorn.Server(config).run([listening])


if __name__ == "__main__":
    main(sys.argv[1])
