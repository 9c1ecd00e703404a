"""An S3 server that keeps everything in memory and checks no signatures (moto).

Prints its port, and ends when its standard input does: it never outlives who started it.
"""

import os
import sys

from moto.server import ThreadedMotoServer

server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
server.start()
print(server.get_host_and_port()[1], flush=True)
sys.stdin.buffer.read()
# Not by way of the interpreter's end: it would wait for connections.
os._exit(0)
