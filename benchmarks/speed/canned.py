"""Serves canned items as DynamoDB does, so cheaply that only the client is measured.

    python canned.py ITEMS PORT_FILE [DELAY_SECONDS]

ITEMS holds one page's item (DynamoDB JSON) a line, by page_id. Writes are accepted and forgotten; a read by
key gives the line of that page_id; a query gives all lines, in parts of 1 MB as DynamoDB does.
"""

import asyncio
import json
import re
import sys
import zlib
from pathlib import Path

PAGE_BYTES = 1024 * 1024

_KEY = re.compile(rb'"page_id": ?\{"S": ?"([^"]+)"\}')
_TABLE = re.compile(rb'"RequestItems": ?\{"([^"]+)"')


class Items:
    """The canned items, and their answers."""

    def __init__(self, path: str) -> None:
        lines = Path(path).read_bytes().splitlines()
        self.by_id = {json.loads(line)["page_id"]["S"].encode(): line for line in lines}
        self.pages: list[bytes] = []
        self.next: dict[bytes, int] = {}
        part: list[bytes] = []
        for page_id, line in self.by_id.items():
            if sum(map(len, part)) * 0.7 > PAGE_BYTES:
                self._end_page(part)
                part = []
            part.append(line)
            last = page_id
        self._end_page(part, is_last=True)
        self.next[last] = len(self.pages)

    def _end_page(self, part: list[bytes], *, is_last: bool = False) -> None:
        end = b""
        if not is_last:
            last = json.loads(part[-1])
            key = {name: last[name] for name in ("site_id", "page_id")}
            end = b',"LastEvaluatedKey":' + json.dumps(key).encode()
            self.next[last["page_id"]["S"].encode()] = len(self.pages) + 1
        body = b'{"Items":[' + b",".join(part) + b'],"Count":%d,"ScannedCount":%d' % (len(part), len(part))
        self.pages.append(body + end + b"}")

    def answer(self, operation: bytes, body: bytes) -> bytes:
        """Returns the body of the answer to a request."""
        if operation == b"GetItem":
            match = _KEY.search(body)
            item = self.by_id.get(match[1]) if match else None
            return b'{"Item":' + item + b"}" if item is not None else b"{}"
        if operation == b"BatchGetItem":
            items = [self.by_id[key] for key in _KEY.findall(body) if key in self.by_id]
            table = _TABLE.search(body)
            name = table[1] if table else b""
            return b'{"Responses":{"' + name + b'":[' + b",".join(items) + b']},"UnprocessedKeys":{}}'
        if operation == b"Query":
            start = body.find(b'"ExclusiveStartKey"')
            match = _KEY.search(body, start) if start >= 0 else None
            return self.pages[self.next[match[1]] if match else 0]
        if operation == b"DescribeTable":
            return b'{"Table":{"TableStatus":"ACTIVE"}}'
        if operation == b"BatchWriteItem":
            return b'{"UnprocessedItems":{}}'
        return b"{}"


class Connection(asyncio.Protocol):
    """One keep-alive connection."""

    def __init__(self, items: Items, delay: float) -> None:
        self._items = items
        self._delay = delay
        self._buffer = b""
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keeps the transport."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """Answers all requests that are complete."""
        self._buffer += data
        while (end := self._buffer.find(b"\r\n\r\n")) >= 0:
            head = self._buffer[:end].lower()
            match = re.search(rb"content-length: *(\d+)", head)
            whole = end + 4 + (int(match[1]) if match else 0)
            if len(self._buffer) < whole:
                return
            target = re.search(rb"x-amz-target: *dynamodb_20120810\.(\w+)", self._buffer[:end], re.IGNORECASE)
            body, self._buffer = self._buffer[end + 4 : whole], self._buffer[whole:]
            answer = self._items.answer(target[1] if target else b"", body)
            response = (
                b"HTTP/1.1 200 OK\r\nContent-Type: application/x-amz-json-1.0\r\nx-amzn-RequestId: canned\r\n"
                b"x-amz-crc32: %d\r\nContent-Length: %d\r\n\r\n%b" % (zlib.crc32(answer), len(answer), answer)
            )
            if self._delay:
                asyncio.get_running_loop().call_later(self._delay, self._write, response)
            else:
                self._write(response)

    def _write(self, response: bytes) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(response)


async def serve(items: Items, port_file: str, delay: float) -> None:
    """Serves until it is ended."""
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Connection(items, delay), "127.0.0.1", 0)
    Path(port_file).write_text(str(server.sockets[0].getsockname()[1]))  # noqa: ASYNC240 # once, at the start
    await server.serve_forever()


if __name__ == "__main__":
    _, items_path, port_path, *rest = sys.argv
    asyncio.run(serve(Items(items_path), port_path, float(rest[0]) if rest else 0.0))
