"""The proxy that most would write: Starlette's StreamingResponse over httpx, both as they come.

`python -m tests.bench.systems.starlette_httpx <upstream> <port>`. sniffio, which httpx wants and
does not bring, is there because hal0 brings it: without, this would be slower by a quarter.
"""

import sys

import httpx
import uvicorn
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.requests import Request
from starlette.responses import StreamingResponse
from starlette.routing import Route

HOP_BY_HOP = ("connection", "transfer-encoding")
NOT_PASSED = (*HOP_BY_HOP, "host", "content-length", "authorization")


def app(upstream: str) -> Starlette:
    """Return the application."""
    client = httpx.AsyncClient(base_url=upstream)

    async def forward(request: Request) -> StreamingResponse:
        kept = {name: value for name, value in request.headers.items() if name not in NOT_PASSED}
        content = await request.body()
        sent = client.build_request("POST", request.url.path, headers=kept, content=content)
        answer = await client.send(sent, stream=True)
        return StreamingResponse(
            answer.aiter_raw(),
            answer.status_code,
            {name: value for name, value in answer.headers.items() if name not in HOP_BY_HOP},
            background=BackgroundTask(answer.aclose),
        )

    return Starlette(routes=[Route("/{path:path}", forward, methods=["POST"])])


if __name__ == "__main__":
    uvicorn.run(app(sys.argv[1]), port=int(sys.argv[2]), log_config=None, access_log=False)
