"""The spawned process: it executes one attempt and knows neither ledger nor queue."""
