"""A steady load: each request is sent when it is due, whether or not the earlier ones are answered.

A caller that waits for one answer before it asks again is kept from asking just when the service is
slow, and so measures the good moments; here the time counts from the moment a request was due.
"""

import asyncio
import gc
from collections import deque
from collections.abc import Sequence
from urllib.parse import urlsplit

ANSWER_S = 30.0


async def paced(url: str, bodies: Sequence[bytes], per_second: float) -> list[float]:
    """Seconds from when each body was due to its answer, in order; POSTed over kept connections.

    Raises:
        RuntimeError: an answer that is not 200.
    """
    where = urlsplit(url)
    head = (
        f"POST {where.path or '/'} HTTP/1.1\r\nhost: {where.netloc}\r\n"
        "content-type: application/json\r\ncontent-length: "
    ).encode()
    free: deque[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = deque()
    loop = asyncio.get_running_loop()
    began = loop.time()

    async def post(body: bytes, due: float) -> float:
        # in turn: one that lies idle for seconds is closed by the server
        ends = free.popleft() if free else await asyncio.open_connection(where.hostname, where.port)
        reader, writer = ends
        writer.write(b"%b%d\r\n\r\n%b" % (head, len(body), body))
        told = await reader.readuntil(b"\r\n\r\n")
        if not told.startswith(b"HTTP/1.1 200"):
            raise RuntimeError(told.partition(b"\r\n")[0].decode())
        length = told.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0]
        await reader.readexactly(int(length))
        free.append(ends)
        return loop.time() - due

    collects = gc.isenabled()
    gc.disable()  # it would stop us a quarter of a second at a time, and the service would have it
    try:
        async with (
            asyncio.timeout(len(bodies) / per_second + ANSWER_S),
            asyncio.TaskGroup() as all_of_them,
        ):
            asked = []
            for i, body in enumerate(bodies):
                due = began + i / per_second
                await asyncio.sleep(max(0.0, due - loop.time()))
                asked.append(all_of_them.create_task(post(body, due)))
    finally:
        if collects:
            gc.enable()
    for _, writer in free:
        writer.close()
    return [task.result() for task in asked]
