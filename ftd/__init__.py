"""ftd: a daemon that answers how to adapt a pretrained network to your images."""

__version__ = "0.1.0"
