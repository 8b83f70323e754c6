"""iqray: how does the quality of training images change what a network learns?"""

__version__ = "0.1.0"
