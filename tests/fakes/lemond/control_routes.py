"""What only tests ask: the script, deaths of backends, what goes on inside. Never in the call log.

`/_backend/{name}` is what a loaded model's own server answers.
"""

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from tests.fakes.lemond.router import Router
from tests.fakes.lemond.script import until


class ControlRoutes:
    """The test's hand in the server."""

    def __init__(self, router: Router) -> None:
        self.router = router
        self._probed: list[str] = []

    def of_root(self) -> list[BaseRoute]:
        """Return the routes without a prefix."""
        return [
            Route("/_backend/{name}/health", self.backend),
            Route("/_script", self.post_script, methods=["POST"]),
            Route("/_drop", self.drop, methods=["POST"]),
            Route("/_state", self.state),
        ]

    async def backend(self, request: Request) -> Response:
        name = request.path_params["name"]
        self._probed.append(name)
        await until(lambda: self.router.told.of(name).backend != "hang")
        is_up = name in self.router.loaded and self.router.told.of(name).backend == "ok"
        return JSONResponse({"status": "ok" if is_up else "error"}, 200 if is_up else 503)

    async def post_script(self, request: Request) -> Response:
        self.router.told.merge(await request.json())
        return JSONResponse(self.router.told.script.model_dump(exclude_unset=True))

    async def drop(self, request: Request) -> Response:
        """Let the backends of the named models die."""
        for name in (await request.json())["models"]:
            self.router.kill(name)
        return JSONResponse({})

    async def state(self, request: Request) -> Response:
        """Tell what the router does, also while it holds its mutex."""
        router = self.router
        return JSONResponse(
            {
                "loaded": list(router.loaded),
                "loading": router.loading,
                "waiting": router.waiting,
                "evicting": router.evicting,
                "busy": [each.name for each in router.loaded.values() if each.active],
                "streaming": [each.name for each in router.loaded.values() if each.streaming],
                "probed": self._probed,
                "downsized": [each.name for each in router.loaded.values() if each.is_downsized],
            }
        )
