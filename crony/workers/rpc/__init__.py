"""gRPC calls. Imported only by the process that runs a job: `grpcio` must never be in a process that forks others."""
