"""The service: it pulls experiments from the queue, gives runs devices, and watches workers."""
