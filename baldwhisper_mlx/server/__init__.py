"""An HTTP server that answers OpenAI's audio API; needs the `server` extra."""
