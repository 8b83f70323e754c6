"""Tests and intervals on ranks; what scores alone tell."""
