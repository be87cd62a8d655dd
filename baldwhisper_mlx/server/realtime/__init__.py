"""OpenAI's realtime transcription sessions, over a WebSocket."""
