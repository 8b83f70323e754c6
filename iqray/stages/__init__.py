"""The stages of a study. Each reads finished tables and makes only what is missing."""
