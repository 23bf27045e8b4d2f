"""What the deployment lessons share: servers that leave nothing behind, and load upon them.

The model, its artifact and the service itself stand in the notebooks.
"""

from utils.serving.load import Load, load
from utils.serving.process import Server, ServerError, free_port, start

__all__ = ["Load", "Server", "ServerError", "free_port", "load", "start"]
