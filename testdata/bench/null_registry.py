"""A registry that takes all and keeps nothing, to see what a push costs whoever pushes. Prints its port, serves until it is ended."""

import http.server
import itertools


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    uploads = itertools.count()
    buffer = 1 << 20

    def do_GET(self):
        self.say(404 if self.path != "/v2/" else 200)

    do_HEAD = do_GET

    def do_POST(self):
        self.drop()
        self.say(202, Location=f"{self.path.split('?')[0]}{next(self.uploads)}")

    def do_PUT(self):
        self.drop()
        self.say(201, Location=self.path)

    do_PATCH = do_PUT

    def drop(self):
        left, into = int(self.headers.get("Content-Length", 0)), memoryview(bytearray(self.buffer))
        while left:
            count = self.rfile.readinto1(into[:left])
            if not count:
                raise ConnectionError
            left -= count

    def say(self, status, **headers):
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_):
        pass


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_):
        pass  # who pushes went away


if __name__ == "__main__":
    with Server(("127.0.0.1", 0), Handler) as server:
        print(server.server_address[1], flush=True)
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            pass
