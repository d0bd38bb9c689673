"""`nad serve`: the OpenAI API in front of `nad.decoding.stream` (docs/how-to/serve.md); `pip install "nad[serve]"`.

A request is read and checked (schema, translate), waits in one queue (work), runs in one worker thread, and its events
come back over a bridge to the event loop, where they become JSON or server-sent events (answers).
"""
