"""A server of the tiny model as a program of its own; it prints its port."""

import torch
from tiny import tiny_engine

from nad.neurons.activation import ActivationRule
from nad.server.run import bound, server_of
from nad.server.settings import Defaults, Limits, Settings

RULE = ActivationRule(k=30, per_layer=16)
SETTINGS = Settings(Defaults(n=6, stop="6"), Limits(n=16, max_tokens=24, waiting=64), RULE)

if __name__ == "__main__":
    torch.set_num_threads(1)
    listener = bound("127.0.0.1", 0)
    print(listener.getsockname()[1], flush=True)
    server_of(tiny_engine(), SETTINGS).run(sockets=[listener])
