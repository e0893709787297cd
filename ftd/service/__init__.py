"""ftd as a service of systemd."""
