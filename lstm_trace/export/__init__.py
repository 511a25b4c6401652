"""How finished spans leave the process: the local store, and delivery over OTLP that keeps what it cannot deliver."""
